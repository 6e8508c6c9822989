"""Every step of an order goes by an index; the behaviour is the contract suite's."""

from dataclasses import replace

from broker.issuance.ports import Attached
from broker.issuance.records import JobKind, WorkStatus
from broker.protocol.resources import AuthorizationStatus, OrderStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_order_goes_its_way_by_indexes(store: SqliteStore, plans: Plans) -> None:
    """From newOrder to the certificate no statement reads other orders."""
    (part,) = await given.has_authorizations(store, 1)
    await store.load_order(part.order_id)
    await store.load_authorization(part.authorization_id)
    attached = Attached(work=given.work(), jobs=(given.job(),))
    await store.change_challenge(given.validated(part, attached_when_ready=attached), durable=False)
    order = await store.load_order(part.order_id)
    assert order is not None
    claimed, work = await store.claim_finalize(given.claim(order))
    await store.close_order(
        given.closing(
            claimed,
            suspension=given.suspension(claimed),
            work_id=work.work_id,
            work_status=WorkStatus.SPENT,
            attached=Attached(done=((JobKind.FULFIL, order.order_id),)),
        )
    )
    assert len(plans.steps) >= 20
    assert plans.scans() == set()


async def test_deactivation_goes_by_indexes(store: SqliteStore, plans: Plans) -> None:
    """An authorization ends without a look at others."""
    (part,) = await given.has_authorizations(store, 1)
    await store.change_authorization(
        part.authorization_id,
        expected=part.status,
        status=AuthorizationStatus.DEACTIVATED,
        order_expected=(OrderStatus.PENDING,),
        order_status=OrderStatus.INVALID,
        order_error=None,
        events=(),
    )
    assert plans.scans() == set()


async def test_free_work_is_found_through_its_partial_index(
    store: SqliteStore, plans: Plans
) -> None:
    """The words in the index and in the query agree, so that only free work is looked through."""
    order = await given.has_order(store, status=OrderStatus.READY)
    await store.claim_finalize(given.claim(replace(order)))
    steps = [step for step, statement in plans.steps if "work_key = ?" in statement]
    assert len(steps) >= 1
    assert all("work_free" in step for step in steps if step.startswith("SEARCH work "))
