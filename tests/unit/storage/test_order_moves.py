"""An order goes to another CA: in one transaction, and only while nothing was finalized."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.quota_ports import OrderMove
from broker.issuance.records import JobKind, OrderRecord, WorkRecord, WorkStatus
from broker.protocol.resources import OrderStatus
from tests.fakes.world import World

NAME = "www.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose CA does not answer."""
    async with World(tmp_path) as made:
        yield made


async def stuck(world: World) -> tuple[OrderRecord, WorkRecord]:
    """Return an order whose CA went away after it was opened there, with its work."""
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    world.ca.is_away = True
    order = await client.finalize(order)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    assert work.status is WorkStatus.OPENED
    return order, work


def move(order: OrderRecord, work: WorkRecord, **changes: object) -> OrderMove:
    """Return the move of *order* to another CA."""
    made = OrderMove(
        order=replace(order, upstream="next", cap_seconds=60, decision={"at": "now"}),
        left=work,
        work=replace(
            work,
            work_id="new",
            upstream="next",
            status=WorkStatus.INTENDED,
            order_url=None,
            account_url=None,
        ),
        taking=None,
        event=Event(kind=EventKind.ORDER_MOVED, at=order.created_at, order_id=order.order_id),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_order_and_its_work_are_elsewhere(world: World) -> None:
    """The old work is dead, and nothing of it is due any more."""
    order, work = await stuck(world)
    await world.store.move_order(move(order, work))
    moved = await world.load(order)
    assert (moved.upstream, moved.cap_seconds, moved.status) == (
        "next",
        60,
        OrderStatus.PROCESSING,
    )
    new = await world.store.work_of_order(order.order_id)
    old = await world.store.load_work(work.work_id)
    assert new is not None
    assert old is not None
    assert (new.work_id, old.status) == ("new", WorkStatus.DEAD)
    assert await world.store.find_job(JobKind.PREPARE, work.work_id) is None
    assert await world.count(EventKind.ORDER_MOVED) == 1


@pytest.mark.parametrize("status", [WorkStatus.FINALIZING, WorkStatus.ACCEPTED])
async def test_finalized_work_is_never_given_up(world: World, status: WorkStatus) -> None:
    """Whoever read it before it was finalized finds that out here; nothing has changed."""
    order, work = await stuck(world)
    await world.store.change_work(work.work_id, expected=(WorkStatus.OPENED,), status=status)
    for seen in (work, replace(work, status=status)):
        with pytest.raises(Conflict):
            await world.store.move_order(move(order, seen))
    assert (await world.load(order)).upstream == "ca"
    assert await world.store.load_work("new") is None
    assert await world.count(EventKind.ORDER_MOVED) == 0


async def test_order_that_has_ended_is_not_moved(world: World) -> None:
    """Its certificate may be out."""
    order, work = await stuck(world)
    world.ca.is_away = False
    await world.finish(order)
    with pytest.raises(Conflict):
        await world.store.move_order(move(order, work))


async def test_work_of_a_store_that_was_restored_stays(world: World) -> None:
    """It was finalized after the backup that this store came out of."""
    order, work = await stuck(world)
    await world.store._database.write(
        lambda transaction: transaction.change(
            "INSERT INTO recovered_work (work_id, fingerprint, spki_sha256) VALUES (?, ?, ?)",
            work.work_id,
            "f",
            "x",
        )
    )
    with pytest.raises(Conflict, match="restored"):
        await world.store.move_order(move(order, work))
    await world.let_pass(timedelta(seconds=1))
    assert (await world.load(order)).upstream == "ca"
