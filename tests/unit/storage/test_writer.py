"""The writer's batches: what is undone when a unit, a commit or a connection fails."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.storage.lanes import Unit
from broker.storage.transaction import Transaction
from broker.storage.writer import Writer, events_of
from tests.contract.storage import given


class Faulty(sqlite3.Connection):
    """A connection that fails at statements of one's choice, so many times."""

    faults: dict[str, list[int]]
    seen: list[str]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Fail with the next code that is left for *sql*, or run it."""
        self.seen.append(sql)
        codes = self.faults.get(sql, [])
        if codes:
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode = codes.pop(0)
            error.sqlite_errorname = "MADE_UP"
            raise error
        return super().execute(sql, parameters)


class Harness:
    """A writer over a file, with the statements of all its connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: dict[str, list[int]] = {}
        self.seen: list[str] = []
        self.connections = 0
        self.writer = Writer(self.connect)
        connection = self.connect()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        connection.close()
        self.connections = 0

    def connect(self) -> sqlite3.Connection:
        """Open one more connection."""
        self.connections += 1
        connection = sqlite3.connect(self.path, isolation_level=None, factory=Faulty)
        connection.faults, connection.seen = self.faults, self.seen
        return connection

    def run(self, *works: Callable[[Transaction], Any], is_durable: bool = True) -> list[Unit]:
        """Run one batch and return its units."""
        loop = asyncio.get_running_loop()
        batch = [Unit(work, loop.create_future(), is_durable=is_durable) for work in works]
        self.writer.run(batch)
        return batch

    def numbers(self) -> list[int]:
        """Return what is committed."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute("SELECT n FROM numbers ORDER BY n").fetchall()
        connection.close()
        return [number for (number,) in rows]


@pytest.fixture
async def harness(tmp_path: Path) -> Any:
    """A writer over an empty table of numbers."""
    made = Harness(tmp_path / "numbers.db")
    yield made
    made.writer.close()


def insert(number: int) -> Callable[[Transaction], int]:
    """Return a unit that inserts *number* and returns it."""

    def work(transaction: Transaction) -> int:
        transaction.change("INSERT INTO numbers VALUES (?)", number)
        transaction.events.append(given.event(data={"n": number}))
        return number

    return work


def refuse(_: Transaction) -> None:
    """Be a unit that loses its compare-and-set."""
    raise Conflict("somebody was first")


async def test_batch_is_one_commit(harness: Harness) -> None:
    """Each unit has its result and its events."""
    batch = harness.run(insert(1), insert(2))
    assert [unit.result for unit in batch] == [1, 2]
    assert [event.data["n"] for event in events_of(batch)] == [1, 2]
    assert harness.numbers() == [1, 2]
    assert harness.seen.count("COMMIT") == 1


async def test_failing_unit_is_undone_alone(harness: Harness) -> None:
    """A conflict of ours and a broken constraint of SQLite's, between two that pass."""

    def insert_and_refuse(transaction: Transaction) -> None:
        insert(3)(transaction)
        raise Conflict("somebody was first")

    batch = harness.run(insert(1), insert_and_refuse, insert(1), insert(2))
    assert [type(unit.error) for unit in batch] == [type(None), Conflict, Conflict, type(None)]
    assert harness.numbers() == [1, 2]
    assert [event.data["n"] for event in events_of(batch)] == [1, 2]
    assert harness.writer.tally.failed_units == 2
    assert harness.writer.tally.failed_commits == 0


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "RELEASE unit", "COMMIT"])
async def test_failing_commit_fails_every_unit_and_leaves_nothing(
    harness: Harness, statement: str
) -> None:
    """Nobody is told a success that is not on the disk; the next batch passes."""
    harness.faults[statement] = [sqlite3.SQLITE_FULL]
    batch = harness.run(insert(1), refuse, insert(2))
    assert all(isinstance(unit.error, Unreachable) for unit in batch)
    assert events_of(batch) == []
    assert harness.numbers() == []
    assert harness.writer.tally.failed_commits == 1
    assert harness.run(insert(1))[0].error is None
    assert harness.numbers() == [1]
    assert harness.connections == 1


async def test_transaction_that_sqlite_gave_up_fails_whole(harness: Harness) -> None:
    """SQLite may roll back everything when a unit finds no room; then no unit has happened."""

    def lose_all(transaction: Transaction) -> None:
        transaction.change("ROLLBACK")
        harness.faults["made to fail"] = [sqlite3.SQLITE_FULL]
        transaction.change("made to fail")

    batch = harness.run(insert(1), lose_all, insert(2))
    assert all(isinstance(unit.error, Unreachable) for unit in batch)
    assert harness.numbers() == []


async def test_connection_that_cannot_roll_back_is_replaced(harness: Harness) -> None:
    """The next batch opens another one and passes."""
    harness.faults["COMMIT"] = [sqlite3.SQLITE_FULL]
    harness.faults["ROLLBACK"] = [sqlite3.SQLITE_IOERR]
    assert isinstance(harness.run(insert(1))[0].error, Unreachable)
    assert harness.run(insert(2))[0].error is None
    assert harness.connections == 2
    assert harness.numbers() == [2]


async def test_log_begins_anew_after_the_disk_failed(harness: Harness) -> None:
    """Once, before the next batch; a full disk is no such failure."""
    prove = "PRAGMA wal_checkpoint(TRUNCATE)"
    harness.faults["COMMIT"] = [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC]
    harness.run(insert(1))
    harness.run(insert(1))
    assert prove not in harness.seen
    harness.run(insert(1))
    harness.run(insert(2))
    assert harness.seen.count(prove) == 1
    assert harness.numbers() == [1, 2]


async def test_nothing_is_written_while_the_log_cannot_begin_anew(harness: Harness) -> None:
    """Each batch tries again; the first that succeeds goes on."""
    prove = "PRAGMA wal_checkpoint(TRUNCATE)"
    harness.faults["COMMIT"] = [sqlite3.SQLITE_IOERR_FSYNC]
    harness.faults[prove] = [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL]
    outcomes = [harness.run(insert(1))[0].error for _ in range(4)]
    assert [type(one) for one in outcomes] == [Unreachable] * 3 + [type(None)]
    assert harness.seen.count(prove) == 3
    assert harness.numbers() == [1]


async def test_log_that_is_being_read_is_tried_again(harness: Harness) -> None:
    """A reader in the way makes the store unreachable for a moment, not less safe."""
    harness.run(insert(1))
    reader = sqlite3.connect(harness.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM numbers").fetchall()
    harness.faults["COMMIT"] = [sqlite3.SQLITE_IOERR]
    harness.run(insert(2))
    harness.writer._connection.execute("PRAGMA busy_timeout = 0")  # type: ignore[union-attr]
    (unit,) = harness.run(insert(2))
    assert isinstance(unit.error, Unreachable)
    assert "recovering" in unit.error.reason
    reader.close()
    assert harness.run(insert(2))[0].error is None


async def test_failed_read_in_a_unit_makes_the_disk_suspect(harness: Harness) -> None:
    """The unit fails alone, and the log begins anew before the next batch."""

    def read(transaction: Transaction) -> None:
        transaction.first("cannot be read")

    harness.faults["cannot be read"] = [sqlite3.SQLITE_IOERR]
    batch = harness.run(insert(1), read)
    assert [type(unit.error) for unit in batch] == [type(None), Unreachable]
    harness.run(insert(2))
    assert "PRAGMA wal_checkpoint(TRUNCATE)" in harness.seen


async def test_commit_waits_for_the_disk_only_if_a_unit_needs_it(harness: Harness) -> None:
    """The setting changes before a transaction begins, and only when it has to."""
    for is_durable in (True, True, False, False, True):
        harness.run(refuse, is_durable=is_durable)
    settings = [one for one in harness.seen if "synchronous" in one]
    assert settings == ["PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"]
    tally = harness.writer.tally
    assert (tally.durable_commits, tally.relaxed_commits) == (3, 2)


async def test_unit_that_must_be_durable_has_its_batch_run_anew(harness: Harness) -> None:
    """All units run twice, all have happened once, and the commit is a durable one."""
    runs: list[int] = []

    def promote(transaction: Transaction) -> None:
        runs.append(1)
        insert(2)(transaction)
        transaction.demand_durability()

    batch = harness.run(insert(1), promote, insert(3), is_durable=False)
    assert len(runs) == 2
    assert harness.numbers() == [1, 2, 3]
    assert len(events_of(batch)) == 3
    assert harness.seen.count("COMMIT") == 1
    assert harness.writer.tally.durable_commits == 1


async def test_store_that_cannot_be_opened_fails_the_batch(harness: Harness) -> None:
    """And is opened by the next one that can."""
    harness.path.rename(harness.path.with_suffix(".away"))
    broken = Writer(lambda: sqlite3.connect(f"{harness.path.as_uri()}?mode=rw", uri=True))
    unit = Unit(insert(1), asyncio.get_running_loop().create_future(), is_durable=True)
    broken.run([unit])
    assert isinstance(unit.error, Unreachable)
    harness.path.with_suffix(".away").rename(harness.path)
    assert harness.run(insert(1))[0].error is None


async def test_fault_is_remembered_until_a_batch_is_written(harness: Harness) -> None:
    """Only a fault of the disk counts: a conflict says nothing of it."""
    assert harness.writer.fault is None
    harness.run(refuse)
    assert harness.writer.fault is None
    harness.faults["COMMIT"] = [sqlite3.SQLITE_FULL]
    harness.run(insert(1))
    assert "no space left" in (harness.writer.fault or "")
    harness.run(refuse)
    assert harness.writer.fault is None


async def test_closing_twice_is_harmless(harness: Harness) -> None:
    """A writer that was never used closes as well; the log is folded into the database."""
    Writer(harness.connect).close()
    harness.run(insert(1))
    log = harness.path.with_name(harness.path.name + "-wal")
    assert log.exists()
    harness.writer.close()
    harness.writer.close()
    assert not log.exists()


async def test_store_that_is_damaged_is_broken(harness: Harness) -> None:
    """What needs a person is not called passing."""
    harness.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_CORRUPT]
    assert isinstance(harness.run(insert(1))[0].error, Broken)
