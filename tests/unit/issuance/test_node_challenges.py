"""Challenges that nodes answer: sent, waited for, responded to, withdrawn."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from agents import wire
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_challenges import NodeAnswer, NodeAnswers, NodeValidations
from broker.issuance.node_ports import NodeMessage, NodeRecord, QueuedMessage
from broker.issuance.records import OrderRecord
from broker.policy.names import PatternSet
from broker.policy.node_names import node_patterns
from broker.protocol.challenges import ChallengeType, key_authorization
from broker.protocol.problems import Problem
from broker.protocol.resources import AuthorizationStatus, OrderStatus
from tests.fakes.clock import START
from tests.fakes.fake_connections import FakeConnections
from tests.fakes.fake_rollouts import delivery_view
from tests.fakes.world import Client, World

ANSWER = NodeAnswer(ChallengeType.HTTP_01, "www.example.com", "token", "token.thumb")
NODE = delivery_view("web-01.example.com", START).node


class FakeOutbox:
    """Hands every message to a node that answers, or does not."""

    def __init__(self) -> None:
        self.sent: list[NodeMessage] = []
        self.answers: NodeAnswers | None = None
        self.reply: str | None = ""
        """"": it answers; None: it says nothing; else why it cannot."""

    async def queue_messages(self, messages: Sequence[NodeMessage]) -> None:
        """Have the node act."""
        for message in messages:
            wire.parse_message({"id": "1", "kind": message.kind, "body": dict(message.body)})
            self.sent.append(message)
            if message.kind != "answer-challenge" or self.reply is None:
                continue
            assert self.answers is not None
            challenge = str(message.body["challenge"])
            if self.reply:
                self.answers.failed(message.node_id, challenge, self.reply)
            else:
                self.answers.answered(message.node_id, challenge)

    async def queued_messages(
        self, node_id: str, after: int, limit: int
    ) -> Sequence[QueuedMessage]:
        """Return none."""
        return []

    async def acknowledge(self, node_id: str, seq: int) -> None:
        """Do nothing."""


class FakeFinder:
    """Nodes behind every name."""

    def __init__(self, *nodes: NodeRecord) -> None:
        self.nodes = nodes

    async def nodes_named_in(
        self, name: str, communities: Sequence[str], limit: int
    ) -> Sequence[NodeRecord]:
        """Return them all."""
        return [one for one in self.nodes if one.community in communities][:limit]


class Scene:
    """Answers with an outbox, connections and nodes."""

    def __init__(self, *nodes: NodeRecord, patience: timedelta = timedelta(seconds=5)) -> None:
        self.outbox = FakeOutbox()
        self.answers = NodeAnswers(self.outbox, FakeFinder(*nodes), patience=patience)
        connections = FakeConnections()
        connections.connected = {NODE.node_id, *(node.node_id for node in nodes)}
        self.answers.connections = connections
        self.outbox.answers = self.answers

    def kinds(self) -> list[str]:
        """Return what was sent."""
        return [message.kind for message in self.outbox.sent]


async def test_answer_is_sent_and_waited_for() -> None:
    """With a time after which the node ends it by itself."""
    scene = Scene()
    await scene.answers.present(NODE, ANSWER)
    (message,) = scene.outbox.sent
    assert message.body["key_authorization"] == "token.thumb"
    assert message.body["seconds"] == 1800
    assert message.subject == "challenge/token"
    await scene.answers.withdraw(NODE.node_id, "token")
    assert scene.outbox.sent[-1].subject == "challenge/token"


async def test_node_that_cannot_says_why() -> None:
    """Trying again at once is useless."""
    scene = Scene()
    scene.outbox.reply = "port 80 is taken"
    with pytest.raises(Broken, match="cannot answer a challenge: port 80 is taken"):
        await scene.answers.present(NODE, ANSWER)


async def test_node_that_says_nothing_is_given_up() -> None:
    """It may be asked again later."""
    scene = Scene(patience=timedelta(milliseconds=1))
    scene.outbox.reply = None
    with pytest.raises(Unreachable, match="did not answer a challenge"):
        await scene.answers.present(NODE, ANSWER)


async def test_node_that_is_away_is_not_asked() -> None:
    """Nor where there are no nodes at all."""
    scene = Scene()
    scene.answers.connections = None
    with pytest.raises(Unreachable, match="is not connected"):
        await scene.answers.present(NODE, ANSWER)
    assert not scene.outbox.sent


async def test_report_that_nobody_waits_for_changes_nothing() -> None:
    """It may come twice, or late, or from another node."""
    scene = Scene()
    scene.answers.answered("x", "token")
    scene.answers.failed(NODE.node_id, "other", "why")
    scene.outbox.reply = None
    asking = asyncio.ensure_future(scene.answers.present(NODE, ANSWER))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.answers.answered("another-node", "token")
    await asyncio.sleep(0)
    assert not asking.done()
    scene.answers.answered(NODE.node_id, "token")
    scene.answers.answered(NODE.node_id, "token")
    await asking


async def test_only_nodes_that_may_are_found() -> None:
    """By the configuration's patterns, by what the node may have, by its community."""
    may = replace(NODE, names=("**.example.com",))
    may_not = replace(NODE, node_id="b", name="web-02.example.com", names=("**.example.org",))
    other = replace(NODE, node_id="c", name="db-01.example.com")
    foreign = replace(NODE, node_id="d", name="web-03.example.com", community="lab")
    scene = Scene(may, may_not, other, foreign)
    patterns = node_patterns(["web-01.example.com", "web-02.example.com", "web-03.example.com"])
    found = await scene.answers.nodes_for(
        "www.example.com", patterns=patterns, communities=("default",)
    )
    assert [one.name for one in found] == ["web-01.example.com"]
    assert PatternSet.parse(may.names).covering("www.example.com") is not None


async def pending(world: World, client: Client, name: str = "www.example.com") -> OrderRecord:
    """Return an order whose name has to be proved."""
    order = await client.order(name)
    assert order.status is OrderStatus.PENDING
    return order


def validations(world: World, scene: Scene, *types: ChallengeType) -> NodeValidations:
    """Return the workflow over the real journey of authorizations."""
    return NodeValidations(scene.answers, world.authorizations, offered=lambda _order: types)


async def test_order_of_a_node_is_proved_on_it(world: World) -> None:
    """Answered there, looked at as any client's, withdrawn; doing it again does no harm."""
    client = await world.client()
    order = await pending(world, client)
    scene = Scene()
    proving = validations(world, scene, ChallengeType.HTTP_01)
    await world.drive(proving.prove(NODE, client.account, order))
    done = await world.orders.read(client.account, order.order_id)
    assert done.status is OrderStatus.READY
    assert scene.kinds() == ["answer-challenge", "withdraw-challenge"]
    body = scene.outbox.sent[0].body
    token = str(body["token"])
    assert body["key_authorization"] == key_authorization(token, client.account.thumbprint)
    await proving.prove(NODE, client.account, order)
    assert len(scene.outbox.sent) == 2


async def test_type_that_policy_does_not_offer_is_not_answered(world: World) -> None:
    """Nothing is sent to the node."""
    client = await world.client()
    order = await pending(world, client)
    scene = Scene()
    with pytest.raises(Problem, match="cannot be proved on a node"):
        await validations(world, scene).prove(NODE, client.account, order)
    assert not scene.outbox.sent


async def test_nobody_looks_before_the_node_answers(world: World) -> None:
    """The challenge stays as it was, and the next attempt finds it so."""
    client = await world.client()
    order = await pending(world, client)
    scene = Scene()
    scene.outbox.reply = "no port is configured"
    proving = validations(world, scene, ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01)
    with pytest.raises(Broken, match="no port is configured"):
        await proving.prove(NODE, client.account, order)
    (authorization_id,) = order.authorization_ids
    found = await world.authorizations.read(client.account, authorization_id)
    assert found.status is AuthorizationStatus.PENDING
    assert {one.status for one in found.challenges} == {"pending"}
