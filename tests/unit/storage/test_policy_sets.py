"""Sets of policies that were in force, over a real store."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken
from broker.issuance.events import Event, EventKind
from broker.issuance.policy_ports import PolicyChange, PolicyOutcome, PolicyTexts
from broker.storage import policy_sets
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START


def texts(**files: bytes) -> PolicyTexts:
    """Return a set with a manifest."""
    named: Mapping[str, bytes] = {f"{name}.yaml": octets for name, octets in files.items()}
    return PolicyTexts(files=named, bundle={"bundle.manifest": b"m", "bundle.anna.sig": b"\xff"})


async def keep(
    store: SqliteStore,
    kept: PolicyTexts,
    hours: int = 0,
    version: int | None = None,
    outcome: PolicyOutcome = PolicyOutcome.ACTIVATED,
) -> PolicyChange:
    """Keep a set as it comes into force or is refused."""
    at = START + timedelta(hours=hours)
    change = PolicyChange(
        outcome=outcome,
        set_id=kept.set_id,
        sha256=kept.sha256,
        at=at,
        actor="operator:anna",
        reason="ticket 7",
        version=version,
        signers=("anna",),
        faults=() if outcome is PolicyOutcome.ACTIVATED else ("default.yaml:1: is empty",),
    )
    is_active = outcome is PolicyOutcome.ACTIVATED
    kind = EventKind.POLICY_ACTIVATED if is_active else EventKind.POLICY_REFUSED
    event = Event(kind=kind, at=at)
    await store.keep_policy_change(change, kept if is_active else None, event)
    return change


async def test_set_in_force_is_found_octet_for_octet(store: SqliteStore) -> None:
    """With its signatures; a refused one takes nothing away."""
    assert await store.policy_set_in_force() is None
    first = texts(default=b"a: 1\n")
    change = await keep(store, first)
    await keep(store, texts(default=b""), 1, outcome=PolicyOutcome.REFUSED)
    found = await store.policy_set_in_force()
    assert found is not None
    assert found.change == change
    assert (found.texts.files, found.texts.bundle) == (first.files, first.bundle)
    assert [one.outcome for one in await store.policy_changes(limit=9)] == [
        PolicyOutcome.REFUSED,
        PolicyOutcome.ACTIVATED,
    ]
    events = await store.read_events(after=0, limit=9, order_id=None)
    assert [event.kind for _, event in events] == [
        EventKind.POLICY_ACTIVATED,
        EventKind.POLICY_REFUSED,
    ]


async def test_earlier_set_is_found_by_the_beginning_of_its_digest(store: SqliteStore) -> None:
    """And another is not."""
    first, second = texts(default=b"a: 1\n"), texts(default=b"a: 2\n")
    await keep(store, first)
    await keep(store, second, 1)
    found = await store.find_policy_set(first.sha256[:12])
    assert found is not None
    assert found.texts.files == first.files
    assert await store.find_policy_set("0" * 12) is None
    assert await store.find_policy_set("%") is None


async def test_highest_version_is_known_after_a_later_lower_one(store: SqliteStore) -> None:
    """What has no version counts for nothing."""
    assert await store.newest_policy_version() is None
    change = await keep(store, texts(default=b"a: 7\n"), 0, 7)
    await keep(store, texts(default=b"a: 3\n"), 1, 3)
    await keep(store, texts(default=b"a: 0\n"), 2)
    await keep(store, texts(default=b"a: 9\n"), 3, 9, PolicyOutcome.REFUSED)
    assert await store.newest_policy_version() == change


async def test_files_of_old_sets_are_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That they were in force is not; a content that a kept set shares stays."""
    monkeypatch.setattr(policy_sets, "KEPT_SETS", 2)
    kept = [texts(default=f"a: {n}\n".encode(), same=b"s: 1\n") for n in range(4)]
    for number, one in enumerate(kept):
        await keep(store, one, number)
    assert await store.find_policy_set(kept[0].sha256) is None
    newest = await store.find_policy_set(kept[3].sha256)
    assert newest is not None
    assert newest.texts.files == kept[3].files
    assert len(await store.policy_changes(limit=9)) == 4


async def test_set_that_came_back_is_kept(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put into force last counts, not what was new last."""
    monkeypatch.setattr(policy_sets, "KEPT_SETS", 2)
    kept = [texts(default=f"a: {n}\n".encode()) for n in range(3)]
    for number, one in enumerate([kept[0], kept[1], kept[0], kept[2]]):
        await keep(store, one, number)
    assert await store.find_policy_set(kept[0].sha256) is not None
    assert await store.find_policy_set(kept[1].sha256) is None


async def test_files_that_somebody_changed_in_the_store_are_no_policy(store: SqliteStore) -> None:
    """They would come into force at a start beside broken files."""
    await keep(store, texts(default=b"a: 1\n"))
    await store._database.write(
        lambda change: change.change(
            "UPDATE policy_contents SET content = ? WHERE content = ?", b"a: 2\n", b"a: 1\n"
        )
    )
    with pytest.raises(Broken, match="store keeps other files of policy set"):
        await store.policy_set_in_force()
