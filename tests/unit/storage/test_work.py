"""Upstream work is found by an index; the behaviour is the contract suite's."""

from broker.issuance.records import WorkStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_work_is_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """By its id, its order, its URL or its account: never by reading all of it."""
    order, work = await given.has_claimed(store)
    await store.load_work(work.work_id)
    await store.work_of_order(order.order_id)
    await store.mark_sent(work.work_id, is_sent=True)
    url = "https://ca.example/order/1"
    await store.record_opened(work.work_id, url, given.event(), durable=False)
    await store.known_urls(work.upstream, work.community)
    await store.change_work(work.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.ACCEPTED)
    assert len(plans.steps) >= 10
    assert plans.scans() == set()


async def test_known_urls_come_from_the_index_alone(store: SqliteStore, plans: Plans) -> None:
    """The list grows with every order ever opened, so no row is read for it."""
    await store.known_urls("ca", "default")
    ((step, _),) = plans.steps
    assert step.startswith("SEARCH work USING COVERING INDEX work_by_upstream")
