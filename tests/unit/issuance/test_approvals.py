"""Nodes that ask a person: their request waits, and what becomes of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.issuance.approvals import MAX_FACTS, MAX_WAITING
from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.joining import Joined
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod, EnrolmentRequest, RequestStatus
from broker.issuance.nodes import Approval
from broker.protocol.problems import Problem
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import OPERATOR, AgentKey, NodeWorld


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    """Nodes over a real store."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as made:
            yield made


def asks(scene: NodeWorld, key: AgentKey, **given: object) -> Asking:
    """Return what a node asks that waits for a person."""
    return scene.asking(key, method=EnrolmentMethod.APPROVAL, **given)


async def filed(scene: NodeWorld, key: AgentKey, **given: object) -> EnrolmentRequest:
    """Return the request of a node that waits."""
    outcome = await scene.joining.enrol(asks(scene, key, **given))
    assert isinstance(outcome, EnrolmentRequest)
    return outcome


APPROVAL = Approval(community="default", names=("*.corp.example",), owner="web", contact="w@x.test")


async def test_request_waits_and_becomes_a_node_when_it_is_approved(scene: NodeWorld) -> None:
    """With what the person gave it, and the request remembers which node."""
    key = AgentKey()
    request = await filed(scene, key, facts={"hostname": "web-01"})
    assert (request.status, request.spki_sha256) == (RequestStatus.WAITING, key.spki_sha256)
    await scene.nodes.approve(request.request_id, APPROVAL, OPERATOR)
    joined = await scene.joining.enrol(asks(scene, key))
    assert isinstance(joined, Joined)
    assert (joined.node.owner, joined.node.names) == ("web", ("*.corp.example",))
    kept = await scene.store.find_request(request.request_id)
    assert kept is not None
    assert kept.node_id == joined.node.node_id
    assert EventKind.ENROLMENT_APPROVED in await scene.kinds()


async def test_same_key_asking_again_joins_its_request(scene: NodeWorld) -> None:
    """A node that restarts does not fill the queue."""
    key = AgentKey()
    first, second = await filed(scene, key), await filed(scene, key)
    assert first.request_id == second.request_id
    assert len(await scene.nodes.list_requests()) == 1


async def test_approval_is_for_the_key_and_the_name_that_asked(scene: NodeWorld) -> None:
    """Another key of the same name waits for itself; the key under another name is refused."""
    key = AgentKey()
    request = await filed(scene, key)
    await scene.nodes.approve(request.request_id, APPROVAL, OPERATOR)
    other = await filed(scene, AgentKey())
    assert other.status is RequestStatus.WAITING
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(asks(scene, key, node="web-02"))


async def test_denied_node_stays_out(scene: NodeWorld) -> None:
    """It is told so, and a second decision is none."""
    key = AgentKey()
    request = await filed(scene, key)
    await scene.nodes.deny(request.request_id, OPERATOR)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(asks(scene, key))
    with pytest.raises(Conflict):
        await scene.nodes.approve(request.request_id, APPROVAL, OPERATOR)


async def test_answer_that_was_lost_is_given_again(scene: NodeWorld) -> None:
    """The approved key asks once more and is the same node."""
    key = AgentKey()
    request = await filed(scene, key)
    await scene.nodes.approve(request.request_id, APPROVAL, OPERATOR)
    first = await scene.joining.enrol(asks(scene, key))
    second = await scene.joining.enrol(asks(scene, key))
    assert isinstance(first, Joined)
    assert isinstance(second, Joined)
    assert first.node.node_id == second.node.node_id


async def test_name_of_a_node_is_not_approved_for_another(scene: NodeWorld) -> None:
    """The person has to revoke the one that has it first."""
    await scene.join()
    request = await filed(scene, AgentKey())
    with pytest.raises(Problem, match="revoke it first"):
        await scene.nodes.approve(request.request_id, APPROVAL, OPERATOR)


async def test_request_that_nobody_decides_ends(scene: NodeWorld) -> None:
    """The same key may file another one then."""
    key = AgentKey()
    first = await filed(scene, key)
    scene.later(days=8)
    second = await filed(scene, key)
    assert first.request_id != second.request_id


async def test_facts_are_bounded_and_harmless(scene: NodeWorld) -> None:
    """What a stranger says of its host steers no terminal and fills no store."""
    facts = {f"fact{number}": "x" * 1000 for number in range(100)} | {"esc": "\x1b[31m"}
    request = await filed(scene, AgentKey(), facts=dict(reversed(facts.items())))
    assert len(request.facts) == MAX_FACTS + 1
    assert request.facts["esc"] == "\\u001b[31m"
    assert all(len(str(value)) <= 200 for value in request.facts.values())
    assert request.facts["peer"] == "192.0.2.7"


async def test_queue_is_bounded(scene: NodeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks when it is full is told to come again."""
    monkeypatch.setattr("broker.issuance.approvals.MAX_WAITING", 2)
    assert MAX_WAITING > 2
    await filed(scene, AgentKey())
    await filed(scene, AgentKey())
    with pytest.raises(Problem) as full:
        await scene.joining.enrol(asks(scene, AgentKey()))
    assert (full.value.status, full.value.retry_after is not None) == (429, True)
