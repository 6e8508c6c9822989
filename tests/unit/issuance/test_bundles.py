"""Bundles: sent to those that want them, when they change, and cheap when they do not."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from agents import wire
from broker.issuance.bundle_ports import BundleContents
from broker.issuance.bundles import REFRESH_EVERY, Bundles
from broker.issuance.errors import Unreachable
from tests.fakes.delivery_world import DeliveryWorld, Node


class FakeSource:
    """Bundles of one community."""

    def __init__(self) -> None:
        self.anchors = "ANCHORS 1"
        self.asked = 0
        self.is_away = False

    async def contents(self, community: str) -> Mapping[str, BundleContents]:
        """Return them."""
        self.asked += 1
        if self.is_away:
            raise Unreachable("the list cannot be signed now")
        assert community == "default"
        return {"anchors": BundleContents(content="anchors", pem=self.anchors)}


class Shelf:
    """Bundles over a real store."""

    def __init__(self, world: DeliveryWorld) -> None:
        self.world = world
        self.source = FakeSource()
        self.restart()

    def restart(self) -> None:
        """Forget what was in memory."""
        world = self.world
        self.bundles = Bundles(world.store, self.source, world.connections, world.clock)

    async def sent(self, node: Node) -> list[tuple[str, int]]:
        """Return what waits for a node, and acknowledge it."""
        found = await self.world.store.queued_messages(node.record.node_id, 0, 100)
        for one in found:
            wire.parse_message({"id": "1", "kind": one.kind, "body": dict(one.body)})
            await self.world.store.acknowledge(node.record.node_id, one.seq)
        return [(str(one.body["pem"]), int(str(one.body["version"]))) for one in found]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A shelf in a world with nodes."""
    async with DeliveryWorld(tmp_path) as world:
        yield Shelf(world)


async def test_node_that_wants_a_bundle_is_sent_it_once(shelf: Shelf) -> None:
    """And again when it comes back without having it installed; not once it has."""
    node = await shelf.world.node()
    await shelf.bundles.wanted(node.record, ["anchors", "unheard-of"])
    ((pem, version),) = await shelf.sent(node)
    assert pem == "ANCHORS 1"
    await shelf.bundles.wanted(node.record, ["anchors"])
    assert await shelf.sent(node) == [(pem, version)]
    await shelf.bundles.installed(node.record.node_id, "anchors", version)
    await shelf.bundles.wanted(node.record, ["anchors"])
    await shelf.bundles.take_turn(["default"])
    assert await shelf.sent(node) == []


async def test_change_goes_to_those_that_want_it_with_a_higher_version(shelf: Shelf) -> None:
    """Within a minute, and to nobody else."""
    node, other = await shelf.world.node("web-01"), await shelf.world.node("web-02")
    await shelf.bundles.wanted(node.record, ["anchors"])
    await shelf.bundles.wanted(other.record, [])
    ((_, first),) = await shelf.sent(node)
    shelf.source.anchors = "ANCHORS 2"
    await shelf.bundles.take_turn(["default"])
    assert await shelf.sent(node) == []
    shelf.world.clock.advance(REFRESH_EVERY)
    await shelf.bundles.take_turn(["default"])
    ((pem, second),) = await shelf.sent(node)
    assert pem == "ANCHORS 2"
    assert second > first
    assert await shelf.sent(other) == []
    await shelf.bundles.take_turn(["default"])
    assert await shelf.sent(node) == []


async def test_restart_neither_sends_again_nor_goes_back(shelf: Shelf) -> None:
    """The version is the one that it was."""
    node = await shelf.world.node()
    await shelf.bundles.wanted(node.record, ["anchors"])
    ((_, version),) = await shelf.sent(node)
    shelf.restart()
    await shelf.bundles.take_turn(["default"])
    assert await shelf.sent(node) == []
    found = await shelf.world.store.find_bundle("default", "anchors")
    assert found is not None
    assert found.version == version


async def test_node_that_no_longer_wants_it_is_sent_nothing(shelf: Shelf) -> None:
    """Its configuration has changed."""
    node = await shelf.world.node()
    await shelf.bundles.wanted(node.record, ["anchors"])
    await shelf.sent(node)
    await shelf.bundles.wanted(node.record, [])
    shelf.source.anchors = "ANCHORS 2"
    shelf.world.clock.advance(REFRESH_EVERY)
    await shelf.bundles.take_turn(["default"])
    assert await shelf.sent(node) == []


async def test_bundle_that_cannot_be_had_now_comes_later(shelf: Shelf) -> None:
    """What else a node states does not fail for it."""
    node = await shelf.world.node()
    shelf.source.is_away = True
    await shelf.bundles.wanted(node.record, ["anchors"])
    assert await shelf.sent(node) == []
    shelf.source.is_away = False
    await shelf.bundles.take_turn(["default"])
    assert len(await shelf.sent(node)) == 1


async def test_nothing_is_asked_while_nothing_can_have_changed(shelf: Shelf) -> None:
    """A turn comes every few seconds."""
    for _ in range(10):
        await shelf.bundles.take_turn(["default"])
    assert shelf.source.asked == 1


async def test_bundle_that_is_too_large_is_left_out(shelf: Shelf) -> None:
    """It would not fit into an answer of the channel."""
    node = await shelf.world.node()
    shelf.source.anchors = "x" * (2 * 1024 * 1024 + 1)
    await shelf.bundles.wanted(node.record, ["anchors"])
    assert await shelf.sent(node) == []
