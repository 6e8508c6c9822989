"""Nodes of pods that are gone end by themselves."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, EventKind
from broker.issuance.node_ports import NodeRecord, NodeStatus
from broker.issuance.pod_ends import GRACE, LOOK_EVERY, PodEnds
from broker.protocol.resources import AccountStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import IDENTITY_LIFETIME, NodeWorld


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    """Nodes over a real store."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as made:
            yield made


def ends(scene: NodeWorld) -> PodEnds:
    """Return what ends pods."""
    return PodEnds(scene.store, scene.clock, end=scene.nodes.retire)


async def pod(scene: NodeWorld, name: str = "web-01") -> NodeRecord:
    """Let a pod in."""
    node = replace(await scene.join(name), pod=name, cluster="prod")
    await scene.store.change_node(node, expected=(NodeStatus.ACTIVE,), events=())
    return node


async def status_of(scene: NodeWorld, node: NodeRecord) -> NodeStatus | None:
    """Return where the node stands, None when it is forgotten."""
    found = await scene.store.find_node(node.node_id)
    return None if found is None else found.status


async def test_pod_ends_an_hour_after_its_identity(scene: NodeWorld) -> None:
    """Its account is closed and its name is free; its identity is on no list, for it had ended."""
    node, turns = await pod(scene), ends(scene)
    host = await scene.join("host-01")
    scene.clock.advance(IDENTITY_LIFETIME + GRACE - timedelta(minutes=1))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.ACTIVE
    scene.clock.advance(timedelta(minutes=2))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.REVOKED
    assert await status_of(scene, host) is NodeStatus.ACTIVE
    account = await scene.store.find_account(node.account_id)
    assert account is not None
    assert account.status is AccountStatus.DEACTIVATED
    assert (scene.ca.revoked, scene.live.dropped) == ([], [node.node_id])
    rows = await scene.store.read_events(after=0, limit=1000, order_id=None)
    (event,) = [one for _, one in rows if one.kind is EventKind.NODE_REVOKED]
    assert event.actor == Actor("system", "its pod's identity has ended")
    assert (await pod(scene)).name == node.name


async def test_pod_that_renews_goes_on(scene: NodeWorld) -> None:
    """As long as its identity does."""
    node, turns = await pod(scene), ends(scene)
    alive = replace(node, identity_not_after=node.identity_not_after + IDENTITY_LIFETIME)
    await scene.store.change_node(alive, expected=(NodeStatus.ACTIVE,), events=())
    scene.clock.advance(IDENTITY_LIFETIME + 2 * GRACE)
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.ACTIVE


async def test_pod_is_forgotten_a_day_after(scene: NodeWorld) -> None:
    """Ten thousand starts a week leave the store with a day of them."""
    node, turns = await pod(scene), ends(scene)
    scene.clock.advance(IDENTITY_LIFETIME + timedelta(hours=23))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.REVOKED
    scene.clock.advance(timedelta(hours=2))
    await turns.take_turn()
    assert await status_of(scene, node) is None


async def test_broker_that_was_away_lets_pods_come_back_first(scene: NodeWorld) -> None:
    """All their identities ended meanwhile, and their keys are what they come back by."""
    node = await pod(scene)
    scene.clock.advance(IDENTITY_LIFETIME + 5 * GRACE)
    turns = ends(scene)
    await turns.take_turn()
    scene.clock.advance(GRACE - timedelta(seconds=1))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.ACTIVE
    scene.clock.advance(timedelta(seconds=1))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.REVOKED


async def test_looks_are_a_minute_apart(scene: NodeWorld) -> None:
    """A turn comes every five seconds."""
    turns = ends(scene)
    scene.clock.advance(GRACE)
    await turns.take_turn()
    node = await pod(scene)
    scene.clock.advance(LOOK_EVERY - timedelta(seconds=1))
    aged = replace(node, identity_not_after=scene.clock.now() - 2 * GRACE)
    await scene.store.change_node(aged, expected=(NodeStatus.ACTIVE,), events=())
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.ACTIVE
    scene.clock.advance(timedelta(seconds=1))
    await turns.take_turn()
    assert await status_of(scene, node) is NodeStatus.REVOKED


async def test_one_that_somebody_else_ended_holds_up_no_other(scene: NodeWorld) -> None:
    """Each is tried for itself."""
    first, second = await pod(scene, "a-01"), await pod(scene, "b-01")

    async def end(node: NodeRecord, actor: Actor) -> object:
        if node.name == first.name:
            raise Conflict("somebody was faster")
        return await scene.nodes.retire(node, actor)

    turns = PodEnds(scene.store, scene.clock, end=end)
    scene.clock.advance(IDENTITY_LIFETIME + 2 * GRACE)
    await turns.take_turn()
    assert await status_of(scene, first) is NodeStatus.ACTIVE
    assert await status_of(scene, second) is NodeStatus.REVOKED
