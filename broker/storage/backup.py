"""A copy of the store as it stands at one moment, made beside a working broker.

SQLite's own backup copies all pages in one read transaction: writers go on beside it, and the
copy holds every commit before it and none after.  Only the folding of the log into the database
waits until the copy is made.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker.issuance.errors import Broken, Unreachable
from broker.storage.faults import fault_of
from broker.storage.migrate import schema_version
from broker.storage.rows import moment_of

__all__ = ["StoreFacts", "check_store", "copy_store"]

BUSY_SECONDS: Final = 30.0
"""How long a copy waits for a lock held by another program, in seconds: a broker that stops
right now folds its log for a second or two."""

COUNTED: Final = ("accounts", "orders", "certificates", "ca_certificates", "events")
"""Tables whose rows are counted, so that a person sees what a backup holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What a store holds."""

    schema: int
    counts: Mapping[str, int]
    last_event: int
    """Sequence number of the newest event, 0 where nothing happened yet."""
    last_event_at: datetime | None


def copy_store(source: Path, target: Path) -> StoreFacts:
    """Copy the store at *source* to the new file *target*, mode 0600, and check the copy.

    The copy is one plain file without a log of its own.

    Raises:
        Unreachable: The disk is full or failing.
        Broken: There is no store of ours, or it is damaged.
    """
    if not source.is_file():
        raise Broken(f"there is no store {source}: was this broker ever started?")
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        reading, writing = _connect(source, "ro"), _connect(target, "rw")
        try:
            schema_version(reading)
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE")
        finally:
            writing.close()
            reading.close()
        _sync(target)
        return check_store(target)
    except sqlite3.Error as error:
        raise fault_of(error) from error
    except OSError as error:
        raise Unreachable(f"store cannot be copied to {target}: {error.strerror}") from error


def check_store(path: Path) -> StoreFacts:
    """Read the whole of a store that nobody has open, and return what it holds.

    Raises:
        Broken: It is damaged, of a newer version, or no store of ours.
    """
    try:
        connection = _connect(path, "ro")
        try:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            if faults != ["ok"]:
                raise Broken(f"store {path} is damaged: {'; '.join(faults)[:300]}")
            lost = connection.execute("PRAGMA foreign_key_check").fetchone()
            if lost is not None:
                raise Broken(f"store {path} is damaged: table {lost[0]} names rows that are gone")
            return _facts(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise fault_of(error) from error


def _facts(connection: sqlite3.Connection) -> StoreFacts:
    counts = {}
    for table in COUNTED:
        (counts[table],) = connection.execute(
            f"SELECT count(*) FROM {table}"  # noqa: S608 - names from the list above
        ).fetchone()
    last = connection.execute("SELECT seq, at FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return StoreFacts(
        schema=schema_version(connection),
        counts=counts,
        last_event=0 if last is None else last[0],
        last_event_at=None if last is None else moment_of(last[1]),
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
