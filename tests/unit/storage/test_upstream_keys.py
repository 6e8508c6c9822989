"""The journal of key changes, kept in one transaction with the account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import KeyChangeStatus, UpstreamKeyChange
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
