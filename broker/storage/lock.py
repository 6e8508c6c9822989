"""The exclusive lock on a store: one process writes, and the next one is told which.

A lock file beside the database, held with flock(2) for as long as the process lives, so that a
crash frees it.  It is never removed: a second process could then lock a file that is gone.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from broker.storage.faults import StoreLocked

__all__ = ["StoreLock"]

PID_BYTES: Final = 20
"""Longest process id that is read back, in bytes: a 64-bit number has at most 20 digits."""


class StoreLock:
    """A held lock; `release` gives it up."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, store: Path) -> StoreLock:
        """Lock the store at *store*, or raise without waiting.

        Raises:
            StoreLocked: Another process holds it; its process id is in the sentence.
            OSError: The lock file cannot be made.
        """
        path = store.with_name(store.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, PID_BYTES).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreLocked(store, int(holder) if holder.isdigit() else None) from None
        except OSError:
            os.close(descriptor)
            raise
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            # On a full disk the lock still holds; only its owner stays unnamed.
            pass
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock up; a second call changes nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
