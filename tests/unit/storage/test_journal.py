"""What is due and what is listed comes by an index; the behaviour is the contract suite's."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.events import EventKind
from broker.issuance.ports import Attached
from broker.issuance.records import JobKind
from broker.protocol.resources import OrderStatus
from broker.storage import journal
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_one_job_is_found_by_its_name(store: SqliteStore, plans: Plans) -> None:
    """With the note of its last attempt; one that does not wait is None."""
    job = given.job(JobKind.FULFIL)
    await given.has_order(store, attached=Attached(jobs=(job,)))
    await store.postpone_job(job, given.NOW, "no answer")
    assert await store.find_job(JobKind.FULFIL, job.subject) == replace(
        job, attempts=1, note="no answer"
    )
    assert await store.find_job(JobKind.REVOKE, job.subject) is None
    assert plans.scans() == set()


async def test_what_is_due_comes_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """Jobs, expired orders, ends of certificates and events are neither sought nor sorted."""
    await store.due_jobs(given.NOW, 9)
    await store.expired_orders(given.NOW, 9)
    await store.soonest_expiries(given.NOW)
    await store.read_events(after=3, limit=9, order_id=None)
    await store.read_events(after=3, limit=9, order_id="order")
    assert [step for step, _ in plans.steps] == [
        "SEARCH jobs USING INDEX jobs_by_time (due_at<?)",
        "SEARCH orders USING INDEX orders_to_expire (expires_at<?)",
        "SEARCH certificates USING COVERING INDEX certificates_live (not_after>?)",
        "SEARCH events USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH events USING INDEX events_by_order (order_id=? AND seq>?)",
    ]


async def test_what_a_later_version_has_begun_waits_for_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    """After a return to this one its jobs are left alone and its events are still read."""
    known = given.job(JobKind.FULFIL)
    event = given.event()
    await given.has_order(store, attached=Attached(jobs=(known,), events=(event,)))
    with closing(sqlite3.connect(tmp_path / "store.db")) as later, later:
        later.execute("INSERT INTO jobs SELECT 'polish', 'x', due_at, 0, NULL FROM jobs LIMIT 1")
        columns = [row[1] for row in later.execute("PRAGMA table_info(events)") if row[1] != "seq"]
        values = ", ".join("'order-polished'" if name == "kind" else name for name in columns)
        named = ", ".join(columns)
        later.execute(f"INSERT INTO events ({named}) SELECT {values} FROM events LIMIT 1")
    assert [job.kind for job in await store.due_jobs(given.NOW, 9)] == [JobKind.FULFIL]
    events = await store.read_events(after=0, limit=9, order_id=None)
    last = events[-1][1].kind
    assert last.value == "order-polished"
    assert last not in set(EventKind)
    assert {each.kind for _, each in events[:-1]} <= set(EventKind)


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "orders_by_time ((created_at,order_id)<(?,?))"),
        ({"status": OrderStatus.READY}, "orders_by_status (status=? AND created_at<?)"),
        ({"account_id": "account"}, "orders_by_account (account_id=? AND created_at<?)"),
    ],
    ids=["all", "status", "account"],
)
async def test_orders_are_listed_through_the_index_that_narrows_most(
    store: SqliteStore, plans: Plans, filters: dict[str, Any], index: str
) -> None:
    """A page reads about as many rows as it has, and sorts nothing."""
    every: dict[str, Any] = {"community": None, "account_id": None, "status": None}
    await store.list_orders(**every | filters, after=None, limit=9)
    assert plans.scans() == set()
    (step,) = [step for step, _ in plans.steps]
    assert index.partition(" ")[0] in step


async def test_counts_are_read_from_indexes_alone(store: SqliteStore, plans: Plans) -> None:
    """A scrape reads no row of an order."""
    await store.outcome_counts()
    scans = plans.scans()
    assert any("COVERING INDEX orders_by_status" in one for one in scans)
    assert all("orders" not in one or "COVERING INDEX" in one for one in scans)


def test_statements_name_words_that_exist() -> None:
    """The statuses that are written out in a statement are the protocol's."""
    assert all(
        f"'{one.value}'" in journal._EXPIRED for one in (OrderStatus.PENDING, OrderStatus.READY)
    )
