"""When a CA may be asked again."""

from datetime import timedelta

import pytest

from broker.issuance.errors import Unreachable
from broker.upstreams.budget import FIRST_HOLD, MAX_HOLDS, MAX_UNNAMED_HOLD, Budget
from tests.fakes.clock import FakeClock


def held(budget: Budget, account: str, subject: str | None = None) -> bool:
    """Return whether a request has to wait."""
    try:
        budget.verify_open(account, subject)
    except Unreachable:
        return True
    return False


def test_after_503_nobody_asks_before_the_time_named() -> None:
    """An overloaded CA is left alone by every account, and asked again at the time."""
    clock = FakeClock()
    budget = Budget(clock)
    until = clock.now() + timedelta(hours=20)
    budget.hold("a", "x", status=503, retry_at=until, reason="busy")
    assert held(budget, "a", "x")
    assert held(budget, "b")
    with pytest.raises(Unreachable, match="held back since busy") as caught:
        budget.verify_open("b", None)
    assert caught.value.retry_at == until
    clock.advance(timedelta(hours=20))
    assert not held(budget, "a", "x")


def test_a_short_limit_holds_the_account_and_no_other() -> None:
    """Waits of minutes at most are limits of an account."""
    clock = FakeClock()
    budget = Budget(clock)
    until = clock.now() + timedelta(minutes=10)
    budget.hold("a", "x", status=429, retry_at=until, reason="slow down")
    assert held(budget, "a", "x")
    assert held(budget, "a", "y")
    assert not held(budget, "b", "x")


def test_a_long_limit_holds_the_names_that_caused_it_and_no_others() -> None:
    """A client that renews one name too often does not stop all the others."""
    clock = FakeClock()
    budget = Budget(clock)
    until = clock.now() + timedelta(minutes=11)
    budget.hold("a", "x", status=429, retry_at=until, reason="too many")
    assert held(budget, "a", "x")
    assert not held(budget, "a", "y")


def test_a_long_limit_about_nothing_in_particular_holds_the_account() -> None:
    """Where no names are to blame, the account is."""
    clock = FakeClock()
    budget = Budget(clock)
    until = clock.now() + timedelta(hours=1)
    budget.hold("a", None, status=429, retry_at=until, reason="too many")
    assert held(budget, "a", "y")


def test_the_later_of_two_holds_stands() -> None:
    """An answer that was under way cannot shorten a hold."""
    clock = FakeClock()
    budget = Budget(clock)
    later, sooner = (clock.now() + timedelta(seconds=s) for s in (60, 5))
    budget.hold("a", None, status=503, retry_at=later, reason="busy")
    budget.hold("a", None, status=503, retry_at=sooner, reason="busy")
    clock.advance(timedelta(seconds=30))
    assert held(budget, "a")


def test_refusals_without_a_time_hold_ever_longer() -> None:
    """The hold doubles up to its limit, and begins anew after a success."""
    clock = FakeClock()
    budget = Budget(clock)

    def hold() -> timedelta:
        end = budget.hold("a", None, status=429, retry_at=None, reason="no")
        return end - clock.now()

    assert [hold() for _ in range(3)] == [FIRST_HOLD, FIRST_HOLD * 2, FIRST_HOLD * 4]
    assert [hold() for _ in range(40)][-1] == MAX_UNNAMED_HOLD
    budget.note_success("a")
    assert hold() == FIRST_HOLD


def test_holds_do_not_grow_without_bound() -> None:
    """A client that makes up names cannot fill our memory; the longest holds stay."""
    clock = FakeClock()
    budget = Budget(clock)
    for number in range(MAX_HOLDS + 1):
        until = clock.now() + timedelta(hours=1, seconds=number)
        budget.hold("a", f"name-{number}", status=429, retry_at=until, reason="no")
    assert not held(budget, "a", "name-0")
    assert held(budget, "a", "name-1")
    assert held(budget, "a", f"name-{MAX_HOLDS}")


def test_ended_holds_make_room_first() -> None:
    """What has ended is forgotten before what still stands."""
    clock = FakeClock()
    budget = Budget(clock)
    soon, late = clock.now() + timedelta(minutes=11), clock.now() + timedelta(hours=5)
    for number in range(MAX_HOLDS):
        until = late if number == 0 else soon
        budget.hold("a", f"name-{number}", status=429, retry_at=until, reason="no")
    clock.advance(timedelta(minutes=12))
    budget.hold("a", "new", status=429, retry_at=late, reason="no")
    assert held(budget, "a", "name-0")
    assert held(budget, "a", "new")
