"""Where a page of a newest-first list begins."""

import sqlite3

from broker.storage.part import PAGE_END, page_start
from broker.storage.transaction import Snapshot

LOOK_UP = "SELECT seq, kind FROM events WHERE kind = ?"


def test_first_page_begins_past_everything(connection: sqlite3.Connection) -> None:
    """Later than any time that fits a column."""
    assert page_start(Snapshot(connection), LOOK_UP, None) == PAGE_END
    assert PAGE_END > (2**63 - 2, "zzz")


def test_page_begins_where_the_last_one_ended(connection: sqlite3.Connection) -> None:
    """At the row that is named, or nowhere when there is none."""
    connection.execute("INSERT INTO events (seq, kind, at, actor, data) VALUES (7, 'k', 1, '', '')")
    assert page_start(Snapshot(connection), LOOK_UP, "k") == (7, "k")
    assert page_start(Snapshot(connection), LOOK_UP, "other") is None
