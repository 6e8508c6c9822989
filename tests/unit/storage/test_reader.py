"""A batch of reads sees one snapshot, and a fault lets go of the connection."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.storage.lanes import Unit
from broker.storage.reader import Reader
from broker.storage.transaction import Snapshot


class Harness:
    """A reader over a file with one number in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.reader = Reader(self.connect)
        self.change("PRAGMA journal_mode = WAL")
        self.change("CREATE TABLE numbers (n INTEGER)")
        self.change("INSERT INTO numbers VALUES (1)")

    def connect(self) -> sqlite3.Connection:
        """Open one more connection for reading."""
        self.connections += 1
        uri = f"{self.path.as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None)

    def change(self, statement: str) -> None:
        """Change the file from elsewhere."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute(statement)
        connection.close()

    def run(self, *works: Callable[[Snapshot], Any]) -> list[Unit]:
        """Run one batch and return its units."""
        loop = asyncio.get_running_loop()
        batch = [Unit(work, loop.create_future(), is_durable=False) for work in works]
        self.reader.run(batch)
        return batch


@pytest.fixture
async def harness(tmp_path: Path) -> Any:
    """A reader, not connected yet."""
    made = Harness(tmp_path / "numbers.db")
    yield made
    made.reader.close()


def count(snapshot: Snapshot) -> Any:
    """Count the numbers."""
    return snapshot.first("SELECT count(*) FROM numbers")


async def test_batch_sees_one_snapshot_and_the_next_one_more(harness: Harness) -> None:
    """A commit in the middle of a batch is seen by the next batch."""

    def change(snapshot: Snapshot) -> Any:
        harness.change("INSERT INTO numbers VALUES (2)")
        return count(snapshot)

    assert [unit.result for unit in harness.run(count, change, count)] == [(1,)] * 3
    assert [unit.result for unit in harness.run(count)] == [(2,)]
    assert harness.connections == 1


async def test_error_of_ours_stays_with_its_unit(harness: Harness) -> None:
    """Others of the batch are answered."""

    def fail(_: Snapshot) -> None:
        raise Broken("an unreadable row")

    bad, good = harness.run(fail, count)
    assert isinstance(bad.error, Broken)
    assert good.result == (1,)


async def test_fault_fails_the_batch_and_the_next_one_reads_again(harness: Harness) -> None:
    """A connection that failed is not used again."""

    def fail(snapshot: Snapshot) -> Any:
        return snapshot.first("SELECT * FROM nothing")

    batch = harness.run(count, fail)
    assert all(isinstance(unit.error, Broken) for unit in batch)
    assert [unit.result for unit in harness.run(count)] == [(1,)]
    assert harness.connections == 2


async def test_store_that_is_gone_is_unreachable_until_it_is_back(harness: Harness) -> None:
    """Each batch tries to open it anew."""
    away = harness.path.with_suffix(".away")
    harness.path.rename(away)
    assert isinstance(harness.run(count)[0].error, Unreachable)
    away.rename(harness.path)
    assert harness.run(count)[0].result == (1,)


async def test_closing_twice_is_harmless(harness: Harness) -> None:
    """A reader that was never used closes as well."""
    harness.reader.close()
    harness.run(count)
    connection = harness.reader._connection
    assert connection is not None
    harness.reader.close()
    harness.reader.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
