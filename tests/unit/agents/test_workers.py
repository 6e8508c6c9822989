"""Threads that do deliveries."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from agents.workers import MAX_GROUP, Workers
from tests.fakes.node_clock import NodeClock

SECONDS = 20.0
"""Longest wait for what comes at once, in seconds."""


def test_what_comes_while_its_key_is_busy_is_done_together_afterwards() -> None:
    """Certificates that share a server are reloaded once for all of them."""
    groups: list[list[int]] = []
    is_begun, may_end = threading.Event(), threading.Event()

    def do(key: str, items: list[int]) -> None:
        groups.append(items)
        is_begun.set()
        assert may_end.wait(SECONDS)

    workers = Workers(do, limit=4, clock=NodeClock())
    workers.submit("nginx", 1)
    assert is_begun.wait(SECONDS)
    for item in (2, 3, 4):
        workers.submit("nginx", item)
    assert groups == [[1]]
    may_end.set()
    assert workers.join(SECONDS) == 0
    assert groups == [[1], [2, 3, 4]]


def test_one_key_never_waits_for_another() -> None:
    """One delivery that hangs delays no other."""
    hangs, done = threading.Event(), threading.Event()

    def do(key: str, items: list[int]) -> None:
        if key == "slow":
            assert hangs.wait(SECONDS)
        else:
            done.set()

    workers = Workers(do, limit=2, clock=NodeClock())
    workers.submit("slow", 1)
    workers.submit("quick", 2)
    assert done.wait(SECONDS)
    hangs.set()
    assert workers.join(SECONDS) == 0


def test_no_more_are_under_way_than_the_limit() -> None:
    """A host of 5,000 certificates starts a few children at once."""
    running, most = 0, 0
    lock = threading.Lock()

    def do(key: str, items: list[int]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    workers = Workers(do, limit=3, clock=NodeClock())
    for number in range(60):
        workers.submit(str(number), number)
    assert workers.join(SECONDS) == 0
    assert 1 <= most <= 3


def test_a_group_is_bounded() -> None:
    """And what is left over comes next, in its order."""
    groups: list[list[int]] = []
    is_begun, may_end = threading.Event(), threading.Event()

    def do(key: str, items: list[int]) -> None:
        groups.append(items)
        is_begun.set()
        assert may_end.wait(SECONDS)

    workers = Workers(do, limit=1, clock=NodeClock())
    workers.submit("nginx", -1)
    assert is_begun.wait(SECONDS)
    for item in range(MAX_GROUP + 5):
        workers.submit("nginx", item)
    may_end.set()
    assert workers.join(SECONDS) == 0
    assert [len(group) for group in groups] == [1, MAX_GROUP, 5]
    assert [item for group in groups[1:] for item in group] == list(range(MAX_GROUP + 5))


def test_work_that_breaks_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is free again, and the next item is done."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    done: list[int] = []
    failed = threading.Event()

    def do(key: str, items: list[int]) -> None:
        if items == [1]:
            failed.set()
            raise RuntimeError
        done.extend(items)

    workers = Workers(do, limit=1, clock=NodeClock())
    workers.submit("a", 1)
    assert failed.wait(SECONDS)
    assert workers.join(SECONDS) == 0
    workers.submit("a", 2)
    assert workers.join(SECONDS) == 0
    assert done == [2]


def test_groups_of_a_key_lie_apart_as_long_as_is_wanted() -> None:
    """Another key goes on meanwhile."""
    clock = NodeClock()
    done: list[str] = []
    workers = Workers(
        lambda _, items: done.extend(items),
        limit=1,
        clock=clock,
        apart=lambda key: 0.05 if key == "nginx" else 0.0,
    )
    workers.submit("nginx", "first")
    workers.submit("other", "other")
    assert workers.join(SECONDS) == 0
    workers.submit("nginx", "second")
    assert workers.join(0) == 1
    clock.advance(timedelta(seconds=1))
    workers.submit("more", "more")
    assert workers.join(SECONDS) == 0
    assert set(done[:2]) == {"first", "other"}
    assert set(done[2:]) == {"second", "more"}


def test_after_a_stop_nothing_is_begun() -> None:
    """What waits is in the inbox, and is done at the next start."""
    done: list[int] = []
    workers = Workers(lambda _, items: done.extend(items), limit=1, clock=NodeClock())
    assert workers.stop(SECONDS) == 0
    workers.submit("a", 1)
    assert done == []
