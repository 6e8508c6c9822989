"""Commands about backups, restored stores and orders that wait."""

import pytest

from broker.issuance.events import EventKind
from broker.web.operator import OperationError
from tests.unit.operations.conftest import ANNA, Office


async def test_backup_leaves_an_event(office: Office) -> None:
    """With who made it."""
    await office.desk.backup_made(
        actor=ANNA, backup_id="b1", made_at="2026-03-01T12:00:00Z", size=7
    )
    (event,) = await office.world.events(EventKind.BACKUP_MADE)
    assert event.actor == ANNA
    assert event.data == {"backup_id": "b1", "made_at": "2026-03-01T12:00:00Z", "bytes": 7}


async def test_broker_that_was_not_restored_has_nothing_to_reconcile(office: Office) -> None:
    """It says so."""
    with pytest.raises(OperationError, match="was not restored"):
        await office.desk.reconcile(actor=ANNA)


async def test_order_that_waits_is_hurried(office: Office) -> None:
    """Its job is due now, and the event names what it had waited for."""
    world = office.world
    client = await world.client()
    order = await client.ready("www.example.com")
    world.upstreams["ca"].is_away = True
    order = await client.finalize(order)
    shown = await office.desk.order_show(order_id=order.order_id)
    assert shown["waiting"] is not None
    told = await office.desk.order_retry(actor=ANNA, order_id=order.order_id)
    assert told["job"] == "fulfil"
    (event,) = await world.events(EventKind.ORDER_HURRIED)
    assert (event.actor, event.order_id) == (ANNA, order.order_id)
    due = await world.store.due_jobs(world.clock.now(), 10)
    assert [job.subject for job in due if job.kind == "fulfil"] == [order.order_id]


async def test_order_that_waits_for_nothing_is_told_as_it_is(office: Office) -> None:
    """And so is one that there is not."""
    order = await (await office.world.client()).issue("www.example.com")
    with pytest.raises(OperationError, match="waits for nothing, it is valid"):
        await office.desk.order_retry(actor=ANNA, order_id=order.order_id)
    with pytest.raises(OperationError, match="there is no order"):
        await office.desk.order_retry(actor=ANNA, order_id="none")
