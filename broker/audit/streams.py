"""Sinks on the same machine: a file that others may rotate, and standard output.

What reads or ships them is others' business; nothing of the trail depends on it, since the store
keeps every record.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.audit.feeding import Entry
from broker.issuance.errors import Unreachable

__all__ = ["FileSink", "StdoutSink"]

FILE_MODE: Final = 0o640
"""Mode of a file that is made, as far as the umask lets it: a log shipper may be in its group."""

PIPE_SECONDS: Final = 5.0
"""Longest wait for whoever reads standard output, in seconds; it is tried again later."""

SLICE_SECONDS: Final = 0.1
"""How long is waited at a time, in seconds: a broker that ends is held up by no more."""

PIPE_BYTES: Final = 4096
"""How much is written to standard output at once, in bytes: a pipe that can be written to takes so
much without blocking (PIPE_BUF on Linux)."""


class FileSink:
    """Lines appended to a file; one that was moved away is opened anew under its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def send(self, entries: Sequence[Entry]) -> None:
        """Append the entries; raises Unreachable."""
        try:
            descriptor = self._opened()
            _write_all(descriptor, _octets(entries))
        except OSError as error:
            self.abort()
            raise self._away(error) from error

    def confirm(self) -> None:
        """Have all of it on the disk; raises Unreachable."""
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.abort()
            raise self._away(error) from error

    def abort(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _opened(self) -> int:
        """Return the file that has the name now."""
        if self._descriptor is not None:
            if self._is_still_there(self._descriptor):
                return self._descriptor
            # It was moved away, with lines that nobody has made certain of yet.
            os.fsync(self._descriptor)
            self.abort()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, FILE_MODE)
        _end_line(self._descriptor)
        return self._descriptor

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _away(self, error: OSError) -> Unreachable:
        reason = (error.strerror or str(error)).lower()
        return Unreachable(f"audit file {self._path} cannot be written: {reason}")


class StdoutSink:
    """Lines on standard output, which has nothing else on it: the log goes to standard error."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Write to *descriptor*, by default that of standard output."""
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._rest = b""
        """What is left of a line that was begun."""
        self._is_aborted = False

    def send(self, entries: Sequence[Entry]) -> None:
        """Write the entries; raises Unreachable where nobody reads them."""
        self._is_aborted = False
        if self._rest:
            self._write(self._rest)
        self._write(_octets(entries))

    def confirm(self) -> None:
        """Return: what a pipe has taken, its reader has; nobody can ask it for more."""

    def abort(self) -> None:
        """Have a write that waits give up."""
        self._is_aborted = True

    def _write(self, octets: bytes) -> None:
        left = memoryview(octets)
        while left:
            try:
                if not self._is_read():
                    raise Unreachable("standard output is not being read")
                left = left[os.write(self._descriptor, left[:PIPE_BYTES]) :]
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise Unreachable(f"standard output cannot be written: {reason}") from error
            finally:
                # All of it is sent again, but the line that was begun has to be ended first.
                done = bytes(octets[: len(octets) - len(left)])
                if done:
                    self._rest = _rest_of_line(done, bytes(left))
        self._rest = b""

    def _is_read(self) -> bool:
        """Wait until there is room; return whether there is, and nobody said to give up."""
        for _ in range(max(1, round(PIPE_SECONDS / SLICE_SECONDS))):
            seconds = min(SLICE_SECONDS, PIPE_SECONDS)
            _, is_writable, _ = select.select([], [self._descriptor], [], seconds)
            if is_writable or self._is_aborted:
                break
        return bool(is_writable) and not self._is_aborted


def _octets(entries: Sequence[Entry]) -> bytes:
    return "".join(f"{entry.line}\n" for entry in entries).encode("utf-8")


def _rest_of_line(done: bytes, left: bytes) -> bytes:
    if done.endswith(b"\n"):
        return b""
    return left[: left.find(b"\n") + 1]


def _write_all(descriptor: int, octets: bytes) -> None:
    left = memoryview(octets)
    while left:
        left = left[os.write(descriptor, left) :]


def _end_line(descriptor: int) -> None:
    """End a line that was begun and not ended, before a crash or on a full disk."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
