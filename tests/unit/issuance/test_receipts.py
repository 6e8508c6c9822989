"""What nodes tell of a certificate: twice, late, in another order, or of another's."""

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryStage, QueuedMessage
from broker.protocol.problems import Problem
from tests.fakes.delivery_world import DeliveryWorld, Node

STAGES = ("checked", "installed", "reloaded", "seen")


async def pushed(hosts: DeliveryWorld) -> tuple[Node, QueuedMessage]:
    """Return a node that was sent a certificate, with the message."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    await node.answer(node.inbox.pop())
    (message,) = await node.read()
    node.inbox.clear()
    assert message.kind == "certificate"
    return node, message


@pytest.mark.parametrize("order", list(itertools.permutations(STAGES)), ids="-".join)
async def test_receipts_in_any_order_end_as_seen(
    hosts: DeliveryWorld, order: tuple[str, ...]
) -> None:
    """Each twice; the certificate counts as served, once."""
    node, message = await pushed(hosts)
    for stage in order:
        await node.tell(message, stage)
        await node.tell(message, stage)
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage.SEEN
    assert (await node.managed()).certificate_id == delivery.certificate_id
    assert [end for _, end in hosts.rollout.ends] == ["seen"]


async def test_lost_receipts_are_leapt_over(hosts: DeliveryWorld) -> None:
    """What was not told has no time, and that is to be seen."""
    node, message = await pushed(hosts)
    await node.tell(message, "seen")
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage.SEEN
    assert (delivery.checked_at, delivery.installed_at, delivery.reloaded_at) == (None,) * 3


@pytest.mark.parametrize("end", ["refused", "failed", "restored"])
async def test_node_that_gives_up_keeps_the_old_one_and_is_tried_again(
    hosts: DeliveryWorld, end: str
) -> None:
    """Its reason is kept, the failure counted, and a pause comes first."""
    node, message = await pushed(hosts)
    await node.tell(message, "checked")
    await node.tell(message, end, note="nginx: bad line 7\x1b[2J")
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage(end)
    assert "nginx: bad line 7" in (delivery.note or "")
    assert "\x1b" not in (delivery.note or "")
    managed = await node.managed()
    assert (managed.attempts, managed.certificate_id) == (1, None)
    assert managed.next_at is not None
    assert managed.next_at > hosts.clock.now()
    assert await hosts.sweep() == 0
    await hosts.let_pass(timedelta(minutes=2))
    await hosts.sweep()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_receipt_after_the_end_changes_nothing(hosts: DeliveryWorld) -> None:
    """It comes again, or late; it is accepted, so that the node is rid of it."""
    node, message = await pushed(hosts)
    await node.tell(message, "seen")
    before = await node.deliveries()
    for stage in (*STAGES, "restored"):
        await node.tell(message, stage)
    assert await node.deliveries() == before


@pytest.mark.parametrize("changed", ["fingerprint", "generation", "delivery", "node"])
async def test_receipt_for_what_was_not_sent_is_refused(hosts: DeliveryWorld, changed: str) -> None:
    """Whoever tells of another certificate, generation, delivery or node ends nothing."""
    node, message = await pushed(hosts)
    other = await hosts.node("web-02")
    faults: dict[str, dict[str, object]] = {
        "fingerprint": {"fingerprint": "00" * 32},
        "generation": {"generation": 7},
        "delivery": {"delivery_id": "nothing"},
    }
    given = faults.get(changed, {})
    teller = replace_record(node, other) if changed == "node" else node
    with pytest.raises(Problem):
        await teller.tell(message, "seen", **given)
    assert await node.stage() is DeliveryStage.PUSHED
    await node.tell(message, "seen")
    assert await node.stage() is DeliveryStage.SEEN


def replace_record(node: Node, other: Node) -> Node:
    """Return *node* speaking as *other*."""
    return replace(node, record=other.record)


async def test_no_node_tells_of_the_brokers_stages(hosts: DeliveryWorld) -> None:
    """A receipt for one of them is refused."""
    node, message = await pushed(hosts)
    with pytest.raises(Problem, match="no node reaches"):
        await node.tell(message, "issued")
    assert await node.stage() is DeliveryStage.PUSHED


async def test_receipt_before_anything_was_sent_is_refused(hosts: DeliveryWorld) -> None:
    """A node cannot tell that it serves what it has not got."""
    node, message = await pushed(hosts)
    managed = await node.managed()
    await hosts.deliveries.asking.begin(managed.managed_id, reason="incident", incident_id="i1")
    (newest, _) = await node.deliveries()
    with pytest.raises(Problem, match="nothing of this delivery"):
        await node.tell(message, "seen", delivery_id=newest.delivery_id, generation=2)
    await node.tell(message, "seen")
    assert [one.stage for one in await node.deliveries()] == [
        DeliveryStage.ASKED, DeliveryStage.SUPERSEDED,
    ]  # fmt: skip


async def at_node(hosts: DeliveryWorld) -> list[object]:
    """Return the stages at a node that were recorded, in their order."""
    events = await hosts.events(EventKind.DELIVERY_MOVED, EventKind.DELIVERY_SEEN)
    told = [event.data["stage"] for event in events]
    return told[told.index("pushed") + 1 :]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_receipts_told_at_once_count_like_those_told_apart(
    hosts: DeliveryWorld, count: int
) -> None:
    """Each has its time and its event, and what was told before has no other."""
    node, message = await pushed(hosts)
    await node.tell(message, *STAGES[:count])
    assert await node.stage() is DeliveryStage(STAGES[count - 1])
    await node.tell(message, *STAGES)
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage.SEEN
    assert None not in (delivery.checked_at, delivery.installed_at, delivery.reloaded_at)
    assert await at_node(hosts) == list(STAGES)
    assert (await node.managed()).certificate_id == delivery.certificate_id
    assert [end for _, end in hosts.rollout.ends] == ["seen"]


async def test_receipts_told_at_once_are_one_transaction(hosts: DeliveryWorld) -> None:
    """Thousands that tell at once are waited for by everybody else."""
    node, message = await pushed(hosts)
    before = hosts.traffic.seen("store.change_delivery")
    await node.tell(message, *STAGES)
    assert hosts.traffic.seen("store.change_delivery") - before == 1


@pytest.mark.parametrize("end", ["failed", "restored"])
async def test_what_was_reached_before_the_end_is_kept(hosts: DeliveryWorld, end: str) -> None:
    """Also where all of it is told at once; nothing after the end is."""
    node, message = await pushed(hosts)
    await node.tell(message, "checked", "installed", end, "reloaded", note="no room")
    (delivery,) = await node.deliveries()
    assert delivery.stage is DeliveryStage(end)
    assert None not in (delivery.checked_at, delivery.installed_at)
    assert delivery.reloaded_at is None
    assert await at_node(hosts) == ["checked", "installed"]
    assert await hosts.count(EventKind.DELIVERY_FAILED) == 1


async def test_one_receipt_at_fault_has_none_kept(hosts: DeliveryWorld) -> None:
    """Each is looked at again by itself then."""
    node, message = await pushed(hosts)
    right = [node.receipt(message, stage) for stage in STAGES]
    wrong = [*right[:2], replace(right[2], fingerprint="00" * 32), right[3]]
    with pytest.raises(Problem, match="another certificate"):
        await hosts.deliveries.receipted(node.record, wrong)
    assert await node.stage() is DeliveryStage.PUSHED
    assert await at_node(hosts) == []
