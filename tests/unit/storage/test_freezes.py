"""Freezes in the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.freeze_ports import FreezeKind, FreezeRecord
from broker.storage import freezes
from broker.storage.sqlite import SqliteStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FREEZE = FreezeRecord(
    kind=FreezeKind.NODE,
    community="default",
    subject="node-1",
    name="web-01",
    at=NOW,
    actor="operator:jane",
    reason="it was broken into",
    told="we look into it",
    ask="soc@corp.example",
    until=NOW + timedelta(hours=2),
)
EVENT = Event(kind=EventKind.FROZEN, at=NOW)


async def test_freeze_comes_back_as_it_was_kept(store: SqliteStore) -> None:
    """Every member of it."""
    await store.keep_freeze(FREEZE, EVENT)
    assert list(await store.freezes()) == [FREEZE]
    assert FREEZE.is_in_force(NOW)
    assert not FREEZE.is_in_force(NOW + timedelta(hours=2))
    assert str(FREEZE) == "node 'web-01'"


async def test_one_thing_has_one_freeze(store: SqliteStore) -> None:
    """The newer takes the older's place; the newest thing comes first."""
    await store.keep_freeze(FREEZE, EVENT)
    later = replace(FREEZE, at=NOW + timedelta(hours=1), reason="it still is")
    other = replace(FREEZE, subject="node-2", name="web-02")
    await store.keep_freeze(other, EVENT)
    await store.keep_freeze(later, EVENT)
    assert list(await store.freezes()) == [later, other]


async def test_lifting_forgets_one_freeze_and_that_alone(store: SqliteStore) -> None:
    """One that was changed meanwhile is not lifted, and no event says it was."""
    await store.keep_freeze(replace(FREEZE, at=NOW + timedelta(hours=1)), EVENT)
    lifted = Event(kind=EventKind.UNFROZEN, at=NOW)
    with pytest.raises(Conflict, match="was lifted or changed meanwhile"):
        await store.lift_freeze(FREEZE, lifted)
    (kept,) = await store.freezes()
    await store.lift_freeze(kept, lifted)
    assert list(await store.freezes()) == []
    events = await store.read_events(after=0, limit=10, order_id=None)
    kinds = [event.kind for _, event in events]
    assert [kind for kind in kinds if kind in (EventKind.FROZEN, EventKind.UNFROZEN)] == [
        EventKind.FROZEN,
        EventKind.UNFROZEN,
    ]


async def test_there_is_an_end_to_freezes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past it none is kept, and what is frozen already can still be frozen anew."""
    monkeypatch.setattr(freezes, "MAX_FREEZES", 1)
    await store.keep_freeze(FREEZE, EVENT)
    await store.keep_freeze(FREEZE, EVENT)
    with pytest.raises(Conflict, match="1 freezes already"):
        await store.keep_freeze(replace(FREEZE, subject="node-2"), EVENT)
