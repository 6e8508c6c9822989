"""A reader: a read-only connection whose batches each see one snapshot.

A batch begins after all its units were asked for, so each sees every commit that was
acknowledged before it was asked.  Readers never wait for the writer, nor it for them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from broker.storage.faults import fault_of
from broker.storage.lanes import Unit
from broker.storage.transaction import Snapshot

__all__ = ["Reader"]


class Reader:
    """Runs batches of reads on a connection of its own; lives on its lane's thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Prepare a reader over the connections that *connect* opens."""
        self._connect = connect
        self._connection: sqlite3.Connection | None = None

    def run(self, batch: Sequence[Unit]) -> None:
        """Answer every unit of *batch* from one snapshot; see `lanes.Runner`."""
        try:
            self._answer(batch)
        except sqlite3.Error as error:
            self._let_go()
            for unit in batch:
                unit.fail(fault_of(error))

    def close(self) -> None:
        """Close the connection."""
        self._let_go()

    def _answer(self, batch: Sequence[Unit]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.execute("BEGIN")
        snapshot = Snapshot(connection)
        for unit in batch:
            unit.attempt(snapshot)
            if isinstance(unit.error, sqlite3.Error):
                raise unit.error
        connection.execute("COMMIT")

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # A read has nothing to lose; the next batch opens another.
                return
