"""Sending what the outbox holds."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agents import wire
from agents.errors import Refused, Unreachable
from agents.identity import Identities
from agents.log import Log
from agents.mailbox import Inbox, Outbox
from agents.sending import UNTOLD, Sender, patience_of
from agents.state import State
from agents.transport import Answer, Transport
from broker.channel.feeds import WINDOW
from tests.fakes.node_clock import NodeClock

Judge = Callable[[wire.Batch], wire.Reply]


class Line:
    """A broker's answer to batches."""

    def __init__(self) -> None:
        self.batches: list[wire.Batch] = []
        self.judge: Judge = keep_all
        self.arrived = threading.Event()
        self.released = threading.Event()

    def release(self) -> None:
        """Close what is kept."""
        self.released.set()

    def call(self, method: str, path: str, *, body: bytes, **_: Any) -> Answer:
        """Take a batch."""
        batch = wire.parse_batch(body)
        self.batches.append(batch)
        reply = self.judge(batch)
        self.arrived.set()
        return Answer(200, reply.encode())


class Nobody:
    """An identity of no interest."""

    def pair(self) -> None:
        """Show nothing."""

    def signer(self) -> None:
        """Sign nothing."""


def keep_all(batch: wire.Batch) -> wire.Reply:
    """Keep every message."""
    return wire.Reply(wire.VERSION, tuple(one.id for one in batch.messages))


class Node:
    """A sender with its boxes."""

    def __init__(self, tmp_path: Path, *, keep_seconds: float = 0.0) -> None:
        state = State(str(tmp_path))
        self.line = Line()
        self.inbox = Inbox(state.inbox, state.own)
        self.outbox = Outbox(state.outbox)
        self.stopped = threading.Event()
        self.sender = Sender(
            transport=cast(Transport, self.line),
            identities=cast(Identities, Nobody()),
            inbox=self.inbox,
            outbox=self.outbox,
            statement=lambda: {"instance": "i", "agent": "0.1", "certificates": []},
            stopped=self.stopped,
            log=Log(NodeClock(), to=io.StringIO()),
            keep_seconds=keep_seconds,
        )
        self.outbox.on_put = self.sender.kick

    def put(self, name: str) -> None:
        """Put a message into the outbox."""
        self.outbox.put("challenge-answered", {"challenge": name})

    def tell(self, stage: str) -> None:
        """Put a receipt into the outbox."""
        named = {"delivery": "d", "certificate": "c", "fingerprint": "f"}
        self.outbox.put("receipt", {**named, "generation": 1, "stage": stage, "at": 1})

    def greet(self) -> None:
        """Reach the broker, with an acknowledgement of nothing."""
        self.sender.open()
        assert self.line.arrived.wait(60)
        self.line.arrived.clear()

    def put_any(self) -> None:
        """Put some message into the outbox."""
        self.put("any")

    def state(self) -> None:
        """Have the node's statement sent."""
        self.sender.state_anew()

    def take(self) -> None:
        """Take a message in that nothing answers."""
        self.inbox.take(wire.Message("m", "renew-identity", {}, 5))
        self.sender.kick()


def names(batch: wire.Batch) -> list[str]:
    """Return what is in a batch, by kind or challenge."""
    return [str(one.body.get("challenge", one.kind)) for one in batch.messages]


def test_what_the_broker_keeps_is_forgotten(tmp_path: Path) -> None:
    """The statement goes first, and what has come in is acknowledged."""
    node = Node(tmp_path)
    node.put("a")
    node.inbox.take(wire.Message("m", "renew-identity", {}, 5))
    node.sender.state_anew()
    node.sender.send_once()
    assert names(node.line.batches[0]) == ["stated", "a"]
    assert node.line.batches[0].ack == 5
    assert len(node.outbox) == 0


def test_what_is_refused_for_good_is_not_sent_again(tmp_path: Path) -> None:
    """And what cannot be taken now is, behind the others."""
    node = Node(tmp_path)
    for name in "abc":
        node.put(name)

    def judge(batch: wire.Batch) -> wire.Reply:
        a, b, c = (one.id for one in batch.messages)
        refused = (wire.Refusal(a, "no", is_final=True), wire.Refusal(b, "later", is_final=False))
        return wire.Reply(wire.VERSION, (c,), refused)

    node.line.judge = judge
    with pytest.raises(Unreachable):
        node.sender.send_once()
    assert [message.body["challenge"] for _, message in node.outbox.next()] == ["b"]


def test_a_statement_that_did_not_arrive_is_made_anew(tmp_path: Path) -> None:
    """It tells how things stand when it is sent."""
    node = Node(tmp_path)
    node.line.judge = lambda _: wire.Reply(wire.VERSION)
    node.sender.state_anew()
    with pytest.raises(Unreachable):
        node.sender.send_once()
    node.line.judge = keep_all
    node.sender.send_once()
    first, second = (batch.messages[0] for batch in node.line.batches)
    assert first.kind == second.kind == "stated"
    assert first.id != second.id


def test_an_answer_of_another_major_version_is_no_answer(tmp_path: Path) -> None:
    """Nothing is dropped for it."""
    node = Node(tmp_path)
    node.put("a")
    node.line.judge = lambda batch: wire.Reply(wire.Version(2, 0), keep_all(batch).accepted)
    with pytest.raises(Unreachable, match="cannot be spoken with"):
        node.sender.send_once()
    assert len(node.outbox) == 1


def test_nothing_is_sent_before_the_broker_is_reached(tmp_path: Path) -> None:
    """Then all of it is, by a thread that ends with its work."""
    node = Node(tmp_path)
    node.put("a")
    assert node.line.batches == []
    node.sender.open()
    assert node.line.arrived.wait(60)
    assert names(node.line.batches[0]) == ["a"]
    node.stopped.set()


def test_one_message_that_spoils_a_batch_is_found_and_given_up(tmp_path: Path) -> None:
    """The others arrive."""
    node = Node(tmp_path)
    arrived: list[str] = []

    def judge(batch: wire.Batch) -> wire.Reply:
        if "bad" in names(batch):
            raise Refused(400, "malformed", "")
        arrived.extend(names(batch))
        return keep_all(batch)

    node.line.judge = judge
    for name in ("a", "bad", "b"):
        node.put(name)
    while len(node.outbox):
        try:
            node.sender.send_once()
        except Refused:
            node.sender.single_out()
    assert arrived == ["a", "b"]


def test_the_connection_is_released_when_nothing_waits(tmp_path: Path) -> None:
    """An agent that waits is small; what comes later begins anew."""
    node = Node(tmp_path)
    node.sender.open()
    for name in "ab":
        node.line.released.clear()
        node.put(name)
        assert node.line.released.wait(60)
    assert [names(batch) for batch in node.line.batches] == [["a"], ["b"]]


def test_the_connection_is_released_when_the_session_ends(tmp_path: Path) -> None:
    """Whatever time it had left; the identity may be another one next time."""
    node = Node(tmp_path, keep_seconds=1e6)
    node.sender.open()
    node.put("a")
    assert node.line.arrived.wait(60)
    node.sender.close()
    assert node.line.released.wait(60)


def test_who_sends_stays_as_long_as_the_connection_is_kept(tmp_path: Path) -> None:
    """One thread sends what comes meanwhile."""
    node = Node(tmp_path, keep_seconds=1e6)
    node.sender.open()
    senders = set()

    def judge(batch: wire.Batch) -> wire.Reply:
        senders.add(threading.get_ident())
        return keep_all(batch)

    node.line.judge = judge
    for name in "ab":
        node.line.arrived.clear()
        node.put(name)
        assert node.line.arrived.wait(60)
    assert len(senders) == 1
    assert not node.line.released.is_set()
    node.sender.close()


def test_an_acknowledgement_travels_with_the_answer_that_follows(tmp_path: Path) -> None:
    """A CSR waits for nothing, and takes along what waits for company."""
    node = Node(tmp_path)
    node.inbox.take(wire.Message("m", "renew-identity", {}, 5))
    node.outbox.put("csr", {"delivery": "d", "certificate": "c", "csr_der": "AA"})
    node.sender.open()
    assert node.line.arrived.wait(60)
    (batch,) = node.line.batches
    assert (names(batch), batch.ack) == (["csr"], 5)


def test_an_acknowledgement_goes_alone_where_nothing_follows(tmp_path: Path) -> None:
    """The broker shall not take the node for deaf."""
    node = Node(tmp_path)
    node.inbox.take(wire.Message("m", "renew-identity", {}, 5))
    node.sender.open()
    assert node.line.arrived.wait(60)
    assert (node.line.batches[0].messages, node.line.batches[0].ack) == ((), 5)


def test_stages_of_a_delivery_travel_with_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request costs the broker more than what is in it."""
    monkeypatch.setattr("agents.sending.STAGES_SECONDS", 3600.0)
    node = Node(tmp_path)
    node.greet()
    for stage in ("checked", "installed", "reloaded", "seen"):
        node.tell(stage)
    assert node.line.arrived.wait(60)
    assert [one.body["stage"] for one in node.line.batches[1].messages] == [
        "checked",
        "installed",
        "reloaded",
        "seen",
    ]


def test_stages_whose_end_takes_long_are_told_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes minutes to be reloaded is seen to be reloading."""
    monkeypatch.setattr("agents.sending.STAGES_SECONDS", 0.01)
    node = Node(tmp_path)
    node.greet()
    node.tell("installed")
    assert node.line.arrived.wait(60)
    assert names(node.line.batches[1]) == ["receipt"]


@pytest.mark.parametrize("is_refused", [True, False], ids=["each goes alone", "it is full"])
def test_a_batch_that_can_take_no_more_waits_for_no_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_refused: bool
) -> None:
    """What follows could not travel with it."""
    monkeypatch.setattr("agents.sending.STAGES_SECONDS", 3600.0)
    monkeypatch.setattr("agents.sending.SENT_AT_ONCE", 2)
    node = Node(tmp_path)
    node.greet()
    if is_refused:
        node.sender.single_out()
    stages = ("checked",) if is_refused else ("checked", "installed")
    for stage in stages:
        node.tell(stage)
    assert node.line.arrived.wait(60)
    assert tuple(one.body["stage"] for one in node.line.batches[1].messages) == stages


def test_nothing_else_waits_for_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement, a message of another kind, and an acknowledgement go as they did."""
    monkeypatch.setattr("agents.sending.STAGES_SECONDS", 3600.0)
    for number, begin in enumerate((Node.put_any, Node.state, Node.take)):
        node = Node(tmp_path / str(number))
        node.greet()
        begin(node)
        assert node.line.arrived.wait(60)


STAGES = ("checked", "installed", "reloaded")


def test_a_patient_node_tells_what_went_well_together_and_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wave of thousands does not tell at once: nothing goes before the time, also no
    acknowledgement, and then all of it goes in one request."""
    monkeypatch.setattr("agents.sending.COMPANY_SECONDS", 0.0)
    monkeypatch.setattr("agents.sending.STAGES_SECONDS", 0.0)
    node = Node(tmp_path)
    node.greet()
    begun = time.monotonic()
    node.sender.be_patient(1.0)
    node.take()
    for stage in (*STAGES, "seen"):
        node.tell(stage)
    assert node.line.arrived.wait(60)
    assert time.monotonic() - begun >= 1.0
    assert [one.body["stage"] for one in node.line.batches[1].messages] == [*STAGES, "seen"]
    assert node.line.batches[1].ack == 5


def restored(node: Node) -> None:
    """Tell that the former certificate was put back."""
    node.tell("restored")


def offered(node: Node) -> None:
    """Send a CSR."""
    node.outbox.put("csr", {"delivery": "d", "certificate": "c", "csr_der": "AA"})


@pytest.mark.parametrize("urgent", [restored, offered, Node.put_any, Node.state])
def test_nothing_else_is_patient(tmp_path: Path, urgent: Callable[[Node], None]) -> None:
    """What went wrong is told at once, for the wave has to halt; so is all else, and it takes along
    what has been waiting."""
    node = Node(tmp_path)
    node.greet()
    node.sender.be_patient(3600.0)
    node.tell("checked")
    urgent(node)
    assert node.line.arrived.wait(60)
    assert "receipt" in names(node.line.batches[1])
    assert len(node.line.batches[1].messages) == 2


def test_a_patient_node_acknowledges_before_the_broker_stops_sending(tmp_path: Path) -> None:
    """The broker sends so many ahead and no more, and a host may wait for thousands."""
    node = Node(tmp_path)
    node.greet()
    node.sender.be_patient(3600.0)
    for seq in range(1, UNTOLD + 1):
        node.inbox.take(wire.Message(f"m{seq}", "renew-identity", {}, seq))
        node.sender.kick()
    assert node.line.arrived.wait(60)
    assert node.line.batches[1].ack == UNTOLD
    assert UNTOLD <= WINDOW // 2


def test_patience_is_not_made_longer_while_it_lasts(tmp_path: Path) -> None:
    """A host of thousands of certificates would tell nothing for as long as others come."""
    node = Node(tmp_path)
    node.greet()
    node.sender.be_patient(0.5)
    node.sender.be_patient(3600.0)
    node.tell("seen")
    assert node.line.arrived.wait(60)
    assert names(node.line.batches[1]) == ["receipt"]


def test_a_node_that_is_to_stop_does_not_wait_for_its_patience(tmp_path: Path) -> None:
    """What it has to tell lies on disk, unless it was told just then."""
    node = Node(tmp_path)
    node.greet()
    node.sender.be_patient(3600.0)
    node.tell("seen")
    node.line.released.clear()
    node.sender.close()
    assert node.line.released.wait(60)
    assert len(node.outbox) + sum(len(batch.messages) for batch in node.line.batches) == 1


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("certificate", 8, 4.0), ("certificate", 10**9, 30.0), ("certificate", 0, 0.0),
        ("certificate", -5, 0.0), ("certificate", "8", 0.0), ("certificate", None, 0.0),
        ("certificate", [8], 0.0), ("want-csr", 8, 0.0),
    ],
)  # fmt: skip
def test_patience_is_drawn_from_what_the_broker_leaves(
    kind: str, asked: object, expected: float
) -> None:
    """Within bounds of the node's own; what makes no sense is none."""
    message = wire.Message("m", kind, {} if asked is None else {"tell_within": asked}, 1)
    assert patience_of(message, draw=lambda: 0.5) == expected
