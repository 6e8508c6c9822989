"""A reload does what the node's configuration says, and nothing that a name says."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agents.config import Absent, ReloadSection
from agents.reload import ReloadFault, Renewed, is_unit, make_environment, reload

SERVER = f"penstock-server-{os.getpid()}"
"""A program of a name that no other process has, of other tests on this machine neither."""

FOLDER = Path("/etc/tls/mail")
MAIL = Renewed("mail", ("mail.example", "*.mail.example"), FOLDER)


def shell(script: str) -> tuple[str, ...]:
    """Return a command that runs *script*."""
    return ("/bin/sh", "-c", script)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that can be signalled; ``server.args[0]`` is its path."""
    program = tmp_path / SERVER
    shutil.copy(shutil.which("sleep") or "", program)
    # A program inherits what is ignored: all that nohup starts ignores SIGHUP.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        started = subprocess.Popen([str(program), "600"])
    finally:
        signal.signal(signal.SIGHUP, before)
    with started as made:
        yield made
        made.kill()


def test_nothing_is_done_where_nothing_is_said() -> None:
    """A server that looks at its files by itself needs no reload."""
    reload(ReloadSection(), [MAIL])


def test_command_is_told_what_was_renewed(tmp_path: Path) -> None:
    """A command finds certificate, folder and names, the latter as certbot's hooks do."""
    seen = tmp_path / "seen"
    names = "$PENSTOCK_CERTIFICATE|$RENEWED_LINEAGE|$RENEWED_DOMAINS"
    reload(ReloadSection(command=shell(f'echo "{names}" > {seen}')), [MAIL])
    assert seen.read_text() == "mail|/etc/tls/mail|mail.example *.mail.example\n"


def test_one_reload_for_several_certificates_names_all() -> None:
    """Certificates that share a reload are named together, each name once."""
    web = Renewed("web", ("mail.example", "www.example"), FOLDER)
    made = make_environment([MAIL, web])
    assert made["PENSTOCK_CERTIFICATE"] == "mail web"
    assert made["RENEWED_LINEAGE"] == "/etc/tls/mail"
    assert made["RENEWED_DOMAINS"] == "mail.example *.mail.example www.example"


def test_reload_for_thousands_of_certificates_is_started(tmp_path: Path) -> None:
    """What is too long for an environment is left out of it, and the reload is done."""
    many = [
        Renewed(f"mail-{number}", (f"mail-{number}.organisation.example",), FOLDER / str(number))
        for number in range(5_000)
    ]
    seen = tmp_path / "seen"
    script = f'echo "${{#PENSTOCK_CERTIFICATE}} ${{#RENEWED_DOMAINS}}" > {seen}'
    reload(ReloadSection(command=shell(script)), many)
    assert seen.read_text() == "48889 0\n"


def test_folder_that_only_a_signal_would_know_may_have_any_name(tmp_path: Path) -> None:
    """What no program is told needs no checking."""
    spaced = Renewed("mail", ("mail.example",), Path("/srv/An Organisation/tls"))
    reload(ReloadSection(systemd="a.service"), [spaced], systemctl=("/bin/true",))
    with pytest.raises(ReloadFault, match=r"folder .* cannot be handed to a program"):
        reload(ReloadSection(command=("/bin/true",)), [spaced])


@pytest.mark.parametrize(
    "name",
    [
        "$(touch x).example",
        "`id`.example",
        "a.example;touch x",
        "a.example\ntouch x",
        "a.example b.example",
        "a&b",
        "a|b",
        "'a'",
        "-rf",
        "",
        "\u0430.example",
    ],
)
@pytest.mark.parametrize("place", ["names", "certificate", "folder"])
def test_what_a_script_could_obey_is_not_handed_on(tmp_path: Path, name: str, place: str) -> None:
    """A value that a script could take for more than a name fails the reload before it begins."""
    ran = tmp_path / "ran"
    changed = {
        "names": Renewed("mail", (name,), FOLDER),
        "certificate": Renewed(name, ("mail.example",), FOLDER),
        "folder": Renewed("mail", ("mail.example",), Path("/etc") / f"x{name};"),
    }[place]
    section = ReloadSection(command=("/usr/bin/touch", str(ran)))
    with pytest.raises(ReloadFault, match="cannot be handed to a program"):
        reload(section, [changed])
    assert not ran.exists()
    reload(section, [MAIL])
    assert ran.exists()


def test_check_that_fails_prevents_the_reload(tmp_path: Path) -> None:
    """Nothing is reloaded where the check fails, and its words stay on the node."""
    done = tmp_path / "done"
    command = ("/usr/bin/touch", str(done))
    with pytest.raises(ReloadFault, match="check '/bin/sh' ended with status 1") as caught:
        reload(
            ReloadSection(check=shell("echo no such key: s3cret; exit 1"), command=command), [MAIL]
        )
    assert not done.exists()
    assert "s3cret" not in str(caught.value)
    assert caught.value.output == "no such key: s3cret"
    reload(ReloadSection(check=("/bin/true",), command=command), [MAIL])
    assert done.exists()


def test_command_that_fails_or_hangs_is_a_fault() -> None:
    """A command that ends badly, or not in time, has not reloaded."""
    with pytest.raises(ReloadFault, match="command '/bin/sh' ended with status 7"):
        reload(ReloadSection(command=shell("exit 7")), [MAIL])
    with pytest.raises(ReloadFault, match="command failed: program 'sh' took longer than"):
        reload(ReloadSection(command=shell("sleep 600"), timeout=timedelta(seconds=0.2)), [MAIL])


def test_unit_is_reloaded_by_systemctl(tmp_path: Path) -> None:
    """A unit is named behind the end of the options."""
    told = tmp_path / "told"
    stand_in = tmp_path / "systemctl"
    stand_in.write_text(f'#!/bin/sh\necho "$@" > {told}\n[ "$4" != broken.service ]\n')
    stand_in.chmod(0o755)
    systemctl = (str(stand_in), "--no-ask-password", "reload-or-restart", "--")
    reload(ReloadSection(systemd="nginx.service"), [MAIL], systemctl=systemctl)
    assert told.read_text() == "--no-ask-password reload-or-restart -- nginx.service\n"
    with pytest.raises(ReloadFault, match=r"unit .* ended with status 1"):
        reload(ReloadSection(systemd="broken.service"), [MAIL], systemctl=systemctl)


@pytest.mark.parametrize("unit", ["--help", "a b.service", "a;b.service", "a.service\n", "nginx"])
def test_what_is_no_unit_is_refused(unit: str) -> None:
    """An option, or anything else that is no unit, is not handed to systemctl."""
    with pytest.raises(ReloadFault, match="is no name of a systemd unit"):
        reload(ReloadSection(systemd=unit), [MAIL], systemctl=("/bin/true",))
    assert is_unit("getty@tty1.service")


def test_signal_goes_to_the_program_of_the_pid_file(
    server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A pid file and the program that it has to name lead to the process."""
    path = tmp_path / "server.pid"
    path.write_text(f"{server.pid}\n")
    program = str(tmp_path / SERVER)
    wrong = ReloadSection(signal="HUP", pid_file=str(path), process="/usr/sbin/nginx")
    with pytest.raises(ReloadFault, match="and not '/usr/sbin/nginx'"):
        reload(wrong, [MAIL])
    assert server.poll() is None
    reload(ReloadSection(signal="TERM", pid_file=str(path), process=program), [MAIL])
    assert server.wait() == -15


def test_signal_goes_to_the_process_of_that_name(server: subprocess.Popen[bytes]) -> None:
    """Without a pid file the program's name is enough, if one process runs it."""
    reload(ReloadSection(signal="TERM", process=SERVER), [MAIL])
    assert server.wait() == -15


def test_signal_without_a_program_is_refused(tmp_path: Path) -> None:
    """A number alone is never signalled."""
    with pytest.raises(ReloadFault, match="name its program"):
        reload(ReloadSection(signal="HUP", pid_file=str(tmp_path / "server.pid")), [MAIL])


def test_a_server_that_is_started_later_may_be_absent(tmp_path: Path) -> None:
    """As in a pod, where it waits for its first certificate; elsewhere that is a fault."""
    section = ReloadSection(signal="HUP", process=str(tmp_path / "nginx"))
    reload(replace(section, absent=Absent.PASS), [MAIL])
    with pytest.raises(ReloadFault, match="no process runs"):
        reload(section, [MAIL])


def test_a_server_that_is_started_later_has_no_pid_file_yet(tmp_path: Path) -> None:
    """It may be absent by its pid file too; one that is there and not trusted is a fault."""
    path = tmp_path / "server.pid"
    section = ReloadSection(signal="HUP", pid_file=str(path), process="/usr/sbin/nginx")
    may_be_absent = replace(section, absent=Absent.PASS)
    reload(may_be_absent, [MAIL])
    with pytest.raises(ReloadFault, match="cannot be read"):
        reload(section, [MAIL])
    path.write_text("4711\n")
    path.chmod(0o666)
    with pytest.raises(ReloadFault, match="writable by group or others"):
        reload(may_be_absent, [MAIL])


def test_a_server_that_may_be_absent_is_signalled_when_it_is_there(
    server: subprocess.Popen[bytes],
) -> None:
    """Being there it gets the signal, and one that is not another's is a fault all the same."""
    section = ReloadSection(signal="HUP", process=str(server.args[0]), absent=Absent.PASS)  # type: ignore[index]
    with pytest.raises(ReloadFault, match="does not exist here"):
        reload(replace(section, user="nobody-here"), [MAIL])
    reload(section, [MAIL])
    assert server.wait() == -1
