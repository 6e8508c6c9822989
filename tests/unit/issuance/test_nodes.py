"""What operators do with nodes: tokens, requests, and the end of a node."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.node_ports import EnrolmentMethod, EnrolmentRequest, NodeStatus
from broker.issuance.nodes import Approval, TokenWish
from broker.protocol.problems import Problem
from broker.protocol.resources import AccountStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import OPERATOR, AgentKey, NodeWorld


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    """Nodes over a real store."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as made:
            yield made


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"node": None}, "give one of both"),
        ({"node": "a", "node_pattern": "*.b.example"}, "give one of both"),
        ({"node": "Web 1"}, "lower case DNS labels"),
        ({"node": None, "node_pattern": "*.*.x"}, "leftmost label"),
        ({"community": "nowhere"}, "no community"),
        ({"names": ("evil..example",)}, "evil"),
        ({"names": ("*.a.example",) * 101}, "101 name patterns"),
        ({"lifetime": timedelta(days=91)}, "at most 90 days"),
        ({"lifetime": timedelta(0)}, "above 0"),
    ],
    ids=["nobody", "both", "name", "pattern", "community", "names", "many", "long", "none"],
)
async def test_token_that_could_not_work_is_not_made(
    scene: NodeWorld, wish: dict[str, Any], said: str
) -> None:
    """The operator is told at once, not the agent later."""
    with pytest.raises(Problem, match=said):
        await scene.token(**{"node": "web-01", **wish})
    assert await scene.store.list_join_tokens() == []


async def test_tokens_are_all_different_and_can_be_typed(scene: NodeWorld) -> None:
    """None begins like an option."""
    made = {await scene.token() for _ in range(20)}
    assert len(made) == 20
    assert all(one.startswith("pnst_") for one in made)


async def test_spent_token_is_not_revoked_again(scene: NodeWorld) -> None:
    """There is nothing left to take back; the node is revoked instead."""
    wish = TokenWish(community="default", node="web-01")
    token, text = await scene.nodes.mint_token(wish, OPERATOR)
    await scene.joining.enrol(scene.asking(AgentKey(), credential=text))
    with pytest.raises(Conflict, match="spent"):
        await scene.nodes.revoke_token(token.token_id, OPERATOR)


async def test_request_for_a_name_is_approved_once_its_node_cannot_come_back(
    scene: NodeWorld,
) -> None:
    """Before, whoever approves is told until when the name is held, and what to do."""
    node = await scene.join()
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.APPROVAL)
    scene.later(days=36)
    request = await scene.joining.enrol(asking)
    assert isinstance(request, EnrolmentRequest)
    with pytest.raises(Problem, match=f"held by node {node.node_id} until .*; revoke it first"):
        await scene.nodes.approve(request.request_id, Approval(community="default"), OPERATOR)
    scene.later(days=2)
    with pytest.raises(Problem, match="of community 'default'; revoke it first"):
        await scene.nodes.approve(request.request_id, Approval(community="lab"), OPERATOR)
    await scene.nodes.approve(request.request_id, Approval(community="default"), OPERATOR)
    assert (await scene.nodes.find("web-01")).node_id == node.node_id
    await scene.joining.enrol(asking)
    assert (await scene.nodes.find("web-01")).node_id != node.node_id


async def test_revoked_node_is_a_stranger_at_once(scene: NodeWorld) -> None:
    """Connection, identities, account and name: nothing is left to it."""
    node = await scene.join()
    await scene.nodes.revoke("web-01", OPERATOR)
    assert scene.live.dropped == [node.node_id]
    assert await scene.store.find_node_by_identity(node.fingerprint) is None
    assert await scene.store.find_node("web-01") is None
    account = await scene.store.find_account(node.account_id)
    assert account is not None
    assert account.status is AccountStatus.DEACTIVATED
    assert scene.ca.revoked == [scene.ca.issued[0].certificate_der]
    assert EventKind.NODE_REVOKED in await scene.kinds()


async def test_revocation_is_finished_when_it_is_asked_for_again(scene: NodeWorld) -> None:
    """By its id, since the name is free by then."""
    node = await scene.join()
    await scene.nodes.revoke("web-01", OPERATOR)
    again = await scene.nodes.revoke(node.node_id, OPERATOR)
    assert again.status is NodeStatus.REVOKED
    assert (await scene.kinds()).count(EventKind.NODE_REVOKED) == 1


async def test_drained_node_is_resumed_and_a_revoked_one_is_not(scene: NodeWorld) -> None:
    """Draining is for a while, revoking for good."""
    node = await scene.join()
    assert (await scene.nodes.drain("web-01", OPERATOR)).status is NodeStatus.DRAINED
    assert (await scene.nodes.drain("web-01", OPERATOR)).status is NodeStatus.DRAINED
    assert (await scene.nodes.resume("web-01", OPERATOR)).status is NodeStatus.ACTIVE
    await scene.nodes.revoke("web-01", OPERATOR)
    with pytest.raises(Conflict):
        await scene.nodes.resume(node.node_id, OPERATOR)
    with pytest.raises(Problem, match="there is no node"):
        await scene.nodes.drain("web-01", OPERATOR)


async def test_nodes_are_listed_by_name_and_status(scene: NodeWorld) -> None:
    """Page by page."""
    for name in ("web-03", "web-01", "web-02"):
        await scene.join(name)
    await scene.nodes.drain("web-02", OPERATOR)
    first = await scene.nodes.list(limit=2)
    rest = await scene.nodes.list(after=first[-1].node_id)
    assert [one.name for one in (*first, *rest)] == ["web-01", "web-02", "web-03"]
    drained = await scene.nodes.list(status=NodeStatus.DRAINED)
    assert [one.name for one in drained] == ["web-02"]


async def test_what_ended_long_ago_is_forgotten_once_an_hour(scene: NodeWorld) -> None:
    """Tokens that let nobody in any more do not pile up."""
    await scene.token()
    await scene.nodes.tidy()
    assert len(await scene.nodes.list_tokens()) == 1
    scene.later(days=402)
    await scene.nodes.tidy()
    assert await scene.nodes.list_tokens() == []
