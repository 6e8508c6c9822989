"""Old and new speak with each other: recorded 1.0, and either side two minor versions ahead."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from agents import wire
from broker.channel.batches import Batches
from broker.channel.connections import LiveConnections
from broker.channel.ports import ChannelRooms
from broker.issuance.node_ports import NodeRecord, Receipt, Statement
from broker.issuance.node_refusals import NodeRefusals
from broker.protocol.problems import Problem
from tests.deployments.node_agents import NodeAgent, Wanted
from tests.fakes.node_world import NodeWorld
from tests.fakes.stand_in_broker import StandInBroker

RECORDED: Final = Path(__file__).resolve().parents[2] / "golden" / "wire" / "1.0"

AHEAD: Final = wire.Version(1, 2)

LATER: Final = {"since_1_2": {"nested": [1, "two", None]}, "hint": "unheard of"}
"""Members that 1.0 does not know."""

DANCE: Final = {"id": "dance-1", "kind": "dance", "body": {"tempo": 120}}
"""A message of a kind that 1.0 does not know."""


def recorded(side: str) -> list[dict[str, Any]]:
    """Return what one side said in 1.0."""
    lines = (RECORDED / f"{side}.jsonl").read_text("ascii").splitlines()
    return [json.loads(line) for line in lines]


def newer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message as a peer two minors ahead might send it."""
    return {**document, **LATER, "body": {**document["body"], **LATER}}


# ------------------------------------------------------------------------------ the vocabulary


@pytest.mark.parametrize("side", ["broker", "node"])
def test_what_was_said_in_1_0_is_read_and_said_again_alike(side: str) -> None:
    """Each recorded message is understood, and comes out as it went in."""
    for document in recorded(side):
        message = wire.parse_message(document)
        assert message.is_known
        assert message.document() == document


def test_every_kind_of_1_0_is_still_there() -> None:
    """Both sides have a recorded message of every kind, so no kind can go by unnoticed."""
    for side, kinds in (("broker", wire.BROKER_KINDS), ("node", wire.NODE_KINDS)):
        assert {one["kind"] for one in recorded(side)} <= set(kinds)
    said = {one["kind"] for one in [*recorded("broker"), *recorded("node")]}
    assert len(said) == 15


def test_frames_of_1_0_are_written_octet_by_octet() -> None:
    """Batch, reply and event have not changed their form."""
    batch = (RECORDED / "batch.json").read_bytes()
    assert wire.parse_batch(batch).encode() == batch
    reply = (RECORDED / "reply.json").read_bytes()
    assert wire.parse_reply(reply).encode() == reply
    events = b"".join(wire.format_event(wire.parse_message(one)) for one in recorded("broker"))
    assert events == (RECORDED / "events.txt").read_bytes()


@pytest.mark.parametrize("side", ["broker", "node"])
def test_members_of_later_versions_are_passed_over(side: str) -> None:
    """What a later minor version adds changes nothing of what 1.0 reads."""
    for document in recorded(side):
        message = wire.parse_message(newer(document))
        assert {name: message.body[name] for name in document["body"]} == document["body"]


def test_no_side_sends_what_is_newer_than_both() -> None:
    """Two minors apart the lower is spoken, whoever is ahead."""
    assert wire.negotiate(wire.Version(1, 0), AHEAD) == wire.Version(1, 0)
    assert wire.negotiate(AHEAD, wire.Version(1, 0)) == wire.Version(1, 0)


# ------------------------------------------------------------------- the broker's real handlers


@dataclass(slots=True)
class Reports:
    """What the handlers were told to do."""

    told: list[tuple[str, Any]] = field(default_factory=list)

    async def stated(self, node: NodeRecord, statements: Sequence[Statement]) -> None:
        """See NodeReports."""
        self.told.append(("stated", [one.name for one in statements]))

    async def adopted(self, node: NodeRecord, name: str, chain_pem: bytes) -> None:
        """See NodeReports."""
        self.told.append(("adopted", name))

    async def offered(self, node: NodeRecord, delivery_id: str, csr_der: bytes) -> None:
        """See NodeReports."""
        self.told.append(("csr", delivery_id))

    async def receipted(self, node: NodeRecord, receipts: Sequence[Receipt]) -> None:
        """See NodeReports."""
        self.told += [("receipt", str(receipt.stage)) for receipt in receipts]

    async def unable(
        self, node: NodeRecord, delivery_id: str, reason: str, *, is_final: bool
    ) -> None:
        """See NodeReports."""
        self.told.append(("unable", delivery_id))

    def answered(self, node_id: str, challenge: str) -> None:
        """See ChallengeReports."""
        self.told.append(("challenge-answered", challenge))

    def failed(self, node_id: str, challenge: str, reason: str) -> None:
        """See ChallengeReports."""
        self.told.append(("challenge-failed", challenge))

    async def wanted(self, node: NodeRecord, bundles: Sequence[str]) -> None:
        """See BundleReports."""

    async def installed(self, node_id: str, bundle: str, version: int) -> None:
        """See BundleReports."""
        self.told.append(("bundle-installed", bundle))

    def sent(self, kind: str) -> None:
        """See ChannelObserver."""

    def received(self, kind: str, outcome: str) -> None:
        """See ChannelObserver."""


TOLD: Final = [
    ("stated", ["www", "mail"]),
    ("adopted", "old"),
    ("csr", "d-1"),
    *[("receipt", stage) for stage in wire.STAGES],
    ("unable", "d-2"),
    ("challenge-answered", "c-1"),
    ("challenge-failed", "c-2"),
    ("bundle-installed", "anchors"),
]
"""What comes of the recorded batch."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The handlers with one node."""

    batches: Batches
    node: NodeRecord
    reports: Reports


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Channel]:
    """The real handlers over a real store; what they tell of is noted."""
    async with NodeWorld(tmp_path) as world:
        reports = Reports()
        rooms = ChannelRooms(
            store=world.store,
            clock=world.clock,
            connections=LiveConnections(limit=10),
            joining=world.joining,
            reports=reports,
            challenges=reports,
            bundles=reports,
            observer=reports,
            refusals=NodeRefusals(world.store, world.clock),
        )
        node = await world.join("web.example.test")
        yield Channel(Batches(rooms), node, reports)


@pytest.fixture
def broker_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this broker speak two minor versions more than 1.0."""
    monkeypatch.setattr(wire, "VERSION", AHEAD)
    monkeypatch.setattr(wire, "VERSIONS", ("1.0", "1.1", "1.2"))
    monkeypatch.setattr(wire.negotiate, "__defaults__", (AHEAD,))


@pytest.mark.usefixtures("broker_ahead")
async def test_agent_of_1_0_is_served_by_a_broker_two_minors_ahead(channel: Channel) -> None:
    """All that an old agent says is taken in, and it is answered in its own version."""
    reply = await channel.batches.take(channel.node, (RECORDED / "batch.json").read_bytes())
    assert reply.version == wire.Version(1, 0)
    assert [one.reason for one in reply.refused] == []
    assert len(reply.accepted) == len(recorded("node"))
    assert channel.reports.told == TOLD


async def test_agent_two_minors_ahead_is_served_by_a_broker_of_1_0(channel: Channel) -> None:
    """What is new is acknowledged and left alone, what is known is done."""
    messages = [DANCE, *(newer(one) for one in recorded("node"))]
    body = json.dumps({"version": str(AHEAD), "ack": 0, "messages": messages, **LATER})
    reply = await channel.batches.take(channel.node, body.encode())
    assert reply.version == wire.Version(1, 0)
    assert [one.reason for one in reply.refused] == []
    assert reply.accepted[0] == "dance-1"
    assert channel.reports.told == TOLD


async def test_agent_of_another_major_is_told_so(channel: Channel) -> None:
    """Nothing of it is taken in."""
    body = (RECORDED / "batch.json").read_bytes().replace(b'"1.0"', b'"2.0"', 1)
    with pytest.raises(Problem, match=r"wire version 2\.0 cannot be spoken with"):
        await channel.batches.take(channel.node, body)
    assert channel.reports.told == []


# ------------------------------------------------------------------------------- the real agent


@pytest.mark.e2e
@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
async def test_agent_of_1_0_is_renewed_by_a_newer_broker(version: str, tmp_path: Path) -> None:
    """A real agent passes over what it does not know and installs what it is sent."""
    extra = {} if version == "1.0" else LATER
    async with StandInBroker(tmp_path / "broker", version=version, extra=extra) as broker:
        directory = tmp_path / "pair"
        wanted = Wanted(
            name="www", names=["www.example.test"], directory=directory, expects=broker.ca_anchors
        )
        agent = NodeAgent(
            tmp_path / "agent",
            "web.example.test",
            url=broker.url,
            anchors=broker.anchors,
            token="a token",
            wanted=[wanted],
        )
        async with agent:
            await broker.hear("stated")
            await broker.send("dance", {"tempo": 120})
            asked = {"delivery": "d-1", "certificate": "www", "names": ["www.example.test"]}
            await broker.send("want-csr", {**asked, "key_kind": "ec-p256", "is_new_key": True})
            (csr,) = await broker.hear("csr")
            chain, spki = broker.issue(
                wire.decode_bytes(csr.body["csr_der"], "csr_der"), ["www.example.test"]
            )
            sent = {"delivery": "d-1", "certificate": "www", "generation": 1, "chain_pem": chain}
            limits = {"longest_seconds": 90 * 86_400, "keep_previous_seconds": 0}
            number = await broker.send("certificate", {**sent, **limits, "spki_sha256": spki})
            await broker.hear("receipt", where=lambda one: one.body["stage"] == "seen")
            await broker.acknowledged(number)
        assert (directory / "fullchain.pem").read_text("ascii").startswith(chain)
        assert {str(batch.version) for batch in broker.batches} == {"1.0"}
