"""An open store, and a look over the shoulder of SQLite's query planner."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.storage.migrate import load_migrations, migrate
from broker.storage.sqlite import SqliteStore
from broker.storage.transaction import Snapshot, Transaction
from tests.fakes.fresh_store import open_fresh


class Plans:
    """The plan of every statement that a store runs."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def look(self, connection: sqlite3.Connection, statement: str, values: Any) -> None:
        """Note how *statement* would be run with these parameters."""
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values):
            self.steps.append((step, statement))

    def scans(self) -> set[str]:
        """Return the steps that read a whole table or index."""
        return {step for step, _ in self.steps if step.startswith("SCAN") or "AUTOMATIC" in step}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    """Collects the plans from here on."""
    collected = Plans()
    for owner, name in ((Snapshot, "all"), (Snapshot, "first"), (Transaction, "change")):
        run = getattr(owner, name)

        def planned(self: Snapshot, statement: str, *values: object, run: Any = run) -> Any:
            collected.look(self._connection, statement, values)
            return run(self, statement, *values)

        monkeypatch.setattr(owner, name, planned)
    return collected


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open, empty store."""
    opened = await open_fresh(tmp_path / "store.db")
    yield opened
    await opened.close()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A connection to an empty store in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        migrate(made, load_migrations())
        made.execute("PRAGMA foreign_keys = ON")
        yield made
