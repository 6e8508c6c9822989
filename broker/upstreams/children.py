"""Short-lived child processes: clean environment, nothing inherited, time and output bounded.

A child gets what it has to know through its standard input; its arguments are read by anybody on
the machine.  It leads a session of its own, and nothing of that session outlives the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from broker.issuance.errors import Broken, Unreachable

__all__ = ["ChildResult", "run_child"]

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Most standard output that is taken, in bytes; an answer has some hundred."""

MAX_COMPLAINT_BYTES: Final = 4 * 1024
"""Most standard error that is kept for the log, in bytes; the rest is read and dropped."""

LINGER_SECONDS: Final = 1.0
"""How long pipes are read after the child's end: a grandchild that got away may hold them."""

_SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child ended, and what it said."""

    status: int
    """Exit status; negative: the signal that ended it."""
    output: bytes
    complaint: bytes
    """The beginning of its standard error: for the log, never for a client."""


async def run_child(
    command: Sequence[str],
    *,
    what: str,
    timeout: timedelta,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
) -> ChildResult:
    """Run *command* with *given* on its standard input; *what* names it in errors.

    Raises:
        Unreachable: It had not ended in time, and was killed.  It may have done its work.
        Broken: It cannot be started, or says more than it should.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, child = await loop.subprocess_exec(
            lambda: _Child(loop),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": _SEARCH_PATH, "LANG": "C.UTF-8", **(environment or {})},
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Broken(f"{what} cannot be started: {reason.lower()}") from error
    pid = transport.get_pid()
    try:
        _feed(transport, given)
        async with asyncio.timeout(timeout.total_seconds()):
            await child.over
        _kill(pid)
        # What it wrote last may still lie in the pipes; a grandchild may hold them open for good.
        await asyncio.wait((child.silent,), timeout=LINGER_SECONDS)
    except TimeoutError as error:
        limit = timeout.total_seconds()
        raise Unreachable(f"{what} had not ended after {limit:g} s and was killed") from error
    finally:
        _kill(pid)
        await asyncio.shield(child.ended)  # a killed child leaves at once
        transport.close()
    if child.is_chatty:
        raise Broken(f"{what} says more than the limit of {MAX_OUTPUT_BYTES} bytes")
    return ChildResult(transport.get_returncode() or 0, bytes(child.output), bytes(child.complaint))


class _Child(asyncio.SubprocessProtocol):
    """Listens to a child, and stops listening where it says too much."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the child has ended."""
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when it has ended, or should be."""
        self.silent: asyncio.Future[None] = loop.create_future()
        """Done when both of its pipes are at their end."""
        self.output = bytearray()
        self.complaint = bytearray()
        self.is_chatty = False
        self._open_pipes = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what is within the limits."""
        if fd == 2:
            self.complaint += data[: MAX_COMPLAINT_BYTES - len(self.complaint)]
        elif len(self.output) + len(data) <= MAX_OUTPUT_BYTES:
            self.output += data
        else:
            self.is_chatty = True
            _finish(self.over)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """Note that a pipe is at its end."""
        self._open_pipes.discard(fd)
        if not self._open_pipes:
            _finish(self.silent)

    def process_exited(self) -> None:
        """Note that the child has ended."""
        _finish(self.over)
        _finish(self.ended)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _feed(transport: asyncio.SubprocessTransport, given: bytes) -> None:
    # Not asked for its type: uvloop's pipes are none of asyncio's classes.
    pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
    if given:
        pipe.write(given)
    pipe.close()  # after what was written has gone


def _kill(pid: int) -> None:
    """End whatever is left of the child's session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
