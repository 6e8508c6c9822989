"""Orders whose CA was not asked yet when their approval was taken back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_ports import ApprovalRecord
from broker.issuance.errors import Unreachable
from broker.issuance.records import OrderRecord
from broker.protocol.resources import OrderStatus
from tests.fakes.approving import ANNA, BEN, filed, people_policy, say
from tests.fakes.world import World

HOST = "www.people.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people."""
    async with World(tmp_path) as made:
        made.policies.set(people_policy())
        yield made


async def under_way(world: World) -> tuple[ApprovalRecord, OrderRecord]:
    """Return an approval, and an order under it whose CA is away."""
    client = await world.client()
    request = await filed(client, HOST)
    approved = await say(world, request, "approve", ANNA)
    away = Unreachable("no answer", left_nothing=True)
    world.ca.fail("open_order", away, times=1000)
    order = await client.ready(HOST)
    made = await client.finalize(order)
    assert made.status is OrderStatus.PROCESSING
    return approved, made


async def test_order_that_was_not_sent_ends_with_its_approval(world: World) -> None:
    """The CA is asked for nothing, and the order tells why."""
    approval, order = await under_way(world)
    await say(world, approval, "withdraw", BEN)
    world.ca.mend()
    ended = await world.finish(order)
    assert ended.status is OrderStatus.INVALID
    assert "the approval was withdrawn" in str((ended.error or {}).get("detail"))
    assert world.ca.count("finalize") == 0


async def test_order_waits_while_its_approval_is_suspended(world: World) -> None:
    """And goes on when it is resumed."""
    approval, order = await under_way(world)
    await say(world, approval, "suspend", BEN)
    world.ca.mend()
    await world.let_pass(timedelta(minutes=5))
    assert (await world.load(order)).status is OrderStatus.PROCESSING
    assert world.ca.count("finalize") == 0
    await say(world, approval, "resume", ANNA)
    assert (await world.finish(order)).status is OrderStatus.VALID


async def test_approval_that_is_withdrawn_while_the_ca_looks_is_heeded(world: World) -> None:
    """It may take minutes to be ready: it is not told to issue after that."""
    approval, order = await under_way(world)
    world.ca.mend()
    stall = world.ca.stall("authorize")
    passing = asyncio.create_task(world.let_pass(timedelta(minutes=5)))
    await stall.reached.wait()
    await say(world, approval, "withdraw", BEN)
    stall.release()
    await passing
    assert (await world.finish(order)).status is OrderStatus.INVALID
    assert world.ca.count("finalize") == 0


async def test_order_goes_on_though_its_approval_has_ended(world: World) -> None:
    """It stood when the order was finalized."""
    approval, order = await under_way(world)
    # So that the look that moves it by time finds it past its end.
    await world.let_pass(timedelta(hours=1))
    record = await world.store.find_approval(approval.approval_id)
    assert record is not None
    world.clock.advance(timedelta(days=31))
    await world.authority.sweep()
    world.ca.mend()
    assert (await world.finish(order)).status is OrderStatus.VALID


@pytest.mark.parametrize("is_taken_back", [True, False], ids=["withdrawn", "stands"])
async def test_finalize_that_did_not_come_is_sent_once_more_while_the_approval_stands(
    world: World, is_taken_back: bool
) -> None:
    """Taken back it is not; should it have come after all, what comes of it is fetched."""
    client = await world.client()
    approval = await say(world, await filed(client, HOST), "approve", ANNA)
    order = await client.ready(HOST)
    world.ca.fail("finalize", Unreachable("no answer"))
    stall = world.ca.stall("finalize")
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    if is_taken_back:
        await say(world, approval, "withdraw", BEN)
    stall.release()
    await finalizing
    await world.let_pass(timedelta(minutes=10))
    status = OrderStatus.PROCESSING if is_taken_back else OrderStatus.VALID
    assert (await world.load(order)).status is status
    told = (world.ca.count("finalize"), world.ca.accepted)
    assert told == ((1, 0) if is_taken_back else (2, 1))


async def test_exempt_renewal_that_was_not_sent_ends_with_what_it_goes_back_to(
    world: World,
) -> None:
    """Nobody had to approve it, and whoever takes the approval of its line back means it."""
    name = 'names: ["**.people.example.com"]'
    world.policies.set(people_policy(name, f"renewals: exempt\n    {name}"))
    client = await world.client()
    approval = await say(world, await filed(client, HOST), "approve", ANNA)
    await client.issue(HOST)
    world.ca.fail("open_order", Unreachable("no answer", left_nothing=True), times=1000)
    order = await client.finalize(await client.ready(HOST))
    assert order.status is OrderStatus.PROCESSING
    await say(world, approval, "withdraw", BEN)
    world.ca.mend()
    assert (await world.finish(order)).status is OrderStatus.INVALID
    assert world.ca.count("finalize") == 1
