"""Buckets of tokens as arithmetic."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.buckets import Bucket, replayed
from broker.policy.units import Rate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RATE = Rate(300, timedelta(hours=3))


def test_bucket_is_full_at_first_and_fills_steadily() -> None:
    """One token in 36 seconds, and never more than there were."""
    bucket = Bucket.full(RATE, NOW).without(300)
    assert bucket.level == 0
    assert round(bucket.filled(NOW + timedelta(seconds=36)).level, 9) == 1
    assert bucket.filled(NOW + timedelta(days=1)).level == 300


def test_clock_that_went_back_fills_nothing() -> None:
    """Nor does it count twice when it is right again."""
    bucket = Bucket.full(RATE, NOW).without(10)
    assert bucket.filled(NOW - timedelta(hours=1)) == bucket


def test_wait_is_what_is_missing() -> None:
    """Nothing where there is enough."""
    bucket = Bucket.full(RATE, NOW).without(300)
    assert bucket.wait_for(1) == timedelta(seconds=36)
    assert bucket.filled(NOW + timedelta(hours=3)).wait_for(1) == timedelta()


@given(st.lists(st.integers(0, 6 * 3600), max_size=400))
def test_replay_is_what_taking_one_by_one_left(seconds: list[int]) -> None:
    """Within the bounds of the bucket, whatever happened."""
    taken = [NOW - timedelta(hours=6) + timedelta(seconds=one) for one in sorted(seconds)]
    bucket = Bucket.full(RATE, NOW - timedelta(hours=6))
    for moment in taken:
        bucket = bucket.filled(moment).without(1)
    found = replayed(RATE, taken, NOW)
    assert abs(found.level - bucket.filled(NOW).level) < 1e-6
    assert 0 <= found.level <= RATE.count


def test_tokens_come_back_up_to_the_brim() -> None:
    """What was full meanwhile takes none."""
    assert Bucket.full(RATE, NOW).without(2).with_back(1).level == 299
    assert Bucket.full(RATE, NOW).with_back(5).level == 300


@pytest.mark.parametrize(
    ("count", "left"),
    [
        pytest.param(300, 100.0, id="the same"),
        pytest.param(400, 200.0, id="widened"),
        pytest.param(250, 50.0, id="narrowed"),
        pytest.param(100, 0.0, id="narrowed below what was taken"),
    ],
)
def test_what_was_taken_stays_taken_under_another_rate(count: int, left: float) -> None:
    """A rule that is narrowed counts what was let through before it."""
    bucket = Bucket.full(RATE, NOW).without(200)
    assert bucket.resized(Rate(count, RATE.period)).level == left


moments = st.lists(
    st.tuples(st.integers(0, 4 * 3600), st.booleans(), st.booleans()), min_size=1, max_size=200
)
"""Attempts: how many seconds on, whether it is a renewal, whether its order comes to nothing."""


@given(moments, st.integers(1, 40), st.integers(60, 7200), st.floats(0, 0.9))
def test_never_more_than_the_limit_and_its_refill_in_any_window(
    attempts: list[tuple[int, bool, bool]], count: int, seconds: int, kept: float
) -> None:
    """Renewals and new names together; and new names never touch the kept share."""
    rate = Rate(count, timedelta(seconds=seconds))
    bucket, taken = Bucket.full(rate, NOW), []
    for second, is_renewal, is_undone in sorted(attempts):
        at = NOW + timedelta(seconds=second)
        bucket = bucket.filled(at)
        floor = 0.0 if is_renewal else count * kept
        if not bucket.is_enough(1, floor=floor):
            continue
        bucket = bucket.without(1)
        assert bucket.level >= floor - 1e-6
        if is_undone:
            bucket = bucket.with_back(1)
        else:
            taken.append(second)
        assert -1e-9 <= bucket.level <= count
    for begin in taken:
        within = [one for one in taken if begin <= one <= begin + seconds]
        assert len(within) <= 2 * count + 1


@given(
    st.lists(st.integers(0, 3600), min_size=1, max_size=50), st.integers(1, 40), st.floats(0, 40)
)
def test_filling_in_steps_is_filling_at_once(steps: list[int], count: int, level: float) -> None:
    """Whoever looks often gets no more, and no less, than who looks once."""
    start = Bucket(Rate(count, timedelta(hours=1)), min(level, float(count)), NOW)
    bucket = start
    for step in sorted(steps):
        bucket = bucket.filled(NOW + timedelta(seconds=step))
    assert abs(bucket.level - start.filled(NOW + timedelta(seconds=max(steps))).level) < 1e-6


@given(st.integers(1, 50), st.floats(0, 50), st.floats(1, 50))
def test_whoever_waits_as_long_as_told_finds_the_token(
    count: int, level: float, wanted: float
) -> None:
    """Rounding costs nobody a second refusal."""
    bucket = Bucket(Rate(count, timedelta(hours=3)), min(level, float(count)), NOW)
    wanted = min(wanted, float(count))
    assert bucket.filled(NOW + bucket.wait_for(wanted)).is_enough(1, floor=wanted - 1)


def test_clock_that_was_far_ahead_once_stops_no_bucket_for_good() -> None:
    """It fills from now on, as one that was just looked at."""
    ahead = Bucket.full(RATE, NOW + timedelta(days=3650)).without(300)
    found = ahead.filled(NOW)
    assert (found.level, found.at) == (0, NOW)
    assert found.filled(NOW + timedelta(seconds=36)).is_enough(1)
