"""The sweep: it costs what is due, and each look decides anew."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryStage, NodeStatus
from broker.issuance.sweeping import BATCH
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.delivery_world import DeliveryWorld

DAY = timedelta(days=1)


async def test_nothing_is_read_of_what_is_not_due(hosts: DeliveryWorld) -> None:
    """With nothing due a sweep is one question to the store."""
    node = await hosts.node()
    await node.settled("www")
    before = hosts.traffic.started
    assert await hosts.sweep() == 0
    assert hosts.traffic.started == before + 1


async def test_one_sweep_takes_a_batch(hosts: DeliveryWorld) -> None:
    """The next takes the rest: no sweep grows with what has gathered."""
    node = await hosts.node()
    node.wanted = {f"c{n}": (f"c{n}.robots.example.com",) for n in range(BATCH + 40)}
    await node.state()
    begun = len(await hosts.store.open_deliveries_of(node.record.node_id))
    assert begun == 32
    assert await hosts.sweep() == BATCH
    assert await hosts.sweep() == 8
    assert await hosts.sweep() == 0
    assert len(await hosts.store.open_deliveries_of(node.record.node_id)) == BATCH + 40


async def test_window_that_moved_later_is_waited_for(hosts: DeliveryWorld) -> None:
    """A look that comes too soon plans the next one and begins nothing."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    await hosts.store.keep_managed([replace(managed, next_at=hosts.clock.now())], [])
    assert await hosts.sweep() == 1
    assert await node.managed() == managed


@pytest.mark.parametrize("status", [NodeStatus.DRAINED, NodeStatus.REVOKED])
async def test_node_that_is_not_served_is_not_asked(
    hosts: DeliveryWorld, status: NodeStatus
) -> None:
    """A drained one is looked at again, a revoked one never."""
    node = await hosts.node()
    await node.settled("www")
    await hosts.store.change_node(
        replace(node.record, status=status), expected=(NodeStatus.ACTIVE,), events=()
    )
    await hosts.let_pass(70 * DAY)
    assert await hosts.sweep() == 1
    managed = await node.managed()
    assert (managed.next_at is not None) is (status is NodeStatus.DRAINED)
    assert len(await node.deliveries()) == 1


async def test_what_is_under_way_is_left_alone(hosts: DeliveryWorld) -> None:
    """Its end plans the next look."""
    node = await hosts.node()
    await node.wants("www")
    managed = await node.managed()
    await hosts.store.keep_managed([replace(managed, next_at=hosts.clock.now())], [])
    await hosts.sweep()
    assert (await node.managed()).next_at is None
    assert len(await node.deliveries()) == 1


async def test_refusal_is_told_once_and_tried_in_growing_pauses(hosts: DeliveryWorld) -> None:
    """The words are the same, so neither the node nor the log hears of it each time."""
    node = await hosts.node()
    await node.wants("www", "www.other.example.org")
    for _ in range(10):
        await hosts.let_pass(timedelta(minutes=30))
        await hosts.sweep()
    assert await hosts.count(EventKind.MANAGED_REFUSED) == 1
    assert [message.kind for message in await node.read()] == ["refused"]
    managed = await node.managed()
    assert 5 <= managed.attempts <= 10
    assert await hosts.count(EventKind.RENEWAL_LATE) == 1


async def test_limit_is_waited_for_and_no_failure(hosts: DeliveryWorld) -> None:
    """As long as it was named."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    problem = Problem(ProblemType.RATE_LIMITED, "later", retry_after=timedelta(minutes=9))
    await hosts.deliveries.sweep.refused(managed, node.record, problem)
    after = await node.managed()
    assert after.next_at == hosts.clock.now() + timedelta(minutes=9)
    assert after.attempts == 0


async def test_look_that_cannot_be_taken_is_put_off(
    hosts: DeliveryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hinders none of the others, and comes again in a minute."""
    node = await hosts.node()
    node.wanted = {name: (f"{name}.robots.example.com",) for name in ("a", "b")}
    begin = hosts.deliveries.asking.begin
    broken: list[str] = []

    async def sometimes(managed_id: str, *, reason: str) -> str:
        if not broken:
            broken.append(managed_id)
            raise Unreachable("disk is full")
        return await begin(managed_id, reason=reason)

    monkeypatch.setattr(hosts.deliveries.asking, "begin", sometimes)
    await node.state()
    assert len(await hosts.store.open_deliveries_of(node.record.node_id)) == 1
    await hosts.let_pass(timedelta(minutes=1))
    await hosts.sweep()
    await node.work()
    assert {await node.stage(name) for name in ("a", "b")} == {DeliveryStage.SEEN}


async def test_certificate_that_nothing_would_look_at_is_found_again(hosts: DeliveryWorld) -> None:
    """Whatever lost its time: the next catching up gives it one, and it is renewed in its time."""
    node = await hosts.node()
    await node.settled("www")
    before = await node.managed()
    await hosts.store.keep_managed([replace(before, next_at=None)], [])
    assert await hosts.deliveries.sweep.catch_up() == 1
    await hosts.sweep()
    assert await node.managed() == before
    assert await hosts.deliveries.sweep.catch_up() == 0


async def test_look_that_crosses_a_change_leaves_it(
    hosts: DeliveryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has changed the certificate has planned its next look."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    due = replace(managed, next_at=hosts.clock.now())
    await hosts.store.keep_managed([due], [])
    sooner = hosts.clock.now() + timedelta(hours=1)
    find = hosts.deliveries.sweep._store.find_node

    async def cross(reference: str) -> Any:
        await hosts.store.keep_managed([replace(due, next_at=sooner, fault="news")], [])
        return await find(reference)

    monkeypatch.setattr(hosts.deliveries.sweep._store, "find_node", cross, raising=False)
    await hosts.sweep()
    after = await node.managed()
    assert (after.next_at, after.fault) == (sooner, "news")
