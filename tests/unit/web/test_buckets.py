"""Token buckets: as many at once as the rate says, as often again, in bounded memory."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.units import Rate
from broker.web.buckets import Buckets
from tests.fakes.clock import START

SECOND = timedelta(seconds=1)
NOTHING = timedelta()
TEN_A_MINUTE = Rate(10, timedelta(minutes=1))


def taken(buckets: Buckets, key: str, times: int, at: timedelta = NOTHING) -> int:
    """Return how many of so many takes succeed at one moment."""
    return sum(buckets.take(key, START + at) == NOTHING for _ in range(times))


def test_burst_is_taken_at_once_and_no_more() -> None:
    """The wait that is told is the one after which there is a token."""
    buckets = Buckets(TEN_A_MINUTE)
    assert taken(buckets, "a", 12) == 10
    wait = buckets.take("a", START)
    assert wait == 6 * SECOND
    assert buckets.take("a", START + wait - timedelta(microseconds=1)) > NOTHING
    assert buckets.take("a", START + wait) == NOTHING
    assert buckets.take("a", START + wait) == 6 * SECOND


def test_keys_do_not_share() -> None:
    """What one uses up costs another nothing."""
    buckets = Buckets(TEN_A_MINUTE)
    assert taken(buckets, "a", 20) == 10
    assert taken(buckets, "b", 20) == 10


def test_bucket_fills_no_further_than_full() -> None:
    """A day of silence is worth one burst."""
    buckets = Buckets(TEN_A_MINUTE)
    assert taken(buckets, "a", 20) == 10
    assert taken(buckets, "a", 20, timedelta(days=1)) == 10


def test_what_was_taken_for_nothing_is_given_back() -> None:
    """As if it had never been asked for."""
    buckets = Buckets(TEN_A_MINUTE)
    for _ in range(100):
        assert buckets.take("a", START) == NOTHING
        buckets.give_back("a")
    assert taken(buckets, "a", 20) == 10
    buckets.give_back("unknown")


def test_looking_takes_nothing() -> None:
    """A wait is told without a token being taken."""
    buckets = Buckets(TEN_A_MINUTE)
    for _ in range(100):
        assert buckets.wait("a", START) == NOTHING
    assert len(buckets) == 0
    assert taken(buckets, "a", 20) == 10
    assert buckets.wait("a", START) == 6 * SECOND


def test_no_rate_is_no_limit() -> None:
    """Off is off, and costs no memory."""
    buckets = Buckets(None)
    assert taken(buckets, "a", 1000) == 1000
    assert (buckets.wait("a", START), len(buckets)) == (NOTHING, 0)


def test_clock_that_is_set_back_shuts_nobody_out() -> None:
    """Nobody waits longer than an empty bucket takes for its next token, nor for ever so."""
    buckets = Buckets(TEN_A_MINUTE)
    assert taken(buckets, "a", 10, timedelta(days=1)) == 10
    assert buckets.take("a", START) == 6 * SECOND
    assert taken(buckets, "a", 20, timedelta(minutes=1)) == 10


@pytest.mark.parametrize("back", [1, 30, 59, 60, 61, 3600], ids=str)
def test_clock_that_is_set_back_costs_one_step(back: int) -> None:
    """By however many seconds: nobody waits for the time from before."""
    buckets = Buckets(TEN_A_MINUTE)
    assert taken(buckets, "a", 10) == 10
    assert buckets.wait("a", START - back * SECOND) <= 6 * SECOND


@pytest.mark.parametrize(("back", "wait"), [(30, 36), (60, 66), (61, 6)])
def test_clock_that_is_set_back_looks_like_a_debt_where_there_are_debts(
    back: int, wait: int
) -> None:
    """Up to what can be owed at the most; past that it is known for what it is."""
    buckets = Buckets(TEN_A_MINUTE, can_owe=True)
    assert taken(buckets, "a", 10) == 10
    assert buckets.wait("a", START - back * SECOND) == wait * SECOND


def test_what_is_charged_beyond_is_owed() -> None:
    """As often as there were tokens it is like taking; then the next one waits for all of them."""
    buckets = Buckets(TEN_A_MINUTE, can_owe=True)
    for _ in range(10):
        buckets.charge("a", START)
    assert buckets.wait("a", START) == 6 * SECOND
    for _ in range(5):
        buckets.charge("a", START)
    assert buckets.wait("a", START) == 36 * SECOND
    assert buckets.take("a", START + 35 * SECOND) == SECOND
    assert buckets.take("a", START + 36 * SECOND) == NOTHING
    assert taken(buckets, "b", 20) == 10


def test_no_more_than_a_bucket_is_owed() -> None:
    """However much came at once; where there is no limit nothing is, nor where nobody charges."""
    buckets = Buckets(TEN_A_MINUTE, can_owe=True)
    for _ in range(1000):
        buckets.charge("a", START)
    assert buckets.wait("a", START) == 66 * SECOND
    strict = Buckets(TEN_A_MINUTE)
    for _ in range(1000):
        strict.charge("a", START)
    assert strict.wait("a", START) == 6 * SECOND
    free = Buckets(None, can_owe=True)
    free.charge("a", START)
    assert (free.wait("a", START), len(free)) == (NOTHING, 0)


def test_full_buckets_are_forgotten() -> None:
    """Memory is what is in use, not what was ever seen."""
    buckets = Buckets(TEN_A_MINUTE)
    for number in range(1000):
        buckets.take(f"{number}", START + number * 10 * SECOND)
    assert len(buckets) <= 2


def test_full_table_neither_grows_nor_opens() -> None:
    """New keys share one bucket; those that are known go on; room is used again once there is."""
    buckets = Buckets(TEN_A_MINUTE, max_keys=50)
    for number in range(50):
        assert taken(buckets, f"{number}", 5) == 5
    assert sum(taken(buckets, f"new-{number}", 1) for number in range(100)) == 10
    assert len(buckets) == 50
    assert taken(buckets, "7", 20) == 5
    later = timedelta(minutes=2)
    assert taken(buckets, "newer", 20, later) == 10
    assert len(buckets) <= 50


@given(
    st.integers(1, 50),
    st.integers(1, 3600),
    st.lists(st.integers(0, 100_000), min_size=1, max_size=200),
)
def test_no_window_lets_more_through_than_burst_and_rate(
    count: int, seconds: int, pauses: list[int]
) -> None:
    """Whenever they come: at most the burst, and what has flown in since."""
    rate = Rate(count, timedelta(seconds=seconds))
    buckets = Buckets(rate)
    now, passed = START, 0
    for pause in pauses:
        now += timedelta(milliseconds=pause)
        passed += buckets.take("a", now) == NOTHING
        allowed = count + (now - START) / rate.period * count + 1e-3
        assert passed <= allowed + 1


@pytest.mark.parametrize("times", [1, 3])
def test_wait_shrinks_as_time_goes(times: int) -> None:
    """Whoever waits as told gets through at the first try."""
    buckets = Buckets(Rate(1, timedelta(minutes=1)))
    now = START
    for _ in range(times):
        assert buckets.take("a", now) == NOTHING
        now += buckets.wait("a", now)
    assert now == START + times * timedelta(minutes=1)
