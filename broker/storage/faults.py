"""What SQLite may say, cut by what the caller does next.

No exception of the database leaves this room.  A fault that may pass (a full disk, a lock, a
failed read) is Unreachable; one that needs a person is Broken; a row that somebody else wrote
first is a Conflict.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = ["StoreLocked", "fault_of", "is_io_fault"]

PRIMARY_CODE_MASK: Final = 0xFF
"""Bits of an extended SQLite result code that hold the primary one."""

_PASSING: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "is locked by another program",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_FULL: "has no space left on its disk",
    sqlite3.SQLITE_INTERRUPT: "was interrupted",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_LOCKED: "is locked by another connection",
    sqlite3.SQLITE_NOMEM: "has no memory left",
    sqlite3.SQLITE_PROTOCOL: "is locked by another program",
    sqlite3.SQLITE_READONLY: "is read-only",
}
"""Primary codes that can heal without a change to the store, in words."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_TAKEN: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    }
)


class StoreLocked(Broken):
    """Another process works on the store; stop that one first, or go to it."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"store {path} is in use by {holder}")
        self.pid = pid


def fault_of(error: sqlite3.Error) -> Unreachable | Broken | Conflict:
    """Return the outcome that *error* is for the caller of the port."""
    # Absent when the sqlite3 module itself found the fault: a closed connection, a wrong type.
    code: int = getattr(error, "sqlite_errorcode", 0)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = code & PRIMARY_CODE_MASK
    if code in _TAKEN:
        columns = str(error).partition(": ")[2]
        return Conflict(f"store holds another row with the same {columns}")
    if primary in _PASSING:
        return Unreachable(f"store {_PASSING[primary]} ({name})")
    if primary in _DAMAGED:
        return Broken(f"store is damaged: {error} ({name}); restore it from a backup")
    return Broken(f"store refused: {error} ({name})")


def is_io_fault(error: sqlite3.Error) -> bool:
    """Return whether the disk failed, so that what was written lately cannot be trusted."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE_MASK == sqlite3.SQLITE_IOERR
