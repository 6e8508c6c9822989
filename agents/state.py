"""What the agent must not forget: files of JSON below the node's state folder.

Each is written beside, synced and renamed, so that it is either the old one or the new one whatever
happens.  Knows nothing of what stands in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["Folder", "State", "StateFault", "write_durably"]

MAX_STATE_BYTES: Final = 8 * 1024 * 1024
"""Largest file of state that is read, in bytes: twice the largest message."""


class StateFault(Exception):
    """State cannot be written or read: the disk is full, gone or not ours."""


def write_durably(path: str, octets: bytes, *, mode: int = 0o600) -> None:
    """Put *octets* in the place of *path*, whole and synced; raises StateFault."""
    beside = f"{path}.{threading.get_native_id()}.new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(beside, flags, mode)
        try:
            _write_all(descriptor, octets)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise StateFault(f"{path} cannot be written: {error.strerror}") from None


def _write_all(descriptor: int, octets: bytes) -> None:
    left = memoryview(octets)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Folder:
    """Documents by name in one folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateFault(f"{path} cannot be made: {error.strerror}") from None

    def put(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep *document* under *name*; raises StateFault."""
        octets = json.dumps(document, separators=(",", ":")).encode("utf-8")
        write_durably(self._file(name), octets)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return what is kept under *name*; None: nothing, or nothing that can be read.

        What cannot be read is put aside: the agent begins anew there rather than not at all.
        """
        path = self._file(name)
        try:
            with open(path, "rb") as file:
                found = json.loads(file.read(MAX_STATE_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateFault(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        with contextlib.suppress(OSError):
            os.rename(path, f"{path}.unreadable")
        return None

    def remove(self, name: str) -> None:
        """Forget *name*; what comes back after a crash is what was there, and no harm."""
        with contextlib.suppress(OSError):
            os.unlink(self._file(name))

    def names(self) -> list[str]:
        """Return the names that are kept, in order."""
        try:
            found = os.listdir(self.path)
        except OSError as error:
            raise StateFault(f"{self.path} cannot be read: {error.strerror}") from None
        return sorted(one[:-5] for one in found if one.endswith(".json"))

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Go through what is kept, in the order of names."""
        for name in self.names():
            found = self.get(name)
            if found is not None:
                yield name, found

    def _file(self, name: str) -> str:
        return os.path.join(self.path, f"{name}.json")


class State:
    """The folders of the node's state."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.own = Folder(path)
        self.identity = Folder(os.path.join(path, "identity"))
        self.certificates = Folder(os.path.join(path, "certificates"))
        self.inbox = Folder(os.path.join(path, "inbox"))
        self.outbox = Folder(os.path.join(path, "outbox"))
        self.bundles = Folder(os.path.join(path, "bundles"))
        self._lock: int | None = None

    def hold(self) -> None:
        """Keep every other agent off this state until the process ends; raises StateFault."""
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._lock = os.open(os.path.join(self.path, "lock"), flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.write(self._lock, str(os.getpid()).encode("ascii"))
        except OSError as error:
            said = "another agent runs on it" if error.errno == 11 else error.strerror
            raise StateFault(f"{self.path} cannot be held: {said}") from None

    def holder(self) -> int | None:
        """Return the process id of the agent that runs on this state; None: none does."""
        import fcntl

        try:
            with open(os.path.join(self.path, "lock"), "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read(20))
        except (OSError, ValueError):
            pass
        return None

    def release(self) -> None:
        """Let another agent have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
