"""One connection that is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from agents.exchange import Exchange
from agents.kept import Kept

Pair = tuple[Exchange, socket.socket]


@pytest.fixture
def ends() -> Iterator[list[Pair]]:
    """Return two connections with their far ends."""
    made = [socket.socketpair() for _ in range(2)]
    yield [(Exchange(near), far) for near, far in made]
    for near, far in made:
        near.close()
        far.close()


def is_closed(exchange: Exchange) -> bool:
    """Tell whether it was given back to the system."""
    return exchange.socket.fileno() == -1


def test_it_is_taken_by_one_at_a_time(ends: list[Pair]) -> None:
    """Two threads never speak on the same."""
    kept = Kept()
    kept.give("a", ends[0][0])
    assert kept.take("a") is ends[0][0]
    assert kept.take("a") is None


def test_one_is_held_and_no_more(ends: list[Pair]) -> None:
    """The one before is closed."""
    kept = Kept()
    kept.give("a", ends[0][0])
    kept.give("a", ends[1][0])
    assert is_closed(ends[0][0])
    assert kept.take("a") is ends[1][0]


def test_another_way_gets_another_one(ends: list[Pair]) -> None:
    """Another broker or another identity."""
    kept = Kept()
    kept.give("a", ends[0][0])
    assert kept.take("b") is None
    assert is_closed(ends[0][0])


@pytest.mark.parametrize("octets", [b"", b"surprise"], ids=["closed", "speaks"])
def test_one_on_which_something_came_is_not_used_again(ends: list[Pair], octets: bytes) -> None:
    """Nothing was asked, so it has ended or is out of step."""
    kept, (near, far) = Kept(), ends[0]
    kept.give("a", near)
    far.sendall(octets)
    if not octets:
        far.close()
    assert kept.take("a") is None
    assert is_closed(near)


def test_it_is_closed_when_released(ends: list[Pair]) -> None:
    """And there is none then."""
    kept = Kept()
    kept.release()
    kept.give("a", ends[0][0])
    kept.release()
    assert is_closed(ends[0][0])
    assert kept.take("a") is None
