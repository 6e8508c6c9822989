"""What a unit of work sees of the database: a snapshot to read, a transaction to change.

Both are thin: a statement, its parameters, its rows.  They never commit; the writer and the
reader decide when a unit begins and ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from broker.issuance.events import Event
from broker.storage.chaining import ChainEnd

__all__ = ["Snapshot", "Transaction"]


class Snapshot:
    """One consistent view of the store."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return every row of *statement*."""
        return self._connection.execute(statement, parameters).fetchall()

    def first(self, statement: str, *parameters: object) -> tuple[Any, ...] | None:
        """Return the first row of *statement*, or None."""
        # All rows are fetched, so that no statement is left open over a commit.
        rows = self._connection.execute(statement, parameters).fetchall()
        return rows[0] if rows else None


class Transaction(Snapshot):
    """One unit of work, all of which happens or nothing."""

    __slots__ = ("_chain", "events", "is_durable")

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        is_durable: bool,
        chain: ChainEnd | None = None,
    ) -> None:
        """Work on *connection*; events go to the end of *chain*, by default as the table has it."""
        super().__init__(connection)
        self._chain = chain or ChainEnd()
        self.events: list[Event] = []
        self.is_durable = is_durable

    def change(self, statement: str, *parameters: object) -> int:
        """Run *statement* and return how many rows it changed."""
        return self._connection.execute(statement, parameters).rowcount

    def change_each(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run *statement* once for each row of parameters."""
        self._connection.executemany(statement, rows)

    def record(self, events: Iterable[Event]) -> None:
        """Append *events*, which become known to others once the unit is committed."""
        for event in events:
            self._chain.append(self._connection, event)
            self.events.append(event)

    def demand_durability(self) -> None:
        """Have this unit on the disk before it is acknowledged, whatever its caller said."""
        self.is_durable = True
