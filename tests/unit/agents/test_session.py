"""The channel, as the agent lives it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agents import wire
from agents.errors import ClocksDiffer, Impostor, NotKnown, Refused, Silent, Unreachable
from agents.identity import Identities, Identity, Waiting
from agents.log import Log
from agents.mailbox import Inbox
from agents.sending import Sender
from agents.session import STREAM_AGAIN_SECONDS, Session
from agents.state import State
from agents.transport import Answer, ClientPair, Stream, Transport
from tests.fakes.node_clock import NodeClock

ANSWER = {
    "challenge": "c", "type": "http-01", "identifier": "a.test", "token": "t",
    "key_authorization": "t.k", "seconds": 60,
}  # fmt: skip


def event(seq: int, kind: str = "answer-challenge", body: Any = ANSWER) -> list[str]:
    """Return the lines of a message."""
    message = wire.Message(f"m{seq}", kind, body, seq)
    return wire.format_event(message).decode().splitlines()


class Lines:
    """A stream that brings lines, then ends as a test says."""

    def __init__(self, lines: list[str], end: Exception) -> None:
        self._lines = list(lines)
        self._end = end
        self.is_closed = False

    def line(self, seconds: float = 0) -> str:
        """Return the next one."""
        if not self._lines:
            raise self._end
        return self._lines.pop(0)

    def interrupt(self) -> None:
        """End."""

    def close(self) -> None:
        """End."""
        self.is_closed = True


class Line:
    """A transport that has streams and polls prepared."""

    def __init__(self) -> None:
        self.streams: list[Lines | Exception] = []
        self.polls: list[wire.Reply | Callable[[], wire.Reply]] = []
        self.queries: list[str] = []

    def open_stream(self, path: str, *, query: str, **_: Any) -> Stream:
        """Open the next stream."""
        self.queries.append(query)
        found = self.streams.pop(0)
        if isinstance(found, Exception):
            raise found
        return cast(Stream, found)

    def call(self, method: str, path: str, *, query: str, **_: Any) -> Answer:
        """Answer the next poll."""
        self.queries.append(query)
        found = self.polls.pop(0)
        return Answer(200, (found() if callable(found) else found).encode())


class Who:
    """Identities that do as they are told."""

    def __init__(self, clock: NodeClock) -> None:
        at = clock.now()
        self.current = Identity("n1", "web", "k", "", "f", at, at + timedelta(days=7))
        self.did: list[str] = []
        self.usable = self.due = False
        self.raises: Exception | None = None
        self.shown: ClientPair | None = None

    def is_usable(self) -> bool:
        """Tell whether it is alive."""
        return self.usable

    def is_renewal_due(self) -> bool:
        """Tell whether it is time."""
        return self.due

    def enrol(self) -> Identity:
        """Enrol."""
        return self._do("enrol")

    def renew(self) -> Identity:
        """Renew."""
        return self._do("renew")

    def _do(self, what: str) -> Identity:
        self.did.append(what)
        if self.raises is not None:
            raise self.raises
        self.usable, self.due = True, False
        return self.current

    def pair(self) -> ClientPair | None:
        """Show what there is."""
        return self.shown

    def signer(self) -> None:
        """Sign nothing."""


class Sending:
    """A sender that is asked and sends nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.patience: list[float] = []
        self.be_patient = self.patience.append

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.asked.append(name)


class Node:
    """A session with all around it."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = NodeClock()
        self.line, self.who, self.sending = Line(), Who(self.clock), Sending()
        state = State(str(tmp_path))
        self.inbox = Inbox(state.inbox, state.own)
        self.got: list[wire.Message] = []
        self.log = io.StringIO()
        self.waits: list[str] = []
        self.session = Session(
            transport=cast(Transport, self.line),
            identities=cast(Identities, self.who),
            inbox=self.inbox,
            sender=cast(Sender, self.sending),
            on_message=self.got.append,
            on_new_node=lambda: self.sending.asked.append("new node"),
            stopped=threading.Event(),
            clock=self.clock,
            log=Log(self.clock, to=self.log),
            waits=self.waits.append,
        )

    def turn(self, *streams: Lines | Exception) -> float:
        """Have one turn and return how long it would wait."""
        self.line.streams += streams
        return self.session.turn()


ENDED = Unreachable("the stream ended")


def test_a_message_is_written_down_acknowledged_and_handed_on(tmp_path: Path) -> None:
    """The next connection asks for what comes after it."""
    node = Node(tmp_path)
    node.turn(Lines([": beat", "", *event(3)], ENDED))
    assert [one.seq for one in node.got] == [3]
    assert node.inbox.waiting() == node.got
    assert node.sending.asked == ["state_anew", "open", "kick", "close"]
    node.turn(ENDED)
    assert node.line.queries == ["after=0", "after=3"]


def test_the_nodes_of_a_wave_are_patient(tmp_path: Path) -> None:
    """As long as the broker lets them, and with nothing else."""
    node = Node(tmp_path)
    pushed = dict.fromkeys(("delivery", "certificate", "chain_pem", "spki_sha256"), "x")
    numbers = dict.fromkeys(("generation", "longest_seconds", "keep_previous_seconds"), 1)
    body = {**pushed, **numbers, "tell_within": 8}
    node.turn(Lines([": beat", *event(3, "certificate", body), *event(4)], ENDED))
    assert 0 < node.sending.patience[0] < 8
    assert node.sending.patience[1:] == [0]


def test_another_node_than_before_begins_anew(tmp_path: Path) -> None:
    """Numbers and generations of the former one say nothing any more."""
    node = Node(tmp_path)
    node.turn(Lines([": beat", *event(3)], ENDED))
    assert "new node" not in node.sending.asked
    node.who.current = replace(node.who.current, node_id="n2")
    node.turn(ENDED)
    assert "new node" in node.sending.asked
    assert node.line.queries[-1] == "after=0"


def test_a_replayed_or_reordered_message_is_handed_on_once(tmp_path: Path) -> None:
    """Its number is no higher."""
    node = Node(tmp_path)
    node.turn(Lines([": beat", *event(3), *event(3), *event(2), *event(4)], ENDED))
    assert [one.seq for one in node.got] == [3, 4]


@pytest.mark.parametrize(
    "lines",
    [
        event(9, "want-csr", {"delivery": "d"}),
        event(9, "sing", {}),
        event(9, "stated", {"instance": "i", "agent": "a", "certificates": []}),
        ["event: other", "data: {}", ""],
    ],
    ids=["members-missing", "unknown-kind", "an-agents-kind", "another-event"],
)
def test_what_cannot_be_used_is_passed_over(tmp_path: Path, lines: list[str]) -> None:
    """What comes after it is taken."""
    node = Node(tmp_path)
    node.turn(Lines([": beat", *lines, *event(10)], ENDED))
    assert [one.seq for one in node.got] == [10]


@pytest.mark.parametrize("data", ["{", "[" * 100_000], ids=["cut", "deep"])
def test_what_is_no_json_ends_the_stream(tmp_path: Path, data: str) -> None:
    """Something in between has garbled it."""
    node = Node(tmp_path)
    assert node.turn(Lines([": beat", f"data: {data}", "", *event(1)], ENDED)) > 0
    assert node.got == []


@pytest.mark.parametrize(
    "silence", [Lines([], TimeoutError()), Silent("no answer within 30 s")], ids=["lines", "head"]
)
def test_a_stream_that_stays_silent_is_polled_instead_and_tried_again_later(
    tmp_path: Path, silence: Any
) -> None:
    """Something in between holds its lines back, or its head already."""
    node = Node(tmp_path)
    node.turn(silence)
    message = wire.Message("m1", "answer-challenge", ANSWER, 1)

    def later() -> wire.Reply:
        node.clock.advance(timedelta(seconds=STREAM_AGAIN_SECONDS))
        return wire.Reply(wire.VERSION)

    node.line.polls = [wire.Reply(wire.VERSION, messages=(message,)), later]
    node.turn()
    assert [one.seq for one in node.got] == [1]
    assert node.line.queries[1:] == ["after=0&wait=0", "after=1&wait=25"]
    node.turn(ENDED)
    assert node.line.queries[-1] == "after=1"


def test_goaway_names_when_to_come_back(tmp_path: Path) -> None:
    """Milliseconds, as event streams have them; a little later, so that a herd spreads."""
    node = Node(tmp_path)
    wait = node.turn(Lines([": beat", "event: goaway", "retry: 4000", "data:", ""], ENDED))
    assert 4.0 <= wait < 6.0


def test_failures_in_a_row_wait_longer_up_to_half_a_minute(tmp_path: Path) -> None:
    """And what the broker asks for is waited for at least."""
    node = Node(tmp_path)
    waits = [node.turn(Unreachable("away")) for _ in range(30)]
    assert all(1 <= wait <= 30 for wait in waits)
    assert node.turn(Unreachable("busy", 90.0)) >= 90.0


def test_who_is_not_the_broker_is_named_as_such(tmp_path: Path) -> None:
    """It is somebody's business at once."""
    node = Node(tmp_path)
    node.turn(Impostor("broker.test:443 is not the broker: self-signed certificate"))
    last = json.loads(node.log.getvalue().splitlines()[-1])
    assert (last["level"], last["event"]) == ("error", "not the broker")


def test_a_node_that_is_not_known_enrols_again(tmp_path: Path) -> None:
    """Soon the first time; if it is refused then, a person has to do something first."""
    node = Node(tmp_path)
    node.who.usable = True
    assert node.turn(NotKnown(401, "unknown", "")) < 30
    node.who.raises = NotKnown(403, "revoked", "")
    assert node.session.turn() >= 30
    node.who.raises = None
    node.turn(ENDED)
    assert node.who.did == ["enrol", "enrol"]


def test_waiting_for_approval_is_no_failure(tmp_path: Path) -> None:
    """It asks again when it was told to."""
    node = Node(tmp_path)
    node.who.raises = Waiting("SHA256:x", 5.0)
    assert node.session.turn() == 5.0


@pytest.mark.parametrize(
    "failure", [Unreachable("away"), Refused(409, "no", "")], ids=["away", "refused"]
)
def test_an_identity_that_is_not_renewed_is_used_as_long_as_it_lives(
    tmp_path: Path, failure: Exception
) -> None:
    """The channel goes on."""
    node = Node(tmp_path)
    node.who.usable = node.who.due = True
    node.who.raises = failure
    node.turn(Lines([": beat", *event(1)], ENDED))
    assert node.who.did == ["renew"]
    assert [one.seq for one in node.got] == [1]


def test_a_renewal_that_the_broker_asks_for_comes_before_its_time(tmp_path: Path) -> None:
    """Whatever the identity's age."""
    node = Node(tmp_path)
    node.who.usable = True
    node.session.renew_identity()
    node.turn(ENDED)
    node.turn(ENDED)
    assert node.who.did == ["renew"]


def test_a_disk_that_is_full_acknowledges_nothing(tmp_path: Path) -> None:
    """The message is sent again, and taken when there is room."""
    node = Node(tmp_path)
    (tmp_path / "inbox").rmdir()
    assert node.turn(Lines([": beat", *event(1)], ENDED)) > 0
    assert node.inbox.taken == 0
    (tmp_path / "inbox").mkdir()
    node.turn(Lines([": beat", *event(1)], ENDED))
    assert node.inbox.taken == 1


def test_a_connection_that_fell_silent_is_given_up(tmp_path: Path) -> None:
    """The other side is gone and nobody said so; it is no reason to poll."""
    node = Node(tmp_path)
    assert node.turn(Lines([": beat", "", *event(1)], TimeoutError())) > 0
    assert "nothing came for 60 s" in node.log.getvalue()
    node.turn(ENDED)
    assert node.line.queries == ["after=0", "after=1"]


def test_a_broker_that_names_a_time_is_left_in_peace_until_then(tmp_path: Path) -> None:
    """Whether the node is known yet or asks to be let in; one that names none is soon tried."""
    node = Node(tmp_path)
    assert node.turn(Unreachable("answered 429 rateLimited: too many requests", 90.0)) >= 90.0
    node.who.raises = Unreachable("answered 429 rateLimited: too many requests", 70.0)
    node.who.usable = False
    assert node.turn() >= 70.0
    fresh = Node(tmp_path / "fresh")
    assert fresh.turn(Unreachable("no route")) < 30.0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Unreachable("no route"), "the broker is away: no route"),
        (Impostor("certificate has expired"), "not the broker: certificate has expired"),
        (Waiting("ab:cd", 30.0), "enrolment waits for approval, fingerprint of the key is ab:cd"),
        (NotKnown(401, "unauthorized", "who"), "the broker does not know this node: "),
        (Refused(403, "unauthorized", "no rule"), "the broker refuses this node: "),
    ],
    ids=["away", "impostor", "approval", "unknown", "refused"],
)
def test_what_is_waited_for_is_told_until_the_broker_is_reached(
    tmp_path: Path, fault: Exception, said: str
) -> None:
    """A pod that does not start says by it why; once connected there is nothing to tell."""
    node = Node(tmp_path)
    node.who.raises = fault
    node.turn()
    (told,) = node.waits
    assert told.startswith(said)
    node.who.raises = None
    node.turn(Lines([": beat"], ENDED))
    assert node.waits[1:] == ["", "the broker is away: the stream ended"]


def test_clocks_that_differ_are_no_reason_to_ask_to_be_let_in(tmp_path: Path) -> None:
    """By the broker's clock the identity may be good, so it is tried, and the fault told."""
    node = Node(tmp_path)
    node.who.raises = ClocksDiffer("the clock of this node says 2026")
    node.who.shown = ClientPair("chain.pem", "key.pem")
    node.turn(Lines([": beat", *event(3)], ENDED))
    assert [one.seq for one in node.got] == [3]
    assert "still tried" in node.log.getvalue()
    assert node.who.did == ["enrol"]


def test_clocks_that_differ_keep_out_who_has_nothing_else_to_show(tmp_path: Path) -> None:
    """Where requests are signed, or TLS did not let it through either."""
    node = Node(tmp_path)
    node.who.raises = ClocksDiffer("the clock of this node says 2026")
    assert node.turn(Lines([": beat", *event(3)], ENDED)) > 0
    assert node.got == []
    node.who.shown = ClientPair("chain.pem", "key.pem")
    node.line.streams.clear()
    node.turn(NotKnown(401, "tls", "certificate expired"))
    assert node.turn(Lines([": beat", *event(3)], ENDED)) > 0
    assert node.got == []
