"""Nodes of pods that ended: which they are, and what goes with them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.events import Actor
from broker.issuance.node_ports import NodeRecord, NodeStatus
from broker.storage.pods import _ENDED, _HALF_ENDED, _TO_FORGET
from tests.fakes.delivery_world import DeliveryWorld, Node

DAY = timedelta(days=1)


async def as_pod(world: DeliveryWorld, node: Node, *, pod: str | None = "web-0") -> NodeRecord:
    """Have the node be bound to a pod."""
    record = await world.store.find_node(node.record.node_id)
    assert record is not None
    kept = replace(record, pod=pod, cluster="prod")
    await world.store.change_node(kept, expected=(record.status,), events=())
    return kept


async def revoked(world: DeliveryWorld, record: NodeRecord, *, is_closed: bool = True) -> None:
    """Have the node be a stranger, with its account closed unless something came in between."""
    gone = replace(record, status=NodeStatus.REVOKED)
    await world.store.change_node(gone, expected=(NodeStatus.ACTIVE,), events=())
    if is_closed:
        await closed(world, record)


async def closed(world: DeliveryWorld, record: NodeRecord) -> None:
    """Have the node's account be closed."""
    account = await world.store.find_account(record.account_id)
    assert account is not None
    await world.accounts.deactivate(account, Actor("system", "a test"))


async def test_pods_end_with_their_identity_and_hosts_do_not(tmp_path: Path) -> None:
    """A host that is away comes back; of a pod another one comes."""
    async with DeliveryWorld(tmp_path) as world:
        pod, host = await world.node("pod-01"), await world.node("host-01")
        record = await as_pod(world, pod)
        end = record.identity_not_after
        assert await world.store.ended_pods(end, 10) == []
        found = await world.store.ended_pods(end + DAY, 10)
        assert [one.name for one in found] == ["pod-01"]
        assert await world.store.ended_pods(end + DAY, 0) == []
        await revoked(world, record)
        assert await world.store.ended_pods(end + DAY, 10) == []
        assert host.record.status is NodeStatus.ACTIVE


async def test_pod_whose_account_is_still_open_is_ended_again(tmp_path: Path) -> None:
    """Whatever came in between: without its node nothing would narrow what the account may have."""
    async with DeliveryWorld(tmp_path) as world:
        record = await as_pod(world, await world.node("pod-01"))
        late = record.identity_not_after + DAY
        await revoked(world, record, is_closed=False)
        assert [one.name for one in await world.store.ended_pods(late, 10)] == ["pod-01"]
        assert await world.store.ended_pods(record.identity_not_after, 10) == []
        assert await world.store.forget_pods(late, 10) == 0
        await closed(world, record)
        assert await world.store.ended_pods(late, 10) == []
        assert await world.store.forget_pods(late, 10) == 1


async def test_pod_is_forgotten_with_all_that_was_for_it(tmp_path: Path) -> None:
    """Its certificates, orders and events stay; nothing is left that would name it."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        await node.work()
        record = await as_pod(world, node)
        await revoked(world, record)
        (delivery,) = await node.deliveries()
        certificate = await world.store.find_certificate(delivery.certificate_id or "")
        assert certificate is not None
        later = max(record.identity_not_after, certificate.not_after) + DAY
        before = world.dump()
        assert await world.store.forget_pods(later, 10) == 1
        after = world.dump()
        for table in ("nodes", "node_identities", "managed", "deliveries", "node_sequences"):
            assert after[table] == [], table
        for table in ("certificates", "orders", "accounts", "events"):
            assert after[table] == before[table], table
        assert await world.store.forget_pods(later, 10) == 0


async def test_what_somebody_may_ask_about_stays(tmp_path: Path) -> None:
    """While it is there, while its certificate is good, while something is on its way; hosts."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        (delivery,) = await node.deliveries()
        record = await as_pod(world, node)
        late = record.identity_not_after + 1000 * DAY
        assert await world.store.forget_pods(late, 10) == 0  # it is no stranger
        host = await as_pod(world, node, pod=None)
        await revoked(world, host)
        assert await world.store.forget_pods(late, 10) == 0  # it is a host
        gone = replace(host, pod="web-0", status=NodeStatus.REVOKED)
        await world.store.change_node(gone, expected=(NodeStatus.REVOKED,), events=())
        assert delivery.ended_at is None
        assert await world.store.forget_pods(late, 10) == 0  # something is on its way


async def test_certificate_that_is_good_keeps_its_pod(tmp_path: Path) -> None:
    """Whoever asks what serves it is told."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        await node.work()
        record = await as_pod(world, node)
        await revoked(world, record)
        (delivery,) = await node.deliveries()
        certificate = await world.store.find_certificate(delivery.certificate_id or "")
        assert certificate is not None
        assert certificate.not_after > record.identity_not_after
        assert await world.store.forget_pods(certificate.not_after, 10) == 0
        assert await world.store.forget_pods(certificate.not_after + DAY, 10) == 1


@pytest.mark.parametrize(
    "statement", [_ENDED, _HALF_ENDED, _TO_FORGET], ids=["ended", "half-ended", "forgotten"]
)
async def test_looking_reads_an_index_of_pods_alone(tmp_path: Path, statement: str) -> None:
    """A hundred thousand hosts cost nothing."""
    async with DeliveryWorld(tmp_path) as world:
        plan = await world.store._database.read(
            lambda snapshot: snapshot.all(f"EXPLAIN QUERY PLAN {statement}", 0, 10)
        )
        first = str(plan[0][-1])
        assert "nodes_of_pods" in first
        assert not first.startswith("SCAN nodes USING COVERING")


async def test_lists_leave_out_pods_that_are_gone(tmp_path: Path) -> None:
    """They would hide those that are there; whoever asks for the revoked sees them."""
    async with DeliveryWorld(tmp_path) as world:
        pod, host = await world.node("pod-01"), await world.node("host-01")
        await revoked(world, await as_pod(world, pod))
        await revoked(world, host.record)
        listed = await world.store.list_nodes(status=None, after=None, limit=10)
        assert [one.name for one in listed] == ["host-01"]
        listed = await world.store.list_nodes(status=NodeStatus.REVOKED, after=None, limit=10)
        assert [one.name for one in listed] == ["host-01", "pod-01"]
