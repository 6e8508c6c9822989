"""Events, lists of orders and figures."""

from typing import Any

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.ports import Attached, Store
from broker.issuance.records import JobKind, OrderRecord, WorkStatus
from broker.protocol.resources import OrderStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def test_events_are_read_in_the_order_they_were_written(store: Store) -> None:
    """Numbers rise; *after* and the limit page through."""
    made = [given.event(data={"n": n}, actor=Actor(f"operator:{n}")) for n in range(5)]
    for n, one in enumerate(made):
        await store.append(one, durable=bool(n % 2))
    found = await store.read_events(after=0, limit=10, order_id=None)
    assert [one for _, one in found] == made
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    assert await store.read_events(after=numbers[1], limit=2, order_id=None) == found[2:4]
    assert await store.read_events(after=numbers[-1], limit=2, order_id=None) == []


async def test_events_of_one_order_are_read_alone(store: Store) -> None:
    """Those of other orders, and of none, are left out."""
    mine = given.event(EventKind.ORDER_READY, order_id="mine")
    for one in (given.event(), mine, given.event(order_id="other")):
        await store.append(one, durable=True)
    assert [one for _, one in await store.read_events(after=0, limit=9, order_id="mine")] == [mine]


async def test_orders_are_listed_newest_first_in_pages(store: Store) -> None:
    """Page by page without a gap, also where two orders are of the same moment."""
    made = [await given.has_order(store, created_at=NOW + (n // 2) * HOUR) for n in range(5)]
    expected = sorted(made, key=lambda one: (one.created_at, one.order_id), reverse=True)
    seen: list[OrderRecord] = []
    while page := await store.list_orders(
        community=None,
        account_id=None,
        status=None,
        after=seen[-1].order_id if seen else None,
        limit=2,
    ):
        seen += page
    assert seen == expected


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param({}, id="all"),
        pytest.param({"community": "mine"}, id="community"),
        pytest.param({"status": OrderStatus.READY}, id="status"),
        pytest.param({"account_id": "me"}, id="account"),
        pytest.param({"account_id": "me", "status": OrderStatus.PENDING}, id="account and status"),
        pytest.param({"community": "mine", "status": OrderStatus.READY}, id="community and status"),
        pytest.param({"community": "none", "account_id": "me"}, id="nothing"),
    ],
)
async def test_order_filters_narrow_the_list(store: Store, filters: dict[str, Any]) -> None:
    """Every filter that is given holds, and only those."""
    me = await given.has_account(store, account_id="me", community="mine")
    you = await given.has_account(store)
    made = []
    for n, (owner, status) in enumerate(
        (owner, status)
        for owner in (me, you)
        for status in (OrderStatus.PENDING, OrderStatus.READY)
    ):
        made.append(given.order(owner, status=status, created_at=NOW - n * HOUR))
        await store.create_order(made[-1], (), Attached())
    unfiltered: dict[str, Any] = {"community": None, "account_id": None, "status": None}
    expected = [
        one
        for one in made
        if all(getattr(one, member) == value for member, value in filters.items())
    ]
    found = await store.list_orders(**unfiltered | filters, after=None, limit=10)
    assert found == expected
    if len(expected) > 1:
        page = await store.list_orders(**unfiltered | filters, after=expected[0].order_id, limit=1)
        assert page == expected[1:2]


async def test_page_after_an_unknown_order_is_empty(store: Store) -> None:
    """There is no place to go on from."""
    await given.has_order(store)
    page = await store.list_orders(
        community=None, account_id=None, status=None, after="nothing", limit=10
    )
    assert page == []


async def test_expired_orders_are_pending_or_ready(store: Store) -> None:
    """The longest past comes first; what is processing or not due is left out."""
    times = {"first": -2, "second": 0, "not-due": 1, "processing": -3}
    for order_id, hours in times.items():
        await given.has_order(
            store,
            order_id=order_id,
            expires_at=NOW + hours * HOUR,
            status={"second": OrderStatus.READY, "processing": OrderStatus.PROCESSING}.get(
                order_id, OrderStatus.PENDING
            ),
        )
    assert [one.order_id for one in await store.expired_orders(NOW, 10)] == ["first", "second"]
    assert [one.order_id for one in await store.expired_orders(NOW, 1)] == ["first"]


async def test_counts_name_every_status_and_kind(store: Store) -> None:
    """A gauge is there from the start, at 0."""
    empty = await store.outcome_counts()
    expected = {f"orders_{one}" for one in OrderStatus}
    expected |= {f"work_{one}" for one in WorkStatus} | {f"jobs_{one}" for one in JobKind}
    assert empty == dict.fromkeys(expected, 0)
    for _ in range(2):
        await given.has_order(store, status=OrderStatus.READY)
    order, _ = await given.has_claimed(store, attached=Attached(jobs=(given.job(JobKind.FULFIL),)))
    assert order.status is OrderStatus.PROCESSING
    assert await store.outcome_counts() == empty | {
        "orders_ready": 2,
        "orders_processing": 1,
        "work_intended": 1,
        "jobs_fulfil": 1,
    }
