"""How a delivery ends, and what that means for its certificate."""

from dataclasses import replace
from datetime import timedelta

from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.renewal_ports import RetirementStatus
from tests.fakes.delivery_world import DeliveryWorld

DAY = timedelta(days=1)


async def test_seen_clears_what_was_wrong(hosts: DeliveryWorld) -> None:
    """Attempts, the fault and that it was told."""
    node = await hosts.node()
    node.ends = "failed"
    await node.wants("www")
    await node.work()
    managed = await node.managed()
    assert (managed.attempts, managed.fault) == (1, "failed by the node")
    node.ends = "seen"
    await hosts.let_pass(timedelta(minutes=2))
    await hosts.sweep()
    await node.work()
    managed = await node.managed()
    assert (managed.attempts, managed.fault, managed.due_since) == (0, None, None)


async def test_seen_tells_how_long_it_took(hosts: DeliveryWorld) -> None:
    """From issued to seen, for the histogram."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    await node.answer(node.inbox.pop())
    await hosts.let_pass(timedelta(seconds=90))
    await node.work()
    (event,) = await hosts.events(EventKind.DELIVERY_SEEN)
    assert event.data["seconds"] == 90.0


async def test_lateness_is_told_once_over_many_failures(hosts: DeliveryWorld) -> None:
    """When a third of what was left has gone, and not for each attempt."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    assert managed.next_at is not None
    await hosts.let_pass(managed.next_at - hosts.clock.now())
    node.ends = "restored"
    for _ in range(60):
        await hosts.sweep()
        await node.work()
        await hosts.let_pass(timedelta(hours=6))
    assert await hosts.count(EventKind.DELIVERY_FAILED) > 20
    (late,) = await hosts.events(EventKind.RENEWAL_LATE)
    left = (managed.not_after or late.at) - managed.next_at
    assert managed.next_at + left / 3 <= late.at <= managed.next_at + left / 3 + DAY


async def test_withdrawing_what_has_ended_changes_nothing(hosts: DeliveryWorld) -> None:
    """It is returned as it is."""
    node = await hosts.node()
    await node.settled("www")
    (delivery,) = await node.deliveries()
    found = await hosts.deliveries._ends.withdraw_open(delivery.delivery_id, "too late")
    assert found is not None
    assert found.delivery.stage is DeliveryStage.SEEN
    assert await hosts.deliveries._ends.withdraw_open("nothing", "too late") is None


async def test_certificate_that_is_longer_than_its_cap_is_retired_once_its_heir_is_seen(
    hosts: DeliveryWorld,
) -> None:
    """Nobody fetches a node's certificate; that it is served is how its use is known."""
    retire = "[{upstream: ca, retire: {grace: 1h}}]"
    hosts.policies.change(
        "    upstreams: [{upstream: ca}]\n", f"    cap: 30d\n    upstreams: {retire}\n"
    )
    hosts.ca.honours_not_after = False
    hosts.facts["ca"] = replace(hosts.facts["ca"], honours_not_after=False)
    node = await hosts.node()
    node.profile = "server"
    await node.settled("www")
    (first,) = await node.deliveries()
    record = await hosts.store.find_retirement(first.certificate_id or "")
    assert record is not None
    assert record.status is RetirementStatus.WAITING
    managed = await node.managed()
    await hosts.let_pass(timedelta(hours=1))
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    record = await hosts.store.find_retirement(first.certificate_id or "")
    assert record is not None
    assert record.status is RetirementStatus.REPLACED
