"""A signal goes to the process that is meant and to no other."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.processes import NoProcess, ProcessFault, find_process, read_pid_file, send_signal

SERVER = f"penstock-server-{os.getpid()}"
"""A program of a name that no other process has, of other tests on this machine neither."""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and ends it."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str) -> subprocess.Popen[bytes]:
        made = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(made)
        return made

    yield begin
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program of a name that no other process has."""
    made = tmp_path / SERVER
    shutil.copy(shutil.which("sleep") or "", made)
    return str(made)


def pid_file(folder: Path, content: str, mode: int = 0o644) -> Path:
    """Write a pid file."""
    path = folder / "server.pid"
    path.write_text(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", ["4711", "4711\n", "            4711\n"])
def test_pid_file_is_read(tmp_path: Path, content: str) -> None:
    """A pid file holds one number, with space around it as Postfix writes it."""
    assert read_pid_file(pid_file(tmp_path, content)) == 4711


@pytest.mark.parametrize("content", ["", "x", "-1", "1", "0", "12 13", "1e3", "9" * 30, "\u0664"])
def test_pid_file_without_a_process_id_is_refused(tmp_path: Path, content: str) -> None:
    """What is no id, or the first process's, is refused."""
    with pytest.raises(ProcessFault, match="holds no process id"):
        read_pid_file(pid_file(tmp_path, content))


def test_symlinked_pid_file_is_refused(tmp_path: Path) -> None:
    """A pid file that is a link is refused, whatever it leads to."""
    link = tmp_path / "link.pid"
    link.symlink_to(pid_file(tmp_path, "4711"))
    with pytest.raises(ProcessFault, match="is a symbolic link"):
        read_pid_file(link)


def test_pid_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """A pid file that anybody could have written is refused."""
    with pytest.raises(ProcessFault, match="writable by group or others"):
        read_pid_file(pid_file(tmp_path, "4711", 0o666))


def test_pipe_in_place_of_a_pid_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe is refused and not waited for."""
    os.mkfifo(tmp_path / "server.pid")
    with pytest.raises(ProcessFault, match="is no plain file"):
        read_pid_file(tmp_path / "server.pid")


def test_pid_file_of_a_stranger_is_refused(tmp_path: Path) -> None:
    """A pid file belongs to root, to the agent or to the user that is named."""
    path = pid_file(tmp_path, "4711")
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, 4242, 4242)
    with pytest.raises(ProcessFault, match="belongs to user 4242"):
        read_pid_file(path)
    assert read_pid_file(path, user="4242") == 4711


def test_missing_pid_file_is_a_fault(tmp_path: Path) -> None:
    """A server that has ended, or was not started yet, has no pid file."""
    with pytest.raises(NoProcess, match="cannot be read"):
        read_pid_file(tmp_path / "server.pid")


def test_pid_file_that_cannot_be_reached_does_not_say_that_nothing_runs(tmp_path: Path) -> None:
    """Only a missing one does; a link that leads nowhere is a link."""
    (tmp_path / "file").touch()
    (tmp_path / "link.pid").symlink_to("missing")
    for path in (tmp_path / "file" / "server.pid", tmp_path / "link.pid"):
        with pytest.raises(ProcessFault, match=r"cannot be read|is a symbolic link") as caught:
            read_pid_file(path)
        assert not isinstance(caught.value, NoProcess)


def test_signal_reaches_the_program(start: Start, program: str) -> None:
    """A process that runs the program gets the signal."""
    server = start(program, "600")
    send_signal(server.pid, "TERM", program=program)
    assert server.wait() == -15


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_signal_reaches_the_program_where_processes_cannot_be_held(
    start: Start, program: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old kernel, or a container's filter, takes away the descriptor and not the checks."""

    def refuse(pid: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    server = start(program, "600")
    with pytest.raises(ProcessFault, match="and not"):
        send_signal(server.pid, "TERM", program="/usr/sbin/nginx")
    send_signal(server.pid, "TERM", program=program)
    assert server.wait() == -15


def test_signal_spares_another_program(start: Start, program: str) -> None:
    """A number that belongs to another program now is not signalled."""
    other = start(shutil.which("sleep") or "", "600")
    with pytest.raises(ProcessFault, match=r"runs .* and not"):
        send_signal(other.pid, "TERM", program=program)
    assert other.poll() is None


def test_signal_spares_another_users_process(start: Start, program: str) -> None:
    """A process of somebody else is not signalled."""
    server = start(program, "600")
    with pytest.raises(ProcessFault, match="who is not expected"):
        send_signal(server.pid, "TERM", program=program, user="4242")
    assert server.poll() is None


def test_signal_to_a_process_that_is_gone_is_a_fault(start: Start, program: str) -> None:
    """A process that has ended is told as that."""
    server = start(program, "0")
    server.wait()
    with pytest.raises(ProcessFault, match="is gone"):
        send_signal(server.pid, "HUP", program=program)


@pytest.mark.parametrize("name", ["KILL", "STOP", "RTMIN", "", "HUP; TERM"])
def test_signal_that_reloads_nothing_is_refused(name: str, program: str) -> None:
    """Only signals that servers take for a reload are sent."""
    with pytest.raises(ProcessFault, match="is none of"):
        send_signal(os.getpid(), name, program=program)


def test_program_is_found_by_path_and_by_name(start: Start, program: str) -> None:
    """The one process that runs a program is found."""
    server = start(program, "600")
    assert find_process(program) == server.pid
    assert find_process(SERVER) == server.pid


def test_program_that_was_replaced_is_still_found(start: Start, program: str) -> None:
    """A server that was updated while it runs is the same server."""
    server = start(program, "600")
    Path(program).unlink()
    assert find_process(program) == server.pid


def test_two_servers_of_one_name_are_not_guessed_between(start: Start, program: str) -> None:
    """Where two servers run, a pid file has to say which."""
    start(program, "600")
    start(program, "601")
    with pytest.raises(ProcessFault, match=r"2 processes run .* name a pid file"):
        find_process(program)


def test_program_that_does_not_run_is_a_fault() -> None:
    """A server that isn't running can't be reloaded."""
    with pytest.raises(ProcessFault, match="no process runs"):
        find_process("penstock-nobody")
    with pytest.raises(ProcessFault, match="does not exist here"):
        find_process("penstock-nobody", user="penstock-nobody")
