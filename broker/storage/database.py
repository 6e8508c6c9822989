"""The database file: made, locked, brought up to date, and served by three lanes.

One lane writes; one answers short reads, one long lists, so that an operator's list never
stands before a client's poll.  Nothing else in the broker opens the file.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event
from broker.storage.chaining import begin_chain
from broker.storage.faults import fault_of
from broker.storage.lanes import Lane, Unit
from broker.storage.lock import StoreLock
from broker.storage.migrate import check_schema, due_migrations, load_migrations, migrate
from broker.storage.reader import Reader
from broker.storage.transaction import Snapshot, Transaction
from broker.storage.writer import Writer, events_of

__all__ = ["BeforeMigrating", "Database", "StoreStats", "open_database"]

T = TypeVar("T")

OnCommitted = Callable[[Sequence[Event]], None]

BeforeMigrating = Callable[[int, int], None]
"""Is told from which schema to which a store is about to be brought; where it raises, it stays."""

BUSY_SECONDS: Final = 5.0
"""How long a connection waits for a lock held by another program, in seconds.

Only a person's tool can hold one; past this the callers are told to come again.
"""

LOG_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Size to which the write-ahead log is cut back after a burst, in bytes.

Sixteen times the 4 MiB at which SQLite folds it into the database.
"""

FOLD_MILLISECONDS: Final = 100
"""How long folding the log waits for readers, in milliseconds: no writer goes on meanwhile.  The
broker's own reads take a few."""

CACHED_STATEMENTS: Final = 256
"""Prepared statements kept by a connection: more than there are in this room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What the store has done since it was opened, and what waits."""

    durable_commits: int
    """Commits that were on the disk before anyone was told."""
    relaxed_commits: int
    """Commits that outlive the process, and the machine only with the next durable one."""
    failed_commits: int
    units: int
    """Units of work, failed ones included."""
    failed_units: int
    waiting_writes: int
    waiting_reads: int


class Database:
    """An open store file; made by `open_database`."""

    def __init__(self, path: Path, lock: StoreLock | None) -> None:
        """Start the lanes; without a *lock* there is none for writing."""
        self._path = path
        self._lock = lock
        self.on_committed: OnCommitted | None = None
        self._quick = Lane("store-read", Reader(self._connect_reader))
        self._bulk = Lane("store-list", Reader(self._connect_reader))
        self._writer = Writer(self._connect_writer)
        self._write: Lane | None = None
        if lock is not None:
            self._write = Lane("store-write", self._writer, on_batch=self._on_batch)

    async def write(self, work: Callable[[Transaction], T], *, durable: bool = True) -> T:
        """Do *work* in a transaction and return its result once that is committed."""
        if self._write is None:
            raise Broken("store is open for reading only")
        return await self._write.submit(work, is_durable=durable)

    def take_along(self, find_riders: Callable[[], Sequence[Event]]) -> None:
        """Have every commit write what *find_riders* gives out, on the writer's thread."""
        self._writer.find_riders = find_riders

    async def read(self, work: Callable[[Snapshot], T]) -> T:
        """Return the result of a short read."""
        return await self._quick.submit(work)

    async def scan(self, work: Callable[[Snapshot], T]) -> T:
        """Return the result of a read that may take long."""
        return await self._bulk.submit(work)

    async def fold_log(self) -> None:
        """Move the log into the database file and cut it to nothing.

        Raises:
            Unreachable: A reader stood in the way.
        """
        if self._write is None:
            raise Broken("store is open for reading only")
        try:
            await asyncio.to_thread(_fold_log, self._path)
        except sqlite3.Error as error:
            raise fault_of(error) from error

    def stats(self) -> StoreStats:
        """Return the figures of this moment."""
        tally = self._writer.tally
        return StoreStats(
            durable_commits=tally.durable_commits,
            relaxed_commits=tally.relaxed_commits,
            failed_commits=tally.failed_commits,
            units=tally.units,
            failed_units=tally.failed_units,
            waiting_writes=self._write.waiting if self._write is not None else 0,
            waiting_reads=self._quick.waiting + self._bulk.waiting,
        )

    @property
    def fault(self) -> str | None:
        """Return why the last write failed for the disk's sake, None when it did not."""
        return self._writer.fault

    async def close(self) -> None:
        """Finish what waits and let go of the file and its lock."""
        # The writer goes last: SQLite folds the log into the database when nobody else reads it.
        await self._quick.close()
        await self._bulk.close()
        if self._write is not None:
            await self._write.close()
        if self._lock is not None:
            self._lock.release()

    def _on_batch(self, batch: Sequence[Unit]) -> None:
        if self.on_committed is not None:
            events = events_of(batch)
            if events:
                self.on_committed(events)

    def _connect_writer(self) -> sqlite3.Connection:
        connection = _connect(self._path, "rw")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        # Savepoints would spill into the system's temporary directory, which may be full or
        # read-only while ours is fine; transactions here are small.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = _connect(self._path, "ro")
        connection.execute("PRAGMA query_only = ON")
        return connection


async def open_database(
    path: Path, *, exclusive: bool, before_migrating: BeforeMigrating | None = None
) -> Database:
    """Open the store at *path*, making it when it is not there and *exclusive* is set.

    *before_migrating* is called in another thread, with the lock held, before anything in a store
    that holds something is changed.

    Raises:
        StoreLocked: Another process works on it.
        Unreachable: The disk is full, read-only or failing.
        Broken: It is damaged, of a newer version, or no store at all.
    """
    try:
        if exclusive:
            absolute, lock = await asyncio.to_thread(_prepare, path, before_migrating)
        else:
            absolute, lock = await asyncio.to_thread(_inspect, path)
    except sqlite3.Error as error:
        raise fault_of(error) from error
    except OSError as error:
        raise Unreachable(f"store {path} cannot be opened: {error.strerror}") from error
    return Database(absolute, lock)


def _prepare(path: Path, before_migrating: BeforeMigrating | None) -> tuple[Path, StoreLock | None]:
    """Make the file if need be, lock it, and bring its schema up to date."""
    path = path.absolute()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StoreLock.take(path)
    try:
        # Made, or closed to others, before SQLite opens it: its log takes the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = _connect(path, "rw")
        try:
            migrations = load_migrations()
            due = due_migrations(connection, migrations)
            known = len(migrations) - len(due)
            if due and known and before_migrating is not None:
                before_migrating(known, len(migrations))
            migrate(connection, migrations)
            begin_chain(connection)
            # Last, so that a database which is not ours has been refused and is left alone.
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise Broken(f"store {path} cannot have a write-ahead log: use a local disk")
        finally:
            connection.close()
        _sync_folder(path.parent)
    except BaseException:
        lock.release()
        raise
    return path, lock


def _inspect(path: Path) -> tuple[Path, None]:
    """Refuse a store whose schema is not exactly ours; nothing is changed."""
    path = path.absolute()
    connection = _connect(path, "ro")
    try:
        check_schema(connection, load_migrations())
    finally:
        connection.close()
    return path, None


def _fold_log(path: Path) -> None:
    """Fold on a connection of its own: the writer's is in the middle of a transaction at times."""
    connection = _connect(path, "rw")
    try:
        connection.execute(f"PRAGMA busy_timeout = {FOLD_MILLISECONDS}")
        (row,) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if row[0]:
            raise Unreachable("store is being read: its log cannot be folded now")
    finally:
        connection.close()


def _sync_folder(folder: Path) -> None:
    """Have the folder's entries on the disk, so that a new store outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        cached_statements=CACHED_STATEMENTS,
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection
