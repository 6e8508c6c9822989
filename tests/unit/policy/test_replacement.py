"""How long a mass replacement takes."""

from datetime import UTC, datetime, timedelta

from broker.policy.buckets import Bucket
from broker.policy.node_names import node_patterns
from broker.policy.replacement import RELOAD_TIME, ordered_at, rolled_out_at
from broker.policy.rollout import Group
from broker.policy.units import Rate
from broker.policy.windows import parse_window

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def group(*windows: str, at_once: int = 10) -> Group:
    """Return a group of hosts."""
    return Group(
        name="web",
        nodes=node_patterns(["**"]),
        canaries=None,
        at_once=at_once,
        halt_after=1,
        windows=tuple(parse_window(text) for text in windows),
    )


def test_without_a_limit_all_is_ordered_at_once() -> None:
    """Nothing is known that holds it up."""
    assert ordered_at(10_000, None, NOW) == NOW


def test_limit_lets_through_what_is_there_and_then_its_rate() -> None:
    """300 at once and 300 in three hours: 900 take six hours."""
    bucket = Bucket.full(Rate(300, 3 * HOUR), NOW)
    assert ordered_at(300, bucket, NOW) == NOW
    assert ordered_at(900, bucket, NOW) == NOW + 6 * HOUR


def test_nodes_of_a_group_take_turns_after_the_canary() -> None:
    """One turn for the canary, and one for each ten of the others."""
    assert rolled_out_at(41, group(), NOW, NOW) == NOW + 5 * RELOAD_TIME
    assert rolled_out_at(41, None, NOW, NOW) == NOW + RELOAD_TIME
    assert rolled_out_at(0, group(), NOW, NOW) == NOW


def test_windows_are_waited_for_and_used_up() -> None:
    """What does not fit into tonight's goes on tomorrow."""
    tonight = NOW + 10 * HOUR
    assert rolled_out_at(1, group("22:00-23:00"), NOW, NOW) == tonight + RELOAD_TIME
    many = rolled_out_at(100, group("22:00-23:00", at_once=1), NOW, NOW)
    assert many == tonight + timedelta(days=1) + 40 * RELOAD_TIME


def test_last_certificate_waits_for_its_window_too() -> None:
    """However few there are."""
    ordered = NOW + 11.5 * HOUR
    found = rolled_out_at(2, group("22:00-23:00"), ordered, NOW)
    assert found == NOW + timedelta(days=1, hours=10) + RELOAD_TIME
