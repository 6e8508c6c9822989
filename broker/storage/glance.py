"""What can be seen of a store without opening it: whether a start would have to change it.

It reads a few rows on a connection of its own and imports next to nothing, so that whoever only
wants to know is done in a fraction of the time that a whole broker takes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from broker.issuance.errors import Unreachable
from broker.storage.faults import fault_of
from broker.storage.lock import StoreLock
from broker.storage.migrate import due_migrations, load_migrations

__all__ = ["Glance", "glance", "glance_alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a store that is there is like."""

    present: int
    """Its schema."""
    pending: int
    """How many migrations it waits for."""
    authorities: frozenset[str]
    """The built-in CAs that were begun; none while migrations are pending, for then that table may
    not be there."""


def glance(path: Path) -> Glance | None:
    """Return what the store at *path* is like; None where there is none yet.

    Raises:
        Broken: It is no store of ours, damaged, or a newer version changed it too much.
        Unreachable: The disk is failing.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return None
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            return _look(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise fault_of(error) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unreachable(f"store {path} cannot be read: {reason}") from error


def glance_alone(path: Path) -> Glance | None:
    """Return the same, seen while nobody works on the store.

    Raises:
        StoreLocked: Somebody does.
    """
    if not path.exists():
        return None
    try:
        lock = StoreLock.take(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unreachable(f"store {path} cannot be locked: {reason}") from error
    try:
        return glance(path)
    finally:
        lock.release()


def _look(connection: sqlite3.Connection) -> Glance | None:
    migrations = load_migrations()
    due = len(due_migrations(connection, migrations))
    if due == len(migrations):
        return None
    found = frozenset[str]()
    if not due:
        rows = connection.execute("SELECT DISTINCT ca FROM ca_members").fetchall()
        found = frozenset(ca for (ca,) in rows)
    return Glance(present=len(migrations) - due, pending=due, authorities=found)
