"""The open file: its lanes, its settings, its figures."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.storage.database import Database, open_database
from broker.storage.faults import StoreLocked
from broker.storage.glance import glance
from broker.storage.lock import StoreLock
from broker.storage.migrate import load_migrations
from broker.storage.transaction import Transaction
from tests.contract.storage import given


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    """An open database; the test closes it."""
    return await open_database(tmp_path / "store.db", exclusive=True)


async def test_connections_are_set_up_for_their_part(database: Database) -> None:
    """The writer keeps foreign keys and waits for the disk; readers cannot write."""

    def setting(name: str) -> str:
        return f"PRAGMA {name}"

    async def of_writer(name: str) -> object:
        return await database.write(lambda unit: unit.first(setting(name)))

    async def of_reader(name: str) -> object:
        return await database.read(lambda snapshot: snapshot.first(setting(name)))

    assert await of_writer("journal_mode") == ("wal",)
    assert await of_writer("synchronous") == (2,)
    assert await of_writer("foreign_keys") == (1,)
    assert await of_writer("trusted_schema") == (0,)
    assert await of_writer("busy_timeout") == (5000,)
    assert await of_writer("journal_size_limit") == (64 * 1024 * 1024,)
    assert await of_reader("query_only") == (1,)
    assert await of_reader("trusted_schema") == (0,)
    await database.close()


async def test_reader_cannot_change_anything(database: Database) -> None:
    """Even a statement that slips through the types is refused by the connection."""
    with pytest.raises(Unreachable, match="is read-only"):
        await database.scan(lambda snapshot: snapshot.all("DELETE FROM accounts RETURNING 1"))
    await database.close()


async def test_closed_store_leaves_nothing_behind(tmp_path: Path) -> None:
    """No thread and no descriptor, also where opening was refused."""
    before = os.listdir("/proc/self/fd")
    path = tmp_path / "store.db"
    for _ in range(3):
        database = await open_database(path, exclusive=True)
        await database.write(record(1))
        beside = await open_database(path, exclusive=False)
        for one in (database, beside):
            await one.read(lambda snapshot: snapshot.first("SELECT 1"))
            await one.scan(lambda snapshot: snapshot.first("SELECT 1"))
            await one.close()
    (tmp_path / "other.db").write_bytes(b"no database" * 100)
    with pytest.raises(Broken):
        await open_database(tmp_path / "other.db", exclusive=True)
    assert [one.name for one in threading.enumerate() if one.name.startswith("store-")] == []
    assert len(os.listdir("/proc/self/fd")) <= len(before)


async def test_figures_count_what_waits(database: Database) -> None:
    """Writes and reads apart, until they are answered."""
    tasks = [asyncio.ensure_future(database.write(record(n))) for n in range(3)]
    tasks += [asyncio.ensure_future(database.read(lambda _: None)) for _ in range(2)]
    tasks += [asyncio.ensure_future(database.scan(lambda _: None))]
    await asyncio.sleep(0)
    assert (database.stats().waiting_writes, database.stats().waiting_reads) == (3, 3)
    await asyncio.gather(*tasks)
    assert (database.stats().waiting_writes, database.stats().waiting_reads) == (0, 0)
    await database.close()


def record(number: int) -> Callable[[Transaction], None]:
    """Return a unit that appends one event."""
    return lambda unit: unit.record((given.event(data={"n": number}),))


async def test_reads_see_what_was_written_before_them(database: Database) -> None:
    """A read asked for after an acknowledgement sees what it acknowledged, on both lanes."""
    for number in range(50):
        await database.write(record(number), durable=False)
        for read in (database.read, database.scan):
            count = await read(lambda snapshot: snapshot.first("SELECT count(*) FROM events"))
            assert count == (number + 1,)
    await database.close()


async def test_file_that_was_taken_away_is_not_made_anew(
    database: Database, tmp_path: Path
) -> None:
    """A connection never creates: an empty store in place of the lost one would lie."""
    (tmp_path / "store.db").unlink()
    with pytest.raises(Unreachable, match="cannot be opened"):
        await database.write(lambda unit: unit.first("SELECT 1"))
    assert not (tmp_path / "store.db").exists()
    await database.close()


async def test_network_file_system_without_a_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite cannot have its log, the store is not used without it."""

    class Stubborn(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if sql == "PRAGMA journal_mode = WAL":
                return super().execute("SELECT 'delete'")
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **named: connect(*args, **named, factory=Stubborn)
    )
    with pytest.raises(Broken, match="use a local disk"):
        await open_database(tmp_path / "store.db", exclusive=True)


def older(monkeypatch: pytest.MonkeyPatch, versions: int) -> None:
    """Have the program know only the first *versions* migrations."""
    known = load_migrations()[:versions]
    for place in ("database", "glance"):
        monkeypatch.setattr(f"broker.storage.{place}.load_migrations", lambda: known)


def pending(path: Path) -> int | None:
    """Return how many migrations the store waits for, None where there is none."""
    seen = glance(path)
    return None if seen is None else seen.pending


async def test_store_is_told_of_before_it_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with both schemas, while nobody else may open it; never for a new store."""
    path, told = tmp_path / "store.db", list[tuple[int, int]]()
    last = len(load_migrations())

    def tell(present: int, wanted: int) -> None:
        told.append((present, wanted))
        with pytest.raises(StoreLocked):
            StoreLock.take(path)

    with monkeypatch.context() as before:
        older(before, last - 1)
        assert pending(path) is None
        made = await open_database(path, exclusive=True, before_migrating=tell)
        await made.close()
    assert told == []
    assert pending(path) == 1
    made = await open_database(path, exclusive=True, before_migrating=tell)
    await made.close()
    assert told == [(last - 1, last)]
    assert pending(path) == 0
    made = await open_database(path, exclusive=True, before_migrating=tell)
    await made.close()
    assert len(told) == 1


async def test_store_stays_as_it_was_where_what_comes_before_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its lock is free again."""
    path = tmp_path / "store.db"
    with monkeypatch.context() as before:
        older(before, len(load_migrations()) - 1)
        await (await open_database(path, exclusive=True)).close()

    def refuse(present: int, wanted: int) -> None:
        raise Broken("no room for a backup")

    with pytest.raises(Broken, match="no room for a backup"):
        await open_database(path, exclusive=True, before_migrating=refuse)
    assert pending(path) == 1
    StoreLock.take(path).release()
