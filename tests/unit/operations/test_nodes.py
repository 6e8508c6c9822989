"""The desk about nodes: what operators ask for, and what they are shown."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod
from broker.operations import OperatorDesk, Rooms
from broker.web.operator import OperationError
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import AgentKey, NodeWorld
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper, Office


class NodeOffice:
    """A desk with nodes."""

    def __init__(self, scene: NodeWorld) -> None:
        world = scene.world
        self.scene = scene
        self.desk = OperatorDesk(
            Rooms(
                store=scene.store,
                accounts=world.accounts,
                enrollment=world.enrollment,
                revocations=world.revocations,
                planner=world.planner,
                policies=world.policies,
                upstreams=FakeUpstreamKeeper(),
                authorities=FakeAuthorityKeeper(),
                clock=world.clock,
                communities=("default", "lab"),
                version="0.1.0",
                nodes=scene.nodes,
            )
        )


@pytest.fixture
async def rooms(tmp_path: Path) -> AsyncIterator[NodeOffice]:
    """A desk that is open."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as scene:
            yield NodeOffice(scene)


async def test_token_is_shown_once(rooms: NodeOffice) -> None:
    """By the command that made it, and by no list."""
    made = await rooms.desk.node_token(
        actor=ANNA, node="web-01", names=["*.corp.example"], owner="web", expires_in="2h"
    )
    listed = await rooms.desk.node_tokens()
    assert made["token"].startswith("pnst_")
    assert (made["expires"], made["for"]) == ("2026-03-01T14:00:00Z", "web-01")
    assert made["token"] not in json.dumps(listed)
    assert listed[0]["token_id"] == made["token_id"]
    revoked = await rooms.desk.node_token_revoke(actor=ANNA, token_id=made["token_id"])
    assert revoked["revoked"] == "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"community": "nowhere"}, "no community"),
        ({"profiles": ["none"]}, "has no profile 'none'"),
        ({"expires_in": "2"}, "2"),
    ],
    ids=["community", "profile", "bare number"],
)
async def test_token_that_could_not_work_is_refused(
    rooms: NodeOffice, given: dict[str, object], said: str
) -> None:
    """With the word that is wrong."""
    with pytest.raises(OperationError, match=said):
        await rooms.desk.node_token(actor=ANNA, node="web-01", **given)  # type: ignore[arg-type]


async def test_node_is_listed_shown_drained_resumed_and_revoked(rooms: NodeOffice) -> None:
    """With whose it is, and whether it is connected."""
    node = await rooms.scene.join("web-01.corp.example")
    rooms.scene.live.connected.add(node.node_id)
    (listed,) = await rooms.desk.node_list()
    shown = await rooms.desk.node_show(node="web-01.corp.example")
    assert listed == shown
    assert (shown["status"], shown["connected"], shown["method"]) == ("active", True, "token")
    name = "web-01.corp.example"
    assert (await rooms.desk.node_drain(actor=ANNA, node=name))["status"] == "drained"
    assert (await rooms.desk.node_resume(actor=ANNA, node=name))["status"] == "active"
    assert (await rooms.desk.node_revoke(actor=ANNA, node=name))["status"] == "revoked"
    assert await rooms.desk.node_list(status="active") == []
    with pytest.raises(OperationError, match="no status"):
        await rooms.desk.node_list(status="asleep")


async def test_requests_are_approved_and_denied(rooms: NodeOffice) -> None:
    """A person sees the key that the agent shows as well."""
    keys = [AgentKey(), AgentKey()]
    for number, key in enumerate(keys):
        asking = Asking(method=EnrolmentMethod.APPROVAL, node=f"web-0{number}", csr_der=key.csr_der)
        await rooms.scene.joining.enrol(asking)
    by_node = {one["node"]: one for one in await rooms.desk.node_requests()}
    assert by_node["web-00"]["key"] == keys[0].spki_sha256
    approved = await rooms.desk.node_approve(
        actor=ANNA, request_id=by_node["web-00"]["request"], community="lab", owner="lab"
    )
    denied = await rooms.desk.node_deny(actor=ANNA, request_id=by_node["web-01"]["request"])
    assert (approved["status"], approved["community"]) == ("approved", "lab")
    assert (denied["status"], denied["decided_by"]) == ("denied", "operator:anna")


async def test_policy_is_explained_for_a_node(rooms: NodeOffice) -> None:
    """As its account would be answered; an unknown one is told so."""
    await rooms.scene.join("web-01.corp.example")
    told = await rooms.desk.policy_explain(names=["a.example.com"], node="web-01.corp.example")
    assert told["names"] == ["a.example.com"]
    with pytest.raises(OperationError, match="no node"):
        await rooms.desk.policy_explain(names=["a.example.com"], node="web-02")


async def test_broker_without_nodes_says_so(office: Office) -> None:
    """Instead of an empty list."""
    with pytest.raises(OperationError, match="serves no nodes"):
        await office.desk.node_list()
