"""Programs that the node's own configuration names, run as they have to be: bounded and alone.

A program is an argument list and never a line for a shell.  It gets an environment made of a few
names that are fixed here, an empty standard input unless it is given something to read, and a time
limit, past which everything that it started is killed.  Nothing that the broker sends becomes an
argument; what reaches the environment is checked by whoever puts it there.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Final, NoReturn

__all__ = ["ENVIRONMENT", "Finished", "ProgramFault", "run"]

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}
"""What every program finds in its environment; nothing of the agent's own is passed on."""

KEPT_BYTES: Final = 8 * 1024
"""How much of the end of a program's output is kept, in bytes: a page of complaints for a log."""

STEP_SECONDS: Final = 0.05
"""Longest time between two looks whether a program has ended, in seconds.  One that leaves
somebody behind who holds its output open is noticed by that alone."""

LAST_LOOKS: Final = 64
"""How often a program's output is read once more after it has ended: 4 MiB at most, since somebody
whom it left behind may go on writing."""

CHUNK_BYTES: Final = 64 * 1024
"""How much is read at once, in bytes: what a pipe of Linux holds."""


class ProgramFault(Exception):
    """A program could not be started, took too long or said too much; the text says which."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended."""

    status: int
    """Its exit status; a negative one is the signal that ended it."""

    output: bytes
    """What it wrote to its standard output, or the end of that where only the end is kept."""

    complaint: str
    """The end of what it wrote to its standard error, or to both where they are one."""

    @property
    def ending(self) -> str:
        """Say in words how it ended."""
        if self.status < 0:
            return f"was ended by signal {-self.status}"
        return f"ended with status {self.status}"


def run(
    command: Sequence[str],
    *,
    limit: timedelta,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
    most_output_bytes: int | None = None,
) -> Finished:
    """Run *command* and return how it ended.

    *given* is written to its standard input.  Its output is thrown away but for the end, unless
    *most_output_bytes* says how much of it is wanted: then it is kept apart from complaints, and
    one byte more is a fault.

    Raises:
        ProgramFault: It could not be started, or it was killed with all that it started, because
            it took longer than *limit* or wrote too much.
    """
    name = os.path.basename(command[0])
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if most_output_bytes is None else subprocess.PIPE,
            cwd="/",
            env={**ENVIRONMENT, **(environment or {})},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its arguments cannot be passed on"
        raise ProgramFault(f"program {name!r} cannot be started: {reason}") from None
    with process:
        try:
            return _Conversation(process, name, limit, most_output_bytes).hold(given)
        except BaseException:
            _kill_group(process)
            raise


class _Conversation:
    """What goes into a program and comes out of it until it ends."""

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, limit: timedelta, most: int | None
    ) -> None:
        self._process = process
        self._name = name
        self._limit = limit
        self._most = most
        self._kept: dict[str, bytearray] = {"output": bytearray(), "complaint": bytearray()}
        self._selector = selectors.DefaultSelector()

    def hold(self, given: bytes) -> Finished:
        """Write *given*, read what comes, and return once the program has ended."""
        deadline = time.monotonic() + self._limit.total_seconds()
        process = self._process
        for stream, kind in ((process.stdout, "output"), (process.stderr, "complaint")):
            self._listen(stream, selectors.EVENT_READ, kind)
        self._listen(process.stdin, selectors.EVENT_WRITE, "given")
        left = memoryview(given)
        with self._selector:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    self._give_up(f"took longer than {self._limit.total_seconds():g} s")
                left = self._exchange(left, STEP_SECONDS)
            for _ in range(LAST_LOOKS):
                left = self._exchange(left, 0)
        output, complaint = bytes(self._kept["output"]), bytes(self._kept["complaint"])
        told = complaint if self._most is not None else output
        return Finished(process.returncode, output, _clean(told))

    def _exchange(self, left: memoryview, seconds: float) -> memoryview:
        """Move what can be moved within *seconds*; return what is left to be given."""
        for key, _ in self._selector.select(seconds):
            if key.data == "given":
                left = self._write(key.fd, left)
            else:
                self._read(key.fd, key.data)
        return left

    def _listen(self, stream: IO[bytes] | None, event: int, kind: str) -> None:
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream.fileno(), event, kind)

    def _read(self, descriptor: int, kind: str) -> None:
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(descriptor)
            return
        kept = self._kept[kind]
        kept += chunk
        if kind == "output" and self._most is not None:
            if len(kept) > self._most:
                self._give_up(f"wrote more than {self._most} bytes")
        elif len(kept) > KEPT_BYTES:
            del kept[:-KEPT_BYTES]

    def _write(self, descriptor: int, left: memoryview) -> memoryview:
        try:
            left = left[os.write(descriptor, left[:CHUNK_BYTES]) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:
            left = left[:0]
        if not left and self._process.stdin is not None:
            self._selector.unregister(descriptor)
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return left

    def _give_up(self, why: str) -> NoReturn:
        raise ProgramFault(f"program {self._name!r} {why} and was killed")


def _clean(octets: bytes) -> str:
    """Return *octets* as lines of printable characters."""
    lines = octets.decode("utf-8", "replace").splitlines()
    cleaned = ("".join(one if one.isprintable() else " " for one in line) for line in lines)
    return "\n".join(line.rstrip() for line in cleaned if line.strip())


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
