"""Messages on disk."""

from pathlib import Path

import pytest

from agents.mailbox import SENT_AT_ONCE, Inbox, Outbox, new_id
from agents.state import State, StateFault
from agents.wire import Message

WISH = {
    "delivery": "d1",
    "certificate": "www",
    "names": ["www.example.test"],
    "key_kind": "ec-p256",
    "is_new_key": True,
}


def wish(seq: int) -> Message:
    """Return a message of the broker's."""
    return Message(f"m{seq}", "want-csr", WISH, seq)


def inbox(tmp_path: Path) -> Inbox:
    """Return the inbox, as a new process finds it."""
    state = State(str(tmp_path))
    return Inbox(state.inbox, state.own)


def test_a_message_outlives_the_process_until_it_is_done(tmp_path: Path) -> None:
    """It was acknowledged, so nobody sends it again."""
    first = inbox(tmp_path)
    first.begin("n1")
    assert first.take(wish(1))
    again = inbox(tmp_path)
    assert again.taken == 1
    assert again.waiting() == [wish(1)]
    again.done(wish(1))
    assert inbox(tmp_path).waiting() == []


def test_a_message_that_comes_again_is_taken_once(tmp_path: Path) -> None:
    """Replayed, duplicated and re-ordered ones have a number that is no higher."""
    box = inbox(tmp_path)
    taken = [box.take(wish(seq)) is not None for seq in (2, 2, 1, 3)]
    assert taken == [True, False, False, True]


def test_an_unknown_kind_is_counted_and_left_alone(tmp_path: Path) -> None:
    """A newer broker may send it; it would else be sent for ever."""
    box = inbox(tmp_path)
    box.take(Message("m1", "sing", {}, 1))
    assert (box.taken, box.waiting()) == (1, [])


def test_another_node_counts_from_the_beginning(tmp_path: Path) -> None:
    """After an enrolment as a new node the numbers begin anew; the same node goes on."""
    box = inbox(tmp_path)
    box.begin("n1")
    box.take(wish(7))
    assert box.begin("n1") is None
    assert box.taken == 7
    assert box.begin("n2") == "n1"
    assert (box.taken, box.waiting()) == (0, [])


def test_nothing_is_taken_that_cannot_be_written(tmp_path: Path) -> None:
    """Acknowledging it would lose it."""
    box = inbox(tmp_path)
    (tmp_path / "inbox").rmdir()
    with pytest.raises(StateFault):
        box.take(wish(1))
    assert box.taken == 0


def test_what_goes_out_waits_in_its_order_across_restarts(tmp_path: Path) -> None:
    """Until the broker keeps it."""
    state = State(str(tmp_path))
    Outbox(state.outbox).put("challenge-answered", {"challenge": "a"})
    box = Outbox(state.outbox)
    box.put("challenge-answered", {"challenge": "b"})
    named = box.next()
    assert [message.body["challenge"] for _, message in named] == ["a", "b"]
    box.drop(named[0][0])
    assert len(Outbox(state.outbox)) == 1


def test_one_that_cannot_be_taken_now_keeps_no_other_back(tmp_path: Path) -> None:
    """It goes behind the others."""
    box = Outbox(State(str(tmp_path)).outbox)
    for name in "ab":
        box.put("challenge-answered", {"challenge": name})
    box.put_behind(box.next()[0][0])
    assert [message.body["challenge"] for _, message in box.next()] == ["b", "a"]


def test_a_request_is_bounded_in_number_and_size(tmp_path: Path) -> None:
    """However much waits; a single one goes out whatever its size."""
    box = Outbox(State(str(tmp_path)).outbox)
    big = "x" * 1_500_000
    for number in range(3):
        box.put("challenge-failed", {"challenge": str(number), "reason": big})
    assert len(box.next()) == 1
    small = Outbox(State(str(tmp_path / "small")).outbox)
    for number in range(SENT_AT_ONCE + 3):
        small.put("challenge-answered", {"challenge": str(number)})
    assert len(small.next()) == SENT_AT_ONCE


def test_ids_differ_and_fit() -> None:
    """22 characters for 128 bits."""
    assert len({new_id() for _ in range(100)}) == 100
    assert len(new_id()) == 22
