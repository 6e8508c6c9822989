"""Buckets of tokens as arithmetic."""

from datetime import UTC, datetime, timedelta

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
