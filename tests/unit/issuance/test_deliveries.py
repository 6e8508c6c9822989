"""Deliveries from the wish to the server that serves the certificate, cut off anywhere."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.deliveries import NOT_SEEN_AFTER
from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.records import JobKind
from broker.issuance.renewal_ports import RenewalAnswer
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.renewal import RenewalInfo, RenewalWindow
from broker.protocol.resources import OrderStatus
from tests.fakes.delivery_world import DeliveryWorld, Node
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder

DAY = timedelta(days=1)


async def test_certificate_comes_from_the_wish_to_the_server(hosts: DeliveryWorld) -> None:
    """A node that states a certificate has it ordered, pushed and seen, each stage with a time."""
    node = await hosts.node()
    await node.wants("www")
    assert await node.stage() is DeliveryStage.ASKED
    await node.work()
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage.SEEN
    times = (
        delivery.begun_at, delivery.issued_at, delivery.pushed_at, delivery.checked_at,
        delivery.installed_at, delivery.reloaded_at, delivery.ended_at,
    )  # fmt: skip
    assert None not in times
    managed = await node.managed()
    assert managed.certificate_id == delivery.certificate_id
    assert managed.next_at is not None
    assert managed.next_at > hosts.clock.now()
    order = await hosts.store.load_order(delivery.order_id or "")
    assert order is not None
    assert order.status is OrderStatus.VALID
    assert order.account_id == node.record.account_id
    assert hosts.rollout.ends == [(delivery.delivery_id, "seen")]
    assert await hosts.jobs() == 0


async def test_csr_travels_byte_for_byte(hosts: DeliveryWorld) -> None:
    """What the node signed is what the CA is sent."""
    node = await hosts.node()
    node.profile = "server"
    await node.settled("www")
    (delivery,) = await node.deliveries()
    assert [order.csr_der for order in hosts.ca.issued] == [node.csrs[delivery.delivery_id]]


async def test_renewal_comes_in_its_window_and_replaces(hosts: DeliveryWorld) -> None:
    """When the window is there a sweep renews: another key, the one before named as replaced."""
    node = await hosts.node()
    await node.settled("www")
    first = (await node.deliveries())[0]
    before = node.leaf()
    managed = await node.managed()
    assert managed.next_at is not None
    await hosts.let_pass(managed.next_at - hosts.clock.now() - timedelta(seconds=1))
    assert await hosts.sweep() == 0
    await hosts.let_pass(timedelta(seconds=2))
    assert await hosts.sweep() == 1
    await node.work()
    second = (await node.deliveries())[0]
    assert (second.generation, second.stage, second.reason) == (2, DeliveryStage.SEEN, "due")
    assert second.replaces == first.certificate_id
    assert node.leaf().public_key() != before.public_key()
    order = await hosts.store.load_order(second.order_id or "")
    found = await hosts.store.find_certificate(first.certificate_id or "")
    assert order is not None
    assert found is not None
    assert order.replaces == found.cert_id


async def test_node_that_was_away_is_asked_when_it_is_back(hosts: DeliveryWorld) -> None:
    """The question waits for it, and is told to be late meanwhile, once."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    assert managed.next_at is not None
    await hosts.let_pass(managed.next_at - hosts.clock.now())
    await hosts.sweep()
    await hosts.let_pass(20 * DAY)
    await hosts.dispatcher.run_due()
    await hosts.settle()
    assert await node.stage() is DeliveryStage.ASKED
    assert await hosts.count(EventKind.RENEWAL_LATE) == 1
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert (await node.managed()).told_at is None


async def test_certificate_that_is_not_seen_is_told_once(hosts: DeliveryWorld) -> None:
    """A node that takes it and says no more is told of after the limit; seen later ends it."""
    node = await hosts.node()
    node.ends = "reloaded"
    await node.wants("www")
    await node.work()
    await hosts.let_pass(NOT_SEEN_AFTER - timedelta(seconds=1))
    assert await hosts.count(EventKind.DELIVERY_NOT_SEEN) == 0
    await hosts.let_pass(timedelta(hours=3))
    assert await hosts.count(EventKind.DELIVERY_NOT_SEEN) == 1
    assert (await node.deliveries())[0].told_at is not None
    node.ends = "seen"
    await node.answer(node.heard[-1])
    assert await node.stage() is DeliveryStage.SEEN


async def test_certificate_that_ended_on_the_way_is_ordered_anew(hosts: DeliveryWorld) -> None:
    """A node that was away for longer than it lives is brought another one."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    await node.answer(node.inbox.pop())
    assert await node.stage() is DeliveryStage.PUSHED
    await hosts.let_pass(91 * DAY)
    failed = (await node.deliveries())[-1]
    assert failed.stage is DeliveryStage.FAILED
    assert "ended on the way" in (failed.note or "")
    await hosts.sweep()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_window_that_moves_earlier_is_obeyed_at_once(hosts: DeliveryWorld) -> None:
    """What the CA says of renewal brings the look forward, never back."""
    node = await hosts.node()
    node.profile = "server"
    await node.settled("www")
    managed = await node.managed()
    soon = hosts.clock.now() + 2 * DAY
    early, late = RenewalWindow(soon, soon + DAY), RenewalWindow(soon + 60 * DAY, soon + 61 * DAY)

    def says(window: RenewalWindow) -> None:
        answer = RenewalAnswer(info=RenewalInfo(window=window), retry_at=None)
        hosts.ca.renewals = lambda _: answer

    says(late)
    await hosts.renewing.watch.refresh(managed.certificate_id or "")
    says(early)
    await hosts.renewing.watch.refresh(managed.certificate_id or "")
    await hosts.settle()
    moved = await node.managed()
    assert moved.next_at is not None
    assert early.start <= moved.next_at <= early.end


async def test_window_that_was_told_to_nobody_is_found_at_the_next_start(
    hosts: DeliveryWorld,
) -> None:
    """The process that asked the CA died before it moved the look."""
    node = await hosts.node()
    node.profile = "server"
    await node.settled("www")
    managed = await node.managed()
    soon = hosts.clock.now() + 2 * DAY
    window = RenewalWindow(soon, soon + DAY)
    hosts.store.on_committed = None
    answer = RenewalAnswer(info=RenewalInfo(window=window), retry_at=None)
    hosts.ca.renewals = lambda _: answer
    await hosts.renewing.watch.refresh(managed.certificate_id or "")
    await hosts.restart()
    assert (await node.managed()).next_at == managed.next_at
    await hosts.deliveries.take_turn()
    moved = (await node.managed()).next_at
    assert moved is not None
    assert moved <= window.end


async def test_revoked_certificate_is_renewed_with_a_new_key(hosts: DeliveryWorld) -> None:
    """Whatever policy says of keeping keys."""
    hosts.policies.change(
        "    upstreams: [{upstream: local}]",
        "    upstreams: [{upstream: local}]\n    on_nodes: {key: kept}",
    )
    node = await hosts.node()
    await node.settled("www")
    before = node.leaf()
    event = Event(
        kind=EventKind.CERTIFICATE_REVOKED,
        at=hosts.clock.now(),
        data={"certificate_id": (await node.managed()).certificate_id},
    )
    await hosts.store.mark_revoked(
        (await node.managed()).certificate_id or "", reason=1, at=hosts.clock.now(), event=event
    )
    await hosts.settle()
    assert await hosts.sweep() == 1
    await node.work()
    assert (await node.deliveries())[0].reason == "revoked"
    assert node.leaf().public_key() != before.public_key()


async def test_node_that_is_revoked_ends_all_that_was_on_its_way(hosts: DeliveryWorld) -> None:
    """Its deliveries are taken back, and it is never asked again."""
    node = await hosts.node()
    await node.wants("www")
    event = Event(
        kind=EventKind.NODE_REVOKED,
        at=hosts.clock.now(),
        data={"node_id": node.record.node_id, "node": node.record.name},
    )
    await hosts.store.append(event, durable=True)
    await hosts.settle()
    assert await node.stage() is DeliveryStage.WITHDRAWN
    assert (await node.managed()).next_at is None
    assert await hosts.count(EventKind.DELIVERY_WITHDRAWN) == 1


async def test_certificate_that_came_while_the_broker_was_down_is_delivered(
    hosts: DeliveryWorld,
) -> None:
    """The order's end is read, not only heard of."""
    node = await hosts.node()
    node.profile = "server"
    hosts.ca.holds_back = True
    await node.wants("www")
    await node.read()
    task = asyncio.ensure_future(node.answer(node.inbox.pop()))
    await hosts.settle()
    await task
    assert await node.stage() is DeliveryStage.ORDERED
    await hosts.stop()
    hosts.ca.issue_held()
    hosts.traffic.revive()
    await hosts.start()
    await hosts.let_pass(timedelta(minutes=2))
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_refusal_by_the_ca_ends_it_and_is_tried_again_after_pauses(
    hosts: DeliveryWorld,
) -> None:
    """No loop: at most six attempts in an hour, each end told."""
    hosts.ca.refuses_names = Problem(ProblemType.REJECTED_IDENTIFIER, "not this name")
    node = await hosts.node()
    node.profile = "server"
    await node.wants("www")
    await node.work()
    for _ in range(60):
        await hosts.let_pass(timedelta(minutes=1))
        await hosts.sweep()
        await node.work()
    attempts = await node.deliveries()
    assert 4 <= len(attempts) <= 7
    assert {one.stage for one in attempts[1:]} == {DeliveryStage.FAILED}
    assert await hosts.count(EventKind.DELIVERY_FAILED) >= 4
    assert (await node.managed()).fault is not None
    hosts.ca.refuses_names = None
    await hosts.let_pass(timedelta(hours=2))
    await hosts.sweep()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


# --------------------------------------------------------------------------- killed at any step


async def the_way(node: Node) -> None:
    """Go the whole way."""
    await node.wants("www")
    await node.work()


async def steps_of_the_way(folder: Path) -> list[str]:
    """Return every step of it, in order."""
    async with DeliveryWorld(folder) as world:
        node = await world.node()
        world.traffic.steps.clear()
        await the_way(node)
        return [one for one in world.traffic.steps if one.startswith("store.")]


WRITES = ("keep_managed", "begin_delivery", "change_delivery", "create_order", "claim_finalize",
          "close_order", "finish_job", "postpone_job", "queue_messages")  # fmt: skip


@pytest.mark.parametrize("side", list(Cut), ids=str)
@pytest.mark.parametrize("step", WRITES)
async def test_process_that_dies_at_a_step_leaves_what_the_next_one_ends(
    tmp_path: Path, step: str, side: Cut
) -> None:
    """Whatever was the last thing that it wrote: one certificate, seen, and no job left."""
    with memory_folder(tmp_path) as folder:
        (folder / "steps").mkdir()
        number = (await steps_of_the_way(folder / "steps")).count(f"store.{step}")
        for occurrence in range(1, number + 1):
            place = folder / f"{step}-{occurrence}"
            place.mkdir()
            await die_at(place, Cutting(f"store.{step}", occurrence, side))


async def die_at(folder: Path, cutting: Cutting) -> None:
    """Have a process die there, and the next one end what it began."""
    async with DeliveryWorld(folder) as world:
        node = await world.node()
        seen = world.traffic.seen(cutting.step)
        world.traffic.cutting = replace(cutting, occurrence=cutting.occurrence + seen)
        going = asyncio.ensure_future(the_way(node))
        cut = asyncio.ensure_future(world.traffic.is_cut.wait())
        await asyncio.wait({going, cut}, return_when=asyncio.FIRST_COMPLETED)
        for task in (going, cut):
            task.cancel()
        await asyncio.gather(going, cut, return_exceptions=True)
        await world.restart()
        await node.state()
        await node.work()
        await world.let_pass(timedelta(minutes=2))
        await world.sweep()
        await node.work()
        await world.let_pass(timedelta(minutes=2))
        assert await node.stage() is DeliveryStage.SEEN, str(cutting)
        assert len(await world.certificates()) == 1, str(cutting)
        assert await world.jobs(JobKind.DELIVER) == 0, str(cutting)
        assert (world.rollout.ends[-1][1]) == "seen", str(cutting)
