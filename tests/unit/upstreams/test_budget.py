"""When a CA may be asked again."""

from datetime import timedelta

import pytest

from broker.issuance.errors import Unreachable
from broker.upstreams.budget import FIRST_HOLD, MAX_HOLDS, MAX_UNNAMED_HOLD, Budget
from tests.fakes.clock import FakeClock
from tests.fakes.standing_store import FakeStandingStore


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


async def test_limit_is_known_after_a_restart_and_to_others() -> None:
    """Whoever opens the same store asks nothing before the time, within a second."""
    clock, store = FakeClock(), FakeStandingStore()
    told = Budget(clock, upstream="ca", store=store)
    other = Budget(clock, upstream="ca", store=store)
    elsewhere = Budget(clock, upstream="next", store=store)
    await other.refresh()
    until = clock.now() + timedelta(hours=2)
    told.hold("a", "x", status=429, retry_at=until, reason="too many")
    await told.share()
    clock.advance(timedelta(seconds=1))
    for budget in (other, Budget(clock, upstream="ca", store=store)):
        await budget.refresh()
        assert held(budget, "a", "x")
        assert not held(budget, "a", "y")
    await elsewhere.refresh()
    assert not held(elsewhere, "a", "x")
    clock.advance(timedelta(hours=2))
    assert not held(other, "a", "x")


@pytest.mark.parametrize(
    ("status", "account", "subject"),
    [
        pytest.param(503, "", "", id="everything"),
        pytest.param(429, "a", "", id="account"),
    ],
)
async def test_what_is_held_is_kept_as_that(status: int, account: str, subject: str) -> None:
    """And read back as that."""
    clock, store = FakeClock(), FakeStandingStore()
    budget = Budget(clock, upstream="ca", store=store)
    until = clock.now() + timedelta(minutes=5)
    budget.hold("a", "x", status=status, retry_at=until, reason="no")
    await budget.share()
    await budget.share()
    (kept,) = store.kept
    assert (kept.account, kept.subject, kept.until) == (account, subject, until)
    again = Budget(clock, upstream="ca", store=store)
    await again.refresh()
    assert held(again, "a", "y")
    assert held(again, "b") is (status == 503)


async def test_store_is_read_once_a_second() -> None:
    """However many requests there are."""
    clock, store = FakeClock(), FakeStandingStore()
    budget = Budget(clock, upstream="ca", store=store)
    for _ in range(50):
        await budget.refresh()
    assert store.reads == 1
    clock.advance(timedelta(seconds=1))
    await budget.refresh()
    assert store.reads == 2
