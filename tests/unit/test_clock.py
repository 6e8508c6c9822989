"""The clock."""

from datetime import UTC

from broker.clock import SystemClock


def test_time_is_aware_in_utc_and_does_not_go_back() -> None:
    """What the rest of the broker takes for granted."""
    first = SystemClock().now()
    assert first.tzinfo is UTC
    assert SystemClock().now() >= first
