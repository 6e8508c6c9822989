"""Snapshots read, transactions change and keep count of events."""

import sqlite3

import pytest

from broker.storage.transaction import Snapshot, Transaction
from tests.contract.storage import given


def test_snapshot_returns_rows(connection: sqlite3.Connection) -> None:
    """All of them, the first, or none."""
    snapshot = Snapshot(connection)
    assert snapshot.all("SELECT 1 UNION SELECT ?", 2) == [(1,), (2,)]
    assert snapshot.first("SELECT 1 UNION SELECT ?", 2) == (1,)
    assert snapshot.first("SELECT 1 WHERE ?", 0) is None


def test_snapshot_cannot_change(connection: sqlite3.Connection) -> None:
    """There is no way to write through it by mistake."""
    assert not hasattr(Snapshot(connection), "change")


def test_change_says_how_many_rows(connection: sqlite3.Connection) -> None:
    """Compare-and-set rests on this number."""
    transaction = Transaction(connection, is_durable=False)
    transaction.change_each("INSERT INTO jobs VALUES ('k', ?, 0, 0, NULL)", [("a",), ("b",)])
    assert transaction.change("UPDATE jobs SET attempts = 1") == 2
    assert transaction.change("DELETE FROM jobs WHERE subject = ?", "c") == 0


def test_events_are_written_and_remembered(connection: sqlite3.Connection) -> None:
    """What is in the table is what will be told, in that order."""
    transaction = Transaction(connection, is_durable=False)
    events = [given.event(data={"n": n}) for n in range(3)]
    transaction.record(events)
    assert transaction.events == events
    assert transaction.first("SELECT count(*) FROM events") == (3,)


def test_unit_can_demand_durability(connection: sqlite3.Connection) -> None:
    """And cannot waive it."""
    transaction = Transaction(connection, is_durable=False)
    transaction.demand_durability()
    assert transaction.is_durable


def test_event_that_cannot_be_written_is_not_remembered(connection: sqlite3.Connection) -> None:
    """Nobody is told of what is not in the table."""
    transaction = Transaction(connection, is_durable=False)
    with pytest.raises(TypeError):
        transaction.record([given.event(data={"n": object()})])
    assert transaction.events == []
