"""The journal of key changes, kept in one transaction with the account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import (
    AccountKeyAge,
    KeyChangeStatus,
    KeyRotationFailure,
    UpstreamKeyChange,
)
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START

ACCOUNT = UpstreamAccountRecord(
    upstream="ca",
    community="default",
    directory_url="https://ca.example/directory",
    account_url="https://ca.example/acct/1",
    key_id="old",
    thumbprint="old thumb",
    registered_at=START,
)
CHANGE = UpstreamKeyChange(
    upstream="ca",
    community="default",
    account_url=ACCOUNT.account_url,
    old_key_id="old",
    new_key_id="new",
    status=KeyChangeStatus.BEGUN,
    begun_at=START,
)
BEGUN = Event(kind=EventKind.UPSTREAM_KEY_CHANGE_BEGUN, at=START)
ENDED = Event(kind=EventKind.UPSTREAM_KEY_CHANGED, at=START)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with the account."""
    made = await SqliteStore.open(tmp_path / "store.db")
    await made.save_upstream_account(
        ACCOUNT, Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    )
    yield made
    await made.close()


async def test_change_is_open_until_it_has_ended(store: SqliteStore) -> None:
    """And comes back as it was kept."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    assert list(await store.open_upstream_key_changes()) == [CHANGE]
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=START)
    changed = replace(ACCOUNT, key_id="new", thumbprint="new thumb")
    await store.end_upstream_key_change(ended, changed, ENDED)
    assert list(await store.open_upstream_key_changes()) == []
    assert await store.find_upstream_account("ca", "default") == changed


async def test_change_that_is_undone_leaves_the_account(store: SqliteStore) -> None:
    """And another one may begin."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    undone = replace(CHANGE, status=KeyChangeStatus.UNDONE, ended_at=START)
    await store.end_upstream_key_change(undone, None, ENDED)
    assert await store.find_upstream_account("ca", "default") == ACCOUNT
    await store.begin_upstream_key_change(replace(CHANGE, new_key_id="newer"), BEGUN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(replace(CHANGE, new_key_id="newer"), "has not ended", id="second"),
        pytest.param(
            replace(CHANGE, community="lab", new_key_id="newer"), "another key", id="no-account"
        ),
    ],
)
async def test_change_that_may_not_begin_is_a_conflict(
    store: SqliteStore, change: UpstreamKeyChange, words: str
) -> None:
    """One at a time, of the key that is on record."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    with pytest.raises(Conflict, match=words):
        await store.begin_upstream_key_change(change, BEGUN)


async def test_change_ends_once(store: SqliteStore) -> None:
    """Of two that settle it, the second finds it settled and changes nothing."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    undone = replace(CHANGE, status=KeyChangeStatus.UNDONE, ended_at=START)
    await store.end_upstream_key_change(undone, None, ENDED)
    changed = replace(ACCOUNT, key_id="new", thumbprint="new thumb")
    with pytest.raises(Conflict, match="has ended already"):
        await store.end_upstream_key_change(
            replace(undone, status=KeyChangeStatus.CHANGED), changed, ENDED
        )
    assert await store.find_upstream_account("ca", "default") == ACCOUNT


async def test_key_that_was_not_used_may_be_tried_again(store: SqliteStore) -> None:
    """A version in Vault stays when a change to it is undone; both changes are kept."""
    for minutes in (0, 1, 2):
        again = replace(CHANGE, begun_at=START + timedelta(minutes=minutes))
        await store.begin_upstream_key_change(again, BEGUN)
        assert list(await store.open_upstream_key_changes()) == [again]
        status = KeyChangeStatus.CHANGED if minutes == 2 else KeyChangeStatus.UNDONE
        changed = replace(ACCOUNT, key_id="new") if minutes == 2 else None
        ended = replace(again, status=status, ended_at=START)
        await store.end_upstream_key_change(ended, changed, ENDED)
    assert list(await store.open_upstream_key_changes()) == []


@pytest.mark.parametrize(
    ("status", "is_used"),
    [(KeyChangeStatus.UNDONE, False), (KeyChangeStatus.TAKEN, True)],
    ids=["unused", "of-another-account"],
)
async def test_key_of_a_change_that_was_undone_counts_as_used_where_it_is_taken(
    store: SqliteStore, status: KeyChangeStatus, is_used: bool
) -> None:
    """What is another account's is never to be tried again."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    await store.end_upstream_key_change(replace(CHANGE, status=status), None, ENDED)
    assert ("new" in await store.used_key_ids()) == is_used


LATER = START + timedelta(days=30)
AGE = AccountKeyAge(upstream="ca", community="default", key_id="old", since=START)
FAILURE = KeyRotationFailure(
    upstream="ca", community="default", key_id="old", failures=1, failed_at=LATER, reason="away"
)


async def test_key_is_as_old_as_the_last_change_to_it(store: SqliteStore) -> None:
    """Or as the registration, as long as there was none; what was undone does not count."""
    assert list(await store.account_key_ages()) == [AGE]
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    undone = replace(CHANGE, status=KeyChangeStatus.UNDONE, ended_at=LATER)
    await store.end_upstream_key_change(undone, None, ENDED)
    assert list(await store.account_key_ages()) == [AGE]
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=LATER)
    await store.end_upstream_key_change(ended, replace(ACCOUNT, key_id="new"), ENDED)
    assert list(await store.account_key_ages()) == [replace(AGE, key_id="new", since=LATER)]


async def test_last_failure_counts_as_long_as_the_account_has_the_key(store: SqliteStore) -> None:
    """There is one for an account; with the next key it is forgotten."""
    await store.keep_key_rotation_failure(FAILURE)
    second = replace(FAILURE, failures=2, reason="still away")
    await store.keep_key_rotation_failure(second)
    assert list(await store.account_key_ages()) == [replace(AGE, failure=second)]
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=LATER)
    await store.end_upstream_key_change(ended, replace(ACCOUNT, key_id="new"), ENDED)
    (age,) = await store.account_key_ages()
    assert age.failure is None
