"""Orders that wait because somebody stopped something."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.dispatcher import Postponed
from broker.issuance.events import Actor
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.hold import FROZEN_PAUSE, SUSPENDED_PAUSE, Hold
from broker.issuance.records import OrderRecord, Suspension, WorkRecord, WorkStatus
from broker.storage.rows import SUSPENSIONS
from tests.fakes.world import World
from tests.unit.issuance.test_freezes import freeze

NAME = "www.example.com"
SENT = [WorkStatus.FINALIZING, WorkStatus.ACCEPTED]
NOT_SENT = [WorkStatus.INTENDED, WorkStatus.OPENED]


async def processing(world: World) -> tuple[OrderRecord, WorkRecord]:
    """Return an order whose CA is away, with its work there."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.is_away = True
    order = await client.finalize(order)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    return order, work


@pytest.mark.parametrize("status", NOT_SENT, ids=str)
@pytest.mark.parametrize("kind", [FreezeKind.ACCOUNT, FreezeKind.COMMUNITY], ids=str)
async def test_what_was_not_sent_waits_for_its_requester(
    world: World, kind: FreezeKind, status: WorkStatus
) -> None:
    """It looks again soon, and says what is frozen."""
    order, work = await processing(world)
    work = _as(work, status)
    hold = Hold(world.store, world.clock, world.freezes)
    await hold.of_requester(order, work)
    subject = order.account_id if kind is FreezeKind.ACCOUNT else "default"
    await freeze(world, kind, subject)
    with pytest.raises(Postponed, match=f"'{subject}' is frozen") as put_off:
        await hold.of_requester(order, work)
    assert put_off.value.due_at == world.clock.now() + FROZEN_PAUSE


@pytest.mark.parametrize("status", SENT, ids=str)
async def test_what_was_sent_goes_on(world: World, status: WorkStatus) -> None:
    """Its certificate has to be known."""
    order, work = await processing(world)
    hold = Hold(world.store, world.clock, world.freezes)
    await freeze(world, FreezeKind.COMMUNITY, "default")
    await freeze(world, FreezeKind.UPSTREAM, "ca")
    await hold.of_requester(order, _as(work, status))
    await hold.of_work(_as(work, status))


@pytest.mark.parametrize("status", [*NOT_SENT, WorkStatus.FINALIZING], ids=str)
@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (FreezeKind.ACCOUNT, None),
        (FreezeKind.COMMUNITY, "default"),
        (FreezeKind.UPSTREAM, "ca"),
    ],
    ids=["account", "community", "upstream"],
)
async def test_no_finalize_is_sent_under_a_freeze_be_it_once_more(
    world: World, kind: FreezeKind, subject: str | None, status: WorkStatus
) -> None:
    """What was sent and did not come is no leave to send it again; unfrozen it is sent."""
    order, work = await processing(world)
    hold = Hold(world.store, world.clock, world.freezes)
    await hold.of_finalize(order, _as(work, status))
    await freeze(world, kind, subject or order.account_id)
    with pytest.raises(Postponed, match="is frozen"):
        await hold.of_finalize(order, _as(work, status))


async def test_work_waits_for_its_upstream(world: World) -> None:
    """Frozen, or suspended for a breach; another upstream's work goes on."""
    order, work = await processing(world)
    hold = Hold(world.store, world.clock, world.freezes)
    place = await freeze(world, FreezeKind.UPSTREAM, "local")
    await hold.of_finalize(order, work)
    await world.freezes.unfreeze(place, Actor("operator:anna", "done"))
    await freeze(world, FreezeKind.UPSTREAM, "ca")
    with pytest.raises(Postponed, match="upstream 'ca' is frozen"):
        await hold.of_finalize(order, work)
    row = Suspension(
        upstream="ca",
        upstream_profile=work.upstream_profile,
        since=world.clock.now(),
        order_id=order.order_id,
        rule="cap",
    )
    await world.store._database.write(
        lambda transaction: transaction.change(SUSPENSIONS.insert, *SUSPENSIONS.values(row))
    )
    with pytest.raises(Postponed, match="is suspended: cap") as put_off:
        await Hold(world.store, world.clock, None).of_work(work)
    assert put_off.value.due_at - world.clock.now() == SUSPENDED_PAUSE
    assert timedelta(0) < FROZEN_PAUSE < SUSPENDED_PAUSE


def _as(work: WorkRecord, status: WorkStatus) -> WorkRecord:
    return replace(work, status=status)
