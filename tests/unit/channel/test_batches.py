"""What agents tell: each message for itself, in the workflows' values."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from agents import wire
from broker.channel.batches import Batches, read_batch
from broker.channel.connections import LiveConnections
from broker.channel.ports import ChannelRooms
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import Event
from broker.issuance.node_ports import DeliveryStage, NodeMessage, NodeRecord, Receipt, Statement
from broker.issuance.node_refusals import NodeRefusals
from broker.protocol.problems import Problem, ProblemType
from tests.contract.storage.test_nodes import node
from tests.fakes.clock import FakeClock


class FakeDesk:
    """Everything that a batch is handed to, in memory."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.events: list[Event] = []
        self.queued: list[NodeMessage] = []
        self.acks: list[int] = []
        self.seen: list[tuple[str | None, str | None]] = []
        self.counts: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self.misfits: set[str] = set()
        """Fingerprints that no receipt may have."""

    def _tell(self, *what: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append(what)

    # reports

    async def stated(self, who: NodeRecord, statements: Sequence[Statement]) -> None:
        self._tell("stated", *statements)

    async def adopted(self, who: NodeRecord, name: str, chain_pem: bytes) -> None:
        self._tell("adopted", name, chain_pem)

    async def offered(self, who: NodeRecord, delivery_id: str, csr_der: bytes) -> None:
        self._tell("offered", delivery_id, csr_der)

    async def receipted(self, who: NodeRecord, receipts: Sequence[Receipt]) -> None:
        if any(one.fingerprint in self.misfits for one in receipts):
            raise Problem(ProblemType.MALFORMED, "the receipt is for another certificate")
        self._tell("receipted", *receipts)

    async def unable(self, who: NodeRecord, delivery: str, why: str, *, is_final: bool) -> None:
        self._tell("unable", delivery, why, is_final)

    def answered(self, node_id: str, challenge: str) -> None:
        self._tell("answered", node_id, challenge)

    def failed(self, node_id: str, challenge: str, reason: str) -> None:
        self._tell("failed", node_id, challenge, reason)

    async def wanted(self, who: NodeRecord, bundles: Sequence[str]) -> None:
        self._tell("wanted", *bundles)

    async def installed(self, node_id: str, bundle: str, version: int) -> None:
        self._tell("installed", bundle, version)

    # store, observer

    async def acknowledge(self, node_id: str, seq: int) -> None:
        self.acks.append(seq)

    async def queue_messages(self, messages: Sequence[NodeMessage]) -> None:
        self.queued.extend(messages)

    async def note_seen(
        self, node_id: str, at: datetime, *, agent_version: str | None, wire_version: str | None
    ) -> None:
        self.seen.append((agent_version, wire_version))

    async def append(self, event: Event, *, durable: bool) -> None:
        self.events.append(event)

    def sent(self, kind: str) -> None: ...

    def received(self, kind: str, outcome: str) -> None:
        self.counts.append((kind, outcome))


def batches() -> tuple[Batches, FakeDesk]:
    """Return what takes batches in."""
    desk: Any = FakeDesk()
    clock = FakeClock()
    rooms = ChannelRooms(
        store=desk, clock=clock, connections=LiveConnections(limit=10), joining=desk,
        reports=desk, challenges=desk, bundles=desk, observer=desk,
        refusals=NodeRefusals(desk, clock),
    )  # fmt: skip
    return Batches(rooms), desk


def body(*messages: dict[str, Any], ack: int = 0, version: str = "1.0") -> bytes:
    """Return a batch as it is posted."""
    return json.dumps({"version": version, "ack": ack, "messages": list(messages)}).encode()


def message(kind: str, number: int = 1, **members: Any) -> dict[str, Any]:
    """Return one message."""
    return {"id": f"m{number}", "kind": kind, "body": members}


AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECEIPT = {
    "delivery": "d1", "certificate": "www", "generation": 3, "stage": "seen",
    "fingerprint": "ab", "at": int(AT.timestamp()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "members", "told"),
    [
        ("adopted", {"certificate": "www", "chain_pem": "PEM"}, ("adopted", "www", b"PEM")),
        ("csr", {"delivery": "d1", "certificate": "www", "csr_der": wire.encode_bytes(b"csr")},
         ("offered", "d1", b"csr")),
        ("receipt", {**RECEIPT, "note": "well\x1b"},
         ("receipted", Receipt(delivery_id="d1", generation=3, stage=DeliveryStage.SEEN,
                               fingerprint="ab", at=AT, note="well\\u001b"))),
        ("unable", {"delivery": "d1", "reason": "disk full", "is_final": False},
         ("unable", "d1", "disk full", False)),
        ("challenge-answered", {"challenge": "c1"}, ("answered", "id-1", "c1")),
        ("challenge-failed", {"challenge": "c1", "reason": "no"}, ("failed", "id-1", "c1", "no")),
        ("bundle-installed", {"bundle": "anchors", "version": 4}, ("installed", "anchors", 4)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_message_becomes_a_value_of_the_workflows(
    kind: str, members: dict[str, Any], told: tuple[Any, ...]
) -> None:
    """Of the node that sent it, and of no other."""
    made, desk = batches()
    reply = await made.take(node(), body(message(kind, **members)))
    assert (reply.accepted, reply.refused) == (("m1",), ())
    assert desk.told == [told]
    assert desk.counts == [(kind, "accepted")]


async def test_statement_is_read_and_what_is_wrong_with_one_is_told_the_node() -> None:
    """Its neighbours are renewed all the same."""
    made, desk = batches()
    good = {
        "name": "www", "names": ["WWW.Example.com", "192.0.2.1"], "key_kind": "ec-p256",
        "fingerprint": "ab", "not_after": int(AT.timestamp()), "generation": 2, "is_seen": True,
    }  # fmt: skip
    bad = {"name": "odd", "names": ["not a name"], "key_kind": "ec-p256"}
    told = message("stated", instance="i", agent="1.2", certificates=[good, bad],
                   bundles=[{"name": "crls", "version": 0}])  # fmt: skip
    reply = await made.take(node(), body(told))
    assert reply.accepted == ("m1",)
    ((_, statement), bundles) = desk.told
    assert [one.value for one in statement.identifiers] == ["www.example.com", "192.0.2.1"]
    assert (statement.not_after, statement.generation, statement.is_seen) == (AT, 2, True)
    assert bundles == ("wanted", "crls")
    (refused,) = desk.queued
    assert (refused.kind, refused.body["certificate"]) == ("refused", "odd")
    wire.parse_message({"id": "x", "kind": refused.kind, "body": dict(refused.body)})
    assert desk.seen == [("1.2", "1.0")]


async def test_unknown_kind_is_kept_and_left_alone() -> None:
    """A newer agent is not held up by an older broker."""
    made, desk = batches()
    reply = await made.take(node(), body(message("teleport", to="mars")))
    assert (reply.accepted, desk.told) == (("m1",), [])


@pytest.mark.parametrize(
    ("fault", "is_final"),
    [
        (Problem(ProblemType.UNAUTHORIZED, "no such delivery of this node"), True),
        (Unreachable("the disk is full"), False),
        (Conflict("somebody was first"), False),
        (Broken("the store is damaged"), False),
    ],
    ids=["refused", "away", "raced", "broken"],
)
async def test_refusal_says_whether_to_send_again(fault: Exception, is_final: bool) -> None:
    """And tells nothing of our insides when it is our fault."""
    made, desk = batches()
    desk.fault = fault
    reply = await made.take(node(), body(message("challenge-answered", challenge="c1")))
    (refusal,) = reply.refused
    assert refusal.is_final is is_final
    assert ("no such delivery" in refusal.reason) is is_final
    assert len(desk.events) == (1 if is_final else 0)


async def test_misfit_among_others_is_refused_for_itself() -> None:
    """Its neighbours are taken in."""
    made, desk = batches()
    good = message("challenge-answered", 1, challenge="c1")
    bad = message("receipt", 2, delivery=7)
    odd = message("receipt", 3, **{**RECEIPT, "stage": "teleported"})
    late = message("receipt", 4, **{**RECEIPT, "at": 10**17})
    huge = message("receipt", 5, **{**RECEIPT, "generation": 10**30})
    less = message("bundle-installed", 6, bundle="crls", version=-1)
    reply = await made.take(node(), body(good, bad, odd, late, huge, less))
    assert reply.accepted == ("m1",)
    assert {one.id for one in reply.refused} == {"m2", "m3", "m4", "m5", "m6"}
    assert all(one.is_final for one in reply.refused)
    assert desk.told == [("answered", "id-1", "c1")]


@pytest.mark.parametrize(
    "octets",
    [b"", b"[]", b"{}", body(version="2.0"), body(ack=10**30), body({"kind": "csr"}), b"[" * 5000,
     json.dumps({"version": "1.0", "messages": [message("x", n) for n in range(257)]}).encode()],
    ids=["empty", "list", "no version", "major", "huge ack", "no id", "deep", "many"],
)  # fmt: skip
async def test_unreadable_batch_is_refused_whole(octets: bytes) -> None:
    """With what is wrong with it."""
    made, desk = batches()
    with pytest.raises(Problem) as refused:
        await made.take(node(), octets)
    assert refused.value.status == 400
    assert desk.told == []


async def test_acknowledgement_is_kept_when_it_is_new() -> None:
    """An old one costs no write."""
    made, desk = batches()
    await made.take(node(acknowledged=5), body(ack=5))
    await made.take(node(acknowledged=5), body(ack=7))
    assert desk.acks == [7]


def test_readable_batch_has_no_refusals() -> None:
    """The ordinary case reads it once."""
    batch, refusals = read_batch(body(message("teleport")))
    assert (len(batch.messages), refusals) == (1, ())


def receipt(number: int, stage: str, delivery: str = "d1", **changes: Any) -> dict[str, Any]:
    """Return a receipt as it is posted."""
    return message(
        "receipt", number, **{**RECEIPT, "stage": stage, "delivery": delivery, **changes}
    )


def told_together(desk: FakeDesk) -> list[tuple[str, ...]]:
    """Return what was handed on in one go, by delivery and stage."""
    return [tuple(f"{one.delivery_id} {one.stage}" for one in told[1:]) for told in desk.told]


async def test_receipts_of_one_delivery_are_handed_on_together() -> None:
    """In their order, and only those that follow each other; all are answered and counted."""
    made, desk = batches()
    reply = await made.take(
        node(),
        body(receipt(1, "checked"), receipt(2, "installed"), receipt(3, "checked", "d2"),
             receipt(4, "reloaded"), receipt(5, "seen")),
    )  # fmt: skip
    assert (reply.accepted, reply.refused) == (("m1", "m2", "m3", "m4", "m5"), ())
    assert told_together(desk) == [
        ("d1 checked", "d1 installed"), ("d2 checked",), ("d1 reloaded", "d1 seen"),
    ]  # fmt: skip
    assert desk.counts == [("receipt", "accepted")] * 5


async def test_receipt_at_fault_is_refused_alone() -> None:
    """Those that were handed on with it are handed on again, each by itself, and kept."""
    made, desk = batches()
    desk.misfits = {"00"}
    reply = await made.take(
        node(),
        body(receipt(1, "checked"), receipt(2, "installed", fingerprint="00"), receipt(3, "seen"),
             receipt(4, "seen", at=10**17)),
    )  # fmt: skip
    assert reply.accepted == ("m1", "m3")
    assert [(one.id, one.is_final) for one in reply.refused] == [("m2", True), ("m4", True)]
    assert told_together(desk) == [("d1 checked",), ("d1 seen",)]
    assert desk.counts == [
        ("receipt", "accepted"), ("receipt", "refused"), ("receipt", "accepted"),
        ("receipt", "refused"),
    ]  # fmt: skip


async def test_receipts_that_cannot_be_kept_now_are_all_to_be_sent_again() -> None:
    """None of them is lost."""
    made, desk = batches()
    desk.fault = Unreachable("the disk is full")
    reply = await made.take(node(), body(receipt(1, "checked"), receipt(2, "seen")))
    assert reply.accepted == ()
    assert [(one.id, one.is_final) for one in reply.refused] == [("m1", False), ("m2", False)]
