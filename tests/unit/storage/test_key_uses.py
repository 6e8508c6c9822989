"""Which keys were ever ours."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.records import CaMember, CaRole
from broker.issuance.upstream_key_ports import KeyChangeStatus
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START
from tests.unit.storage.test_upstream_keys import ACCOUNT, BEGUN, CHANGE, ENDED


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with the account, whose key is ``old``."""
    made = await SqliteStore.open(tmp_path / "store.db")
    await made.save_upstream_account(ACCOUNT, BEGUN)
    yield made
    await made.close()


async def test_keys_of_accounts_and_their_changes_are_remembered(store: SqliteStore) -> None:
    """Those on the way in and those on the way out."""
    assert list(await store.used_key_ids()) == ["old"]
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    assert list(await store.used_key_ids()) == ["new", "old"]
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=START)
    await store.end_upstream_key_change(ended, replace(ACCOUNT, key_id="new"), ENDED)
    assert list(await store.used_key_ids()) == ["new", "old"]


async def test_key_of_an_undone_change_was_nobodys(store: SqliteStore) -> None:
    """The next change may take it."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    undone = replace(CHANGE, status=KeyChangeStatus.UNDONE, ended_at=START)
    await store.end_upstream_key_change(undone, None, ENDED)
    assert list(await store.used_key_ids()) == ["old"]


async def test_key_of_an_account_that_was_replaced_is_remembered(store: SqliteStore) -> None:
    """A new account never gets it."""
    new = replace(ACCOUNT, key_id="new", account_url="https://ca.example/acct/2")
    await store.save_upstream_account(new, BEGUN)
    assert list(await store.used_key_ids()) == ["new", "old"]


async def test_keys_of_built_in_cas_are_remembered(store: SqliteStore) -> None:
    """Whatever they are for by now; a root that is offline has none."""
    members = [
        CaMember(
            ca="local",
            role=role,
            key_id=key_id,
            subject="CN=x",
            certificate_der=b"x",
            since=START,
        )
        for role, key_id in ((CaRole.ROOT, None), (CaRole.RETIRED, "first"))
    ]
    await store.replace_ca_members("local", members, None)
    assert list(await store.used_key_ids()) == ["first", "old"]
