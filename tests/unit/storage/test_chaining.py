"""The end of the chain, and where it begins."""

import sqlite3
from pathlib import Path

import pytest

from broker.audit.verification import ChainReading
from broker.issuance.audit_chain import GENESIS
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import EventKind
from broker.storage.chaining import ChainEnd, begin_chain
from broker.storage.sqlite import SqliteStore
from broker.storage.transaction import Transaction
from tests.contract.storage import given


def rows(connection: sqlite3.Connection) -> list[tuple[int, str, bytes | None]]:
    """Return number, kind and digest of every event."""
    return connection.execute("SELECT seq, kind, digest FROM events ORDER BY seq").fetchall()


def test_records_are_numbered_without_a_gap(connection: sqlite3.Connection) -> None:
    """And each has a digest of its own."""
    transaction = Transaction(connection, is_durable=False)
    transaction.record([given.event(data={"n": n}) for n in range(3)])
    assert [seq for seq, _, _ in rows(connection)] == [1, 2, 3]
    assert len({digest for _, _, digest in rows(connection)}) == 3


def test_end_goes_back_with_what_is_undone(connection: sqlite3.Connection) -> None:
    """The next record takes the number of the one that was rolled back."""
    chain = ChainEnd()
    chain.append(connection, given.event())
    mark = chain.mark()
    connection.execute("SAVEPOINT unit")
    chain.append(connection, given.event())
    connection.execute("ROLLBACK TO unit")
    chain.back_to(mark)
    chain.append(connection, given.event())
    assert [seq for seq, _, _ in rows(connection)] == [1, 2]


def test_empty_store_has_nothing_to_say(connection: sqlite3.Connection) -> None:
    """Its chain begins with its first event."""
    begin_chain(connection)
    assert rows(connection) == []


def test_chain_begins_after_earlier_events(connection: sqlite3.Connection) -> None:
    """The first record says from where on it holds, and what stood before; it is written once."""
    for n in range(2):
        connection.execute(
            "INSERT INTO events (kind, at, actor, data)"
            " VALUES ('order-created', ?, 'system', '{}')",
            (n,),
        )
    begin_chain(connection)
    begin_chain(connection)
    _, _, (seq, kind, digest) = rows(connection)
    assert (seq, kind) == (3, EventKind.AUDIT_CHAIN_BEGUN)
    assert digest is not None
    (data,) = connection.execute("SELECT data FROM events WHERE seq = 3").fetchone()
    assert '"earlier_last":2,"earlier_records":2' in data


async def read(store: SqliteStore) -> ChainReading:
    """Return the whole chain as it is read."""
    reading = ChainReading()
    for record in await store.audit_records(after=0, limit=1000):
        reading.read(record)
    return reading


async def test_failed_unit_leaves_no_gap(tmp_path: Path) -> None:
    """What shares a commit with it is chained as if it had never been."""
    store = await SqliteStore.open(tmp_path / "s.db")

    def fail(transaction: Transaction) -> None:
        transaction.record([given.event()])
        raise Conflict("lost")

    await store.append(given.event(), durable=True)
    with pytest.raises(Conflict):
        await store._database.write(fail)
    await store.append(given.event(), durable=False)
    reading = await read(store)
    await store.close()
    assert (reading.records, reading.findings) == (2, [])


async def test_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    """The end is read from the table."""
    for _ in range(3):
        store = await SqliteStore.open(tmp_path / "s.db")
        await store.append(given.event(), durable=True)
        reading = await read(store)
        await store.close()
    assert (reading.records, reading.findings) == (3, [])
    assert reading.digest_at(1) not in (None, GENESIS)


async def test_riders_share_the_commit_of_others(tmp_path: Path) -> None:
    """An event without a change of its own costs no commit, stands before what took it along, and
    is told of."""
    store = await SqliteStore.open(tmp_path / "s.db")
    waiting = [given.event(EventKind.SIGNATURES_MADE)]
    store.take_along(lambda: [waiting.pop()] if waiting else [])
    told: list[str] = []
    store.on_committed = lambda events: told.extend(str(one.kind) for one in events)
    before = store.stats()
    await store.append(given.event(EventKind.ORDER_CREATED), durable=True)
    after = store.stats()
    kinds = [one.kind for one in await store.audit_records(after=0, limit=10)]
    await store.close()
    assert kinds == ["signatures-made", "order-created"] == told
    assert after.durable_commits + after.relaxed_commits == (
        before.durable_commits + before.relaxed_commits + 1
    )


async def test_riders_of_a_failed_commit_are_taken_along_by_the_next(tmp_path: Path) -> None:
    """They are given out once, so the writer keeps them until they are on the disk."""
    store = await SqliteStore.open(tmp_path / "s.db")
    waiting = [given.event(EventKind.SIGNATURES_MADE)]
    store.take_along(lambda: [waiting.pop()] if waiting else [])

    def spoil(transaction: Transaction) -> None:
        transaction.change("ROLLBACK")  # as SQLite does by itself when the disk is full

    with pytest.raises((Unreachable, Broken)):
        await store._database.write(spoil)
    await store.append(given.event(EventKind.ORDER_CREATED), durable=True)
    reading = await read(store)
    kinds = [one.kind for one in await store.audit_records(after=0, limit=10)]
    await store.close()
    assert (kinds, reading.findings) == (["signatures-made", "order-created"], [])
