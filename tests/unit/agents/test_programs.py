"""Programs are run bounded and alone."""

import os
import select
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agents.programs import ProgramFault, run

SHELL = "/bin/sh"
LIMIT = timedelta(seconds=20)

PATIENCE_SECONDS = (0.5, 5, 25)
"""How long a program that hangs may take, in seconds: one after the other, until it had the time to
start what it starts."""


def test_status_and_output_are_returned() -> None:
    """What a program says and how it ends come back, standard error included."""
    finished = run([SHELL, "-c", "echo out; echo err >&2; exit 3"], limit=LIMIT)
    assert (finished.status, finished.ending) == (3, "ended with status 3")
    assert sorted(finished.complaint.splitlines()) == ["err", "out"]


def test_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program finds the few names that are fixed, what it is given, and nothing else."""
    monkeypatch.setenv("PENSTOCK_SECRET", "s3cret")
    finished = run(["/usr/bin/env"], limit=LIMIT, environment={"PENSTOCK_CERTIFICATE": "mail"})
    names = {line.partition("=")[0] for line in finished.complaint.splitlines()}
    assert names == {"PATH", "LANG", "HOME", "PENSTOCK_CERTIFICATE"}


def test_arguments_reach_no_shell(tmp_path: Path) -> None:
    """Arguments that a shell would obey are text."""
    made = tmp_path / "made"
    text = f"$(touch {made}); touch {made} `touch {made}`\n| touch {made}"
    finished = run(["/usr/bin/printf", "%s", text], limit=LIMIT, most_output_bytes=1000)
    assert finished.output.decode() == text
    assert not made.exists()


def test_program_past_its_time_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """The time limit ends the whole group of processes."""
    started = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {started}.new; mv {started}.new {started}; wait"
    for seconds in PATIENCE_SECONDS:
        with pytest.raises(ProgramFault, match=f"'sh' took longer than {seconds} s and was killed"):
            run([SHELL, "-c", script], limit=timedelta(seconds=seconds))
        if started.exists():
            break
    try:
        held = os.pidfd_open(int(started.read_text()))
    except ProcessLookupError:
        return
    try:
        assert select.select([held], [], [], 10)[0], "what it started is alive"
    finally:
        os.close(held)


def test_program_that_leaves_somebody_behind_is_not_waited_for() -> None:
    """A restart script that leaves its server running, for longer than it may take itself, has
    ended when it has."""
    finished = run([SHELL, "-c", "sleep 30 & exit 0"], limit=LIMIT)
    assert finished.status == 0


def test_output_past_the_limit_is_a_fault() -> None:
    """A program whose output is wanted may not say more than that."""
    command = [sys.executable, "-c", "import sys; sys.stdout.write('x' * 100_000)"]
    with pytest.raises(ProgramFault, match="wrote more than 99999 bytes"):
        run(command, limit=LIMIT, most_output_bytes=99_999)
    assert len(run(command, limit=LIMIT, most_output_bytes=100_000).output) == 100_000


def test_output_that_is_not_wanted_is_kept_at_its_end() -> None:
    """Of a program that talks without end, the last page is kept."""
    script = "print('first'); print('x' * 1_000_000); print('last\\x1b[31m')"
    finished = run([sys.executable, "-c", script], limit=LIMIT)
    assert len(finished.complaint) < 10_000
    assert finished.complaint.endswith("last [31m")


def test_what_is_given_is_read_whole() -> None:
    """What is written to a program is more than a pipe holds, and comes back whole."""
    given = os.urandom(300_000).hex().encode()
    finished = run(["/bin/cat"], limit=LIMIT, given=given, most_output_bytes=len(given))
    assert finished.output == given


def test_program_that_reads_nothing_is_no_fault() -> None:
    """A program may end before it has read what it was given."""
    assert run(["/bin/true"], limit=LIMIT, given=b"x" * 300_000).status == 0


@pytest.mark.parametrize("command", [["/nonexistent/program"], ["/"], ["/bin/true", "a\0b"]])
def test_program_that_cannot_be_started_is_a_fault(command: list[str]) -> None:
    """A program that is missing, no program, or given a NUL is a fault and not a crash."""
    with pytest.raises(ProgramFault, match="cannot be started"):
        run(command, limit=LIMIT)
