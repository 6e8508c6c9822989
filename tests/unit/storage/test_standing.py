"""Holds of CAs and their breakers, in the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord
from broker.storage.sqlite import SqliteStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

HOLD = HoldRecord(
    upstream="ca", account="key", subject="", until=NOW + HOUR, since=NOW, reason="429"
)
OPEN = BreakerRecord(
    upstream="ca",
    state=BreakerState.OPEN,
    openings=1,
    since=NOW,
    until=NOW + timedelta(seconds=5),
    reason="no answer",
)
CLOSED = replace(OPEN, state=BreakerState.CLOSED, openings=0)
EVENT = Event(kind=EventKind.UPSTREAM_LEFT_ALONE, at=NOW, upstream="ca")


async def test_hold_stands_until_it_ends(store: SqliteStore) -> None:
    """For its CA, and for whoever asks about all."""
    await store.keep_hold(HOLD)
    assert list(await store.holds("ca", NOW)) == [HOLD]
    assert list(await store.holds(None, NOW)) == [HOLD]
    assert list(await store.holds("other", NOW)) == []
    assert list(await store.holds("ca", HOLD.until)) == []


async def test_longer_hold_stands(store: SqliteStore) -> None:
    """A shorter one that comes later shortens nothing."""
    await store.keep_hold(HOLD)
    await store.keep_hold(replace(HOLD, until=NOW + HOUR / 2))
    longer = replace(HOLD, until=NOW + 2 * HOUR)
    assert list(await store.holds("ca", NOW)) == [HOLD]
    await store.keep_hold(longer)
    assert list(await store.holds("ca", NOW)) == [longer]


async def test_holds_that_are_over_are_forgotten(store: SqliteStore) -> None:
    """When the next is kept."""
    await store.keep_hold(HOLD)
    later = replace(HOLD, subject="x", since=NOW + HOUR, until=NOW + 3 * HOUR)
    await store.keep_hold(later)
    assert list(await store.holds("ca", NOW + HOUR - timedelta(minutes=1))) == [later]


async def test_hold_of_a_clock_that_was_far_ahead_is_none(store: SqliteStore) -> None:
    """Else a CA would be left alone for years; the next hold of its kind takes its place."""
    ahead = timedelta(days=3650)
    await store.keep_hold(replace(HOLD, since=NOW + ahead, until=NOW + ahead + HOUR))
    assert list(await store.holds("ca", NOW)) == []
    assert list(await store.holds(None, NOW)) == []
    assert list((await store.standing(NOW, ""))[1]) == []
    await store.keep_hold(HOLD)
    assert list(await store.holds("ca", NOW)) == [HOLD]


async def test_breaker_is_moved_by_whoever_saw_it_last(store: SqliteStore) -> None:
    """Of two that would, one does; its event is kept with the change."""
    assert await store.breakers() == []
    await store.move_breaker(OPEN, expected=None, events=(EVENT,))
    with pytest.raises(Conflict):
        await store.move_breaker(OPEN, expected=None, events=(EVENT,))
    looking = replace(OPEN, state=BreakerState.HALF_OPEN, until=NOW + HOUR)
    await store.move_breaker(looking, expected=OPEN, events=())
    with pytest.raises(Conflict):
        await store.move_breaker(looking, expected=OPEN, events=())
    assert list(await store.breakers()) == [looking]
    told = await store.read_events(after=0, limit=10, order_id=None)
    assert [event.kind for _, event in told] == [EventKind.UPSTREAM_LEFT_ALONE]


async def test_closed_breaker_is_none(store: SqliteStore) -> None:
    """And can be opened again as if it had never been."""
    await store.move_breaker(OPEN, expected=None, events=())
    await store.move_breaker(CLOSED, expected=OPEN, events=())
    assert await store.breakers() == []
    await store.move_breaker(OPEN, expected=None, events=())


async def test_how_cas_stand_for_one_order_is_one_look(store: SqliteStore) -> None:
    """Holds about other names are none of its business."""
    await store.move_breaker(OPEN, expected=None, events=())
    for subject in ("", "a.example.com", "b.example.com"):
        await store.keep_hold(replace(HOLD, subject=subject))
    breakers, holds = await store.standing(NOW, "a.example.com")
    assert list(breakers) == [OPEN]
    assert sorted(hold.subject for hold in holds) == ["", "a.example.com"]
