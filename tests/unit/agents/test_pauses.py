"""Waits between tries."""

import pytest

from agents.pauses import Pauses, draw


def test_waits_grow_up_to_the_longest_and_never_pass_it() -> None:
    """From 1 s to 30 s, whatever is drawn."""
    longest = Pauses(draw=lambda: 0.999)
    waits = [longest.next() for _ in range(8)]
    assert waits == sorted(waits)
    assert 3 < waits[0] < 4.1
    assert 29 < waits[-1] <= 30


def test_the_least_draw_waits_the_shortest_time_at_every_try() -> None:
    """Full jitter: the whole span is drawn from, so that a herd spreads."""
    shortest = Pauses(draw=lambda: 0.0)
    assert {shortest.next() for _ in range(5)} == {1.0}


def test_what_the_broker_asks_for_is_waited_for_at_least() -> None:
    """Retry-After is a lower bound, and spread a little past it."""
    assert Pauses(draw=lambda: 0.5).next(120.0) == pytest.approx(120.5)


def test_a_good_connection_makes_waits_short_again() -> None:
    """The next outage begins anew."""
    pauses = Pauses(draw=lambda: 0.999)
    for _ in range(5):
        pauses.next()
    pauses.reset()
    assert pauses.next() < 4.1


def test_draws_lie_between_nought_and_one() -> None:
    """And differ, or nothing would be spread."""
    drawn = {draw() for _ in range(50)}
    assert len(drawn) == 50
    assert all(0 <= one < 1 for one in drawn)
