"""Processes of the node: finding the one that is meant, and sending it a signal.

A number in a pid file proves nothing: the server may have ended and its number belong to another.
So the process is held by a descriptor first, then looked at (which program it runs, whose it is,
that it isn't another container's), and the signal goes to what was held.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pwd
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["NoProcess", "ProcessFault", "find_process", "read_pid_file", "send_signal"]

PROC: Final = Path("/proc")

MAX_PID_FILE_BYTES: Final = 256
"""Longest pid file that is read, in bytes; a number with spaces around it has under 32."""

MAX_PID_DIGITS: Final = 10
"""Longest process id, in digits; Linux stays below 2**22."""

COMM_CHARS: Final = 15
"""How much of a program's name the kernel keeps as a task's, in characters."""

SIGNALS: Final = ("HUP", "USR1", "USR2", "WINCH", "TERM", "INT", "CONT", "ALRM")
"""Signals that may be configured; KILL and STOP reload nothing."""


class ProcessFault(Exception):
    """The process that is meant was not found, or is not what it should be."""


class NoProcess(ProcessFault):
    """Nothing runs the program that is meant."""


@dataclass(frozen=True, slots=True)
class _Process:
    """What the kernel says of a process."""

    pid: int
    parent: int
    program: str | None
    """Path of its program; None if this agent may not know it."""

    task: str
    owner: int
    is_nested: bool
    """Whether it runs in a container of its own below this system."""


def read_pid_file(path: Path, *, user: str | None = None) -> int:
    """Return the process id that *path* holds.

    The file has to be one that only root, the agent or *user* can have written: a plain file, no
    link, not writable by group or others.

    Raises:
        NoProcess: There is none; a server writes it when it starts.
        ProcessFault: It cannot be read, isn't trusted, or holds no process id.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise NoProcess(f"pid file {path} cannot be read: {error.strerror}") from None
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else error.strerror
        raise ProcessFault(f"pid file {path} cannot be read: {reason}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ProcessFault(f"pid file {path} is no plain file")
        if facts.st_mode & 0o022:
            raise ProcessFault(f"pid file {path} is writable by group or others")
        if facts.st_uid not in _owners(user):
            raise ProcessFault(
                f"pid file {path} belongs to user {facts.st_uid}, who is not trusted"
            )
        content = os.read(descriptor, MAX_PID_FILE_BYTES)
    finally:
        os.close(descriptor)
    text = content.decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_PID_DIGITS) or int(text) < 2:
        raise ProcessFault(f"pid file {path} holds no process id")
    return int(text)


def find_process(program: str, *, user: str | None = None) -> int:
    """Return the id of the one process that runs *program*: a path, or the name of a file.

    Of a server and the workers that it started, the one that started the others is meant.

    Raises:
        NoProcess: None runs.
        ProcessFault: Several run that did not start one another.
    """
    owners = _owners(user)
    found = {one.pid: one for one in _processes() if _is_meant(one, program, owners)}
    first = [one.pid for one in found.values() if one.parent not in found]
    if not first:
        raise NoProcess(f"no process runs {program!r}")
    if len(first) > 1:
        listed = ", ".join(str(pid) for pid in sorted(first)[:5])
        raise ProcessFault(
            f"{len(first)} processes run {program!r} ({listed}): name a pid file to tell which"
        )
    return first[0]


def send_signal(pid: int, name: str, *, program: str, user: str | None = None) -> None:
    """Send signal *name* to process *pid*, which has to run *program* and belong to *user*.

    Raises:
        ProcessFault: It is another program's, another user's, or gone; no signal was sent.
    """
    if name not in SIGNALS:
        raise ProcessFault(f"signal {name!r} is none of {', '.join(SIGNALS)}")
    number = signal.Signals[f"SIG{name}"]
    try:
        with _held(pid) as held:
            _check(pid, program, user)
            if held is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(held, number)
    except ProcessLookupError:
        raise ProcessFault(f"process {pid} is gone") from None
    except PermissionError:
        raise ProcessFault(f"signal {name} to process {pid} is not permitted") from None


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """Hold process *pid*, so that its number can't become another's meanwhile.

    Where the kernel, or a container's filter of system calls, does not let us: None.
    """
    try:
        held = os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise ProcessLookupError from None
        yield None
        return
    try:
        yield held
    finally:
        os.close(held)


def _check(pid: int, program: str, user: str | None) -> None:
    seen = _look_at(pid)
    if seen is None:
        raise ProcessFault(f"process {pid} is gone")
    if not _runs(seen, program):
        running = seen.program or seen.task
        raise ProcessFault(f"process {pid} runs {running[:100]!r} and not {program!r}")
    if seen.owner not in _owners(user):
        raise ProcessFault(f"process {pid} belongs to user {seen.owner}, who is not expected")
    if seen.is_nested:
        raise ProcessFault(f"process {pid} belongs to a container of its own")


def _is_meant(one: _Process, program: str, owners: frozenset[int]) -> bool:
    return _runs(one, program) and one.owner in owners and not one.is_nested


def _runs(seen: _Process, program: str) -> bool:
    if seen.program is None:
        # A process of another user, seen without the right to trace it: only its name is known.
        return seen.task == os.path.basename(program)[:COMM_CHARS]
    if "/" in program:
        return seen.program in (program, os.path.realpath(program))
    return os.path.basename(seen.program) == program


def _owners(user: str | None) -> frozenset[int]:
    """Return the ids of users that are trusted with the process; a name that is not known: none."""
    if user is None:
        return frozenset((0, os.geteuid()))
    try:
        return frozenset((int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid,))
    except KeyError:
        raise ProcessFault(f"user {user!r} does not exist here") from None


def _processes() -> Iterator[_Process]:
    for name in os.listdir(PROC):
        if name.isdigit():
            seen = _look_at(int(name))
            if seen is not None:
                yield seen


def _look_at(pid: int) -> _Process | None:
    folder = PROC / str(pid)
    try:
        lines = (folder / "status").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    program = None
    with contextlib.suppress(OSError):
        # A server that was updated while it ran shows its old program as deleted.
        program = os.readlink(folder / "exe").removesuffix(" (deleted)")
    return _Process(
        pid=pid,
        parent=int(facts["PPid"]),
        program=program,
        task=facts["Name"].strip(),
        owner=int(facts["Uid"].split()[0]),
        is_nested=len(facts.get("NSpid", "1").split()) > _own_depth(),
    )


@functools.cache
def _own_depth() -> int:
    """Return how many process id namespaces this process can be seen from."""
    with (PROC / "self" / "status").open(encoding="utf-8", errors="replace") as lines:
        found = [line for line in lines if line.startswith("NSpid:")]
    return len(found[0].split()) - 1 if found else 1
