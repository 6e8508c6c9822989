"""The end of the audit chain, as the writer has it in hand, and where the chain begins.

Every event gets the next number and a digest over itself and its predecessor's, in the transaction
that writes it (docs/adr/0031).  The end is read from the table once and then kept: the store's lock
sees to it that nobody else adds to it.  What is rolled back takes the end back with it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Final

from broker.issuance.audit_chain import (
    GENESIS,
    EventColumns,
    digest_of,
    earlier_text,
    record_text,
)
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.storage.rows import EVENT_INSERT, event_values, moment_of

__all__ = ["ChainEnd", "begin_chain"]

_LAST: Final = "SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1"
_EARLIER: Final = (
    "SELECT seq, kind, at, actor, reason, community, account_id, order_id, upstream, data"
    " FROM events ORDER BY seq"
)

_NOW: Final = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
"""The time in microseconds since 1970, by SQLite's own look at the clock: this is done once in the
life of a store, while it is opened, and nobody there has a clock to hand."""

Mark = tuple[int, bytes] | None
"""A place in the chain: number and digest of its last record."""


class ChainEnd:
    """Number and digest of the last record; read when it is first needed."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: Mark = None

    def mark(self) -> Mark:
        """Return the place that `back_to` returns to."""
        return self._at

    def back_to(self, mark: Mark) -> None:
        """Forget what was added since *mark* was taken."""
        self._at = mark

    def append(self, connection: sqlite3.Connection, event: Event) -> None:
        """Insert *event* as the next record."""
        if self._at is None:
            self._at = _last(connection)
        last, previous = self._at
        seq, columns = last + 1, event_values(event)
        digest = digest_of(record_text(seq, columns, previous))
        connection.execute(EVENT_INSERT, (seq, *columns, digest))
        self._at = seq, digest


def begin_chain(connection: sqlite3.Connection) -> None:
    """Have the chain begin in a store that holds events from before there was one.

    The first record tells how many they are, and their digest: who changes one of them later
    contradicts it.  What was changed before nobody can tell.
    """
    try:
        row = connection.execute(_LAST).fetchone()
    except sqlite3.DatabaseError:
        return  # a damaged page: whoever reads or adds an event is told, the rest is served
    if row is None or row[1] is not None:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        event = _first_record(connection, last=row[0])
        ChainEnd().append(connection, event)
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _first_record(connection: sqlite3.Connection, *, last: int) -> Event:
    (now,) = connection.execute(_NOW).fetchone()
    count, digest = 0, hashlib.sha256()
    for seq, *columns in connection.execute(_EARLIER):
        values: EventColumns = tuple(columns)
        digest.update(earlier_text(seq, values))
        count += 1
    return Event(
        kind=EventKind.AUDIT_CHAIN_BEGUN,
        at=moment_of(now),
        actor=SYSTEM,
        data={
            "earlier_records": count,
            "earlier_last": last,
            "earlier_sha256": digest.hexdigest(),
        },
    )


def _last(connection: sqlite3.Connection) -> tuple[int, bytes]:
    # All rows are fetched, so that no statement is left open over a commit.
    rows = connection.execute(_LAST).fetchall()
    if not rows:
        return 0, GENESIS
    seq, digest = rows[0]
    return seq, digest if digest is not None else GENESIS
