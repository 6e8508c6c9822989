"""The agent's only reader of the clock."""

from datetime import UTC

from agents.clock import SystemClock


def test_the_time_is_aware_and_in_utc() -> None:
    """A time without its zone would be read as another by whoever compares it."""
    assert SystemClock().now().tzinfo is UTC


def test_monotonic_seconds_never_go_back() -> None:
    """What is measured by it cannot be negative."""
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
