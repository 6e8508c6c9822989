"""The one writer: group commit, each unit of work in a savepoint of its own.

What waits when a commit ends shares the next one, so durability costs one fsync for all of them.
A unit that fails is undone alone.  When the commit itself fails, all of it is undone and every
unit is told so: nothing is acknowledged that is not on the disk.  A batch in which nobody needs
durability commits without fsync; the next durable commit carries it to the disk as well, since
both stand in the one write-ahead log (docs/adr/0003-durable-commits.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event
from broker.storage.chaining import ChainEnd
from broker.storage.faults import fault_of, is_io_fault
from broker.storage.lanes import Unit
from broker.storage.transaction import Transaction

__all__ = ["Tally", "Writer", "events_of"]


@dataclass(slots=True)
class Tally:
    """What the writer has done since it was opened."""

    durable_commits: int = 0
    relaxed_commits: int = 0
    failed_commits: int = 0
    units: int = 0
    failed_units: int = 0


class Writer:
    """Runs batches of units on a connection of its own; lives on its lane's thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Prepare a writer over the connections that *connect* opens."""
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._is_full = True
        self._is_suspect = False
        self._chain = ChainEnd()
        self._left: Sequence[Event] = ()
        """Events that a failed commit was to take along."""
        self.find_riders: Callable[[], Sequence[Event]] = tuple
        """Gives out, once, the events that have no change of their own: the next commit takes them
        along, whatever it is for.  Called on the lane's thread."""
        self.tally = Tally()
        self.fault: str | None = None
        """Why the last batch, or a unit of it, could not be written; None when it could."""

    def run(self, batch: Sequence[Unit]) -> None:
        """Do every unit of *batch* in one commit; see `lanes.Runner`."""
        try:
            self._commit(batch)
        except (sqlite3.Error, Unreachable, Broken) as error:
            self._undo(batch, error)
        failures = [unit.error for unit in batch if isinstance(unit.error, Unreachable)]
        self.fault = failures[0].reason if failures else None
        self.tally.units += len(batch)
        self.tally.failed_units += sum(unit.error is not None for unit in batch)

    def close(self) -> None:
        """Close the connection; SQLite then folds its log into the database."""
        self._let_go()

    # ---------------------------------------------------------------------------- one batch

    def _commit(self, batch: Sequence[Unit]) -> None:
        connection = self._ready()
        is_durable = any(unit.is_durable for unit in batch)
        riders = self._left = (*self._left, *self.find_riders())
        transactions = self._attempt(connection, batch, riders, is_durable=is_durable)
        if not is_durable and any(one.is_durable for one in transactions):
            # A unit found that it must be durable, and SQLite takes that word only before a
            # transaction begins.
            connection.execute("ROLLBACK")
            self._chain = ChainEnd()
            is_durable = True
            transactions = self._attempt(connection, batch, riders, is_durable=is_durable)
        connection.execute("COMMIT")
        for unit, transaction in zip(batch, transactions, strict=True):
            unit.events = transaction.events if unit.error is None else []
        batch[0].events = [*riders, *batch[0].events]
        self._left = ()
        if is_durable:
            self.tally.durable_commits += 1
        else:
            self.tally.relaxed_commits += 1

    def _attempt(
        self,
        connection: sqlite3.Connection,
        batch: Sequence[Unit],
        riders: Sequence[Event],
        *,
        is_durable: bool,
    ) -> list[Transaction]:
        if is_durable != self._is_full:
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            self._is_full = is_durable
        chain = self._chain
        transactions = [
            Transaction(connection, is_durable=unit.is_durable, chain=chain) for unit in batch
        ]
        connection.execute("BEGIN IMMEDIATE")
        for event in riders:
            chain.append(connection, event)
        for unit, transaction in zip(batch, transactions, strict=True):
            connection.execute("SAVEPOINT unit")
            mark = chain.mark()
            unit.attempt(transaction)
            if unit.error is not None:
                self._undo_unit(connection, unit)
                chain.back_to(mark)
            connection.execute("RELEASE unit")
        return transactions

    def _undo_unit(self, connection: sqlite3.Connection, unit: Unit) -> None:
        error = unit.error
        if isinstance(error, sqlite3.Error):
            if not connection.in_transaction:
                # SQLite gave up the whole transaction, as it may when the disk is full.
                raise error
            self._is_suspect = self._is_suspect or is_io_fault(error)
            unit.fail(fault_of(error))
        connection.execute("ROLLBACK TO unit")

    # ------------------------------------------------------------------------------- faults

    def _undo(self, batch: Sequence[Unit], error: sqlite3.Error | Unreachable | Broken) -> None:
        """Fail all of *batch* and roll back."""
        # What became of the commit is read from the table before the next event.
        self._chain = ChainEnd()
        if isinstance(error, sqlite3.Error):
            self._is_suspect = self._is_suspect or is_io_fault(error)
            outcome: Exception = fault_of(error)
        else:
            outcome = error
        for unit in batch:
            unit.fail(outcome)
        self.tally.failed_commits += 1
        if self._connection is not None:
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # It cannot even roll back: closing it does, and the next batch opens another.
                # It is not closed for less.  Where it was the last one, SQLite reads its log
                # anew, and finds the commit whose fsync failed as if it had succeeded.
                self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # Out of our hands already: what was acknowledged is on the disk without it.
                return

    def _ready(self) -> sqlite3.Connection:
        """Return a connection that may be trusted with the next batch."""
        if self._connection is None:
            self._connection = self._connect()
            self._is_full = True
        if self._is_suspect:
            self._prove(self._connection)
            self._is_suspect = False
        return self._connection

    def _prove(self, connection: sqlite3.Connection) -> None:
        """Begin the log anew after the disk failed.

        A failed fsync may have lost pages of the log that look written, and a second fsync
        would not say so; whatever came after them in the log would be lost with them at a power
        cut.  So everything moves into the database file, and the log starts from nothing.
        """
        (row,) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if row[0]:
            raise Unreachable("store is recovering from a failed write")


def events_of(batch: Sequence[Unit]) -> list[Event]:
    """Return the events that *batch* has written, oldest first."""
    return [event for unit in batch for event in unit.events]
