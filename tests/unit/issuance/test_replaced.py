"""Whether a certificate at a node has been replaced."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.replaced import is_replaced
from tests.fakes.delivery_world import DeliveryWorld, Node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that serves a certificate."""
    async with DeliveryWorld(tmp_path) as world:
        made = await world.node()
        await made.settled("www")
        yield made


async def ask(node: Node, certificate_id: str | None) -> bool:
    """Ask about one of the node's certificates."""
    managed = await node.managed()
    return await is_replaced(node.world.store, managed.managed_id, certificate_id or "")


@pytest.mark.parametrize(
    ("ends", "expected"),
    [("checked", False), ("installed", False), ("reloaded", False), ("seen", True),
     ("refused", False), ("failed", False), ("restored", False)],
)  # fmt: skip
async def test_only_a_successor_that_was_seen_replaces(
    node: Node, ends: str, expected: bool
) -> None:
    """Whatever else is told of it."""
    first = (await node.deliveries())[0].certificate_id
    assert not await ask(node, first)
    managed = await node.managed()
    node.ends = ends
    await node.world.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    assert await ask(node, first) is expected
    second = (await node.deliveries())[0].certificate_id
    assert not await ask(node, second) or ends in ("refused", "failed", "restored")


async def test_certificate_that_is_on_its_way_is_not_replaced(node: Node) -> None:
    """The one that is served still was seen; the other may be installed at any moment."""
    managed = await node.managed()
    await node.world.deliveries.asking.begin(managed.managed_id, reason="asked")
    node.ends = "checked"
    await node.work()
    on_its_way = (await node.deliveries())[0]
    assert on_its_way.certificate_id != managed.certificate_id
    assert not await ask(node, on_its_way.certificate_id)
    await node.world.let_pass(timedelta(seconds=1))


async def test_unknown_certificate_of_a_node_is_not_replaced(node: Node) -> None:
    """Nor is anything of a node that has none of ours."""
    assert not await is_replaced(node.world.store, "nothing", "x")
