"""External account binding keys: who may use one, and when it stops."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Store
from broker.issuance.records import AccountRecord, EabKeyRecord
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def has_key(store: Store, **changes: Any) -> EabKeyRecord:
    """Keep a key and return it."""
    made = given.eab_key(**changes)
    await store.add_eab_key(made, given.event(EventKind.EAB_MINTED))
    return made


async def bind(store: Store, key: EabKeyRecord, **changes: Any) -> AccountRecord:
    """Create an account bound to *key*."""
    made = given.account(eab_key_id=key.key_id, **changes)
    return await store.create_account(made, given.event(), eab_key_id=key.key_id)


async def test_key_is_found_in_its_community_only(store: Store) -> None:
    """A key comes back with its MAC key, octet for octet, and to its own community alone."""
    key = await has_key(store, mac_key=bytes(range(256)), expires_at=NOW + HOUR)
    assert await store.find_eab_key("default", key.key_id) == key
    assert await store.find_eab_key("other", key.key_id) is None


async def test_key_id_is_taken_once(store: Store) -> None:
    """A second key of the same id is refused, and the first stays as it was."""
    key = await has_key(store)
    with pytest.raises(Conflict, match="exists already"):
        await store.add_eab_key(replace(key, label="another"), given.event())
    assert await store.find_eab_key("default", key.key_id) == key
    assert len(await store.read_events(after=0, limit=10, order_id=None)) == 1


async def test_single_use_key_belongs_to_its_first_account(store: Store) -> None:
    """The first account keeps the key; a second one is refused and not created."""
    key = await has_key(store)
    first = await bind(store, key)
    bound = await store.find_eab_key("default", key.key_id)
    assert bound == replace(key, bound_account_id=first.account_id)
    second = given.account(eab_key_id=key.key_id)
    with pytest.raises(Conflict, match="bound to another account"):
        await store.create_account(second, given.event(), eab_key_id=key.key_id)
    assert await store.find_account(second.account_id) is None
    assert await store.find_account_by_key("default", second.thumbprint) is None


async def test_account_that_holds_a_key_may_come_again(store: Store) -> None:
    """A repeated newAccount with the same key and binding gets the account it made."""
    key = await has_key(store)
    first = await bind(store, key)
    assert await bind(store, key, thumbprint=first.thumbprint) == first


async def test_reusable_key_admits_many_accounts(store: Store) -> None:
    """A key for many stays bound to none of them."""
    key = await has_key(store, is_reusable=True)
    await bind(store, key)
    await bind(store, key)
    assert await store.find_eab_key("default", key.key_id) == key


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"revoked_at": NOW}, "is revoked", id="revoked"),
        pytest.param({"expires_at": NOW}, "expired at", id="expired at that moment"),
        pytest.param({"expires_at": NOW - HOUR}, "expired at", id="expired before"),
        pytest.param({"community": "other"}, "unknown", id="of another community"),
    ],
)
async def test_key_that_does_not_hold_admits_nobody(
    store: Store, changes: dict[str, Any], sentence: str
) -> None:
    """A key that ended, or belongs elsewhere, leaves no account behind."""
    key = await has_key(store, is_reusable=True, **changes)
    made = given.account(eab_key_id=key.key_id, created_at=NOW)
    with pytest.raises(Conflict, match=sentence):
        await store.create_account(made, given.event(), eab_key_id=key.key_id)
    assert await store.find_account(made.account_id) is None


async def test_key_admits_until_it_expires(store: Store) -> None:
    """The twin of the refusals: a moment earlier the same call passes."""
    key = await has_key(store, expires_at=NOW + HOUR)
    assert (await bind(store, key, created_at=NOW)).eab_key_id == key.key_id


async def test_two_accounts_at_once_for_one_key_give_one(store: Store) -> None:
    """Of eight accounts that race for a single-use key one wins, seven are refused."""
    key = await has_key(store)
    got = await asyncio.gather(*(bind(store, key) for _ in range(8)), return_exceptions=True)
    winners = [one for one in got if isinstance(one, AccountRecord)]
    assert len(winners) == 1
    assert sum(isinstance(one, Conflict) for one in got) == 7
    assert await store.list_accounts(community=None, after=None, limit=10) == winners


async def test_key_is_revoked_once(store: Store) -> None:
    """Revoking returns the key as it is now; again, or of an unknown one, is a conflict."""
    key = await has_key(store)
    event = given.event(EventKind.EAB_REVOKED)
    revoked = await store.revoke_eab_key("default", key.key_id, NOW, event)
    assert revoked == replace(key, revoked_at=NOW)
    assert await store.find_eab_key("default", key.key_id) == revoked
    with pytest.raises(Conflict, match="revoked already"):
        await store.revoke_eab_key("default", key.key_id, NOW, given.event())
    with pytest.raises(Conflict, match="unknown"):
        await store.revoke_eab_key("other", key.key_id, NOW, given.event())
    kept = await store.read_events(after=0, limit=10, order_id=None)
    assert [one.kind for _, one in kept] == [EventKind.EAB_MINTED, EventKind.EAB_REVOKED]


async def test_keys_are_listed_newest_first(store: Store) -> None:
    """All keys, or those of one community."""
    old = await has_key(store, created_at=NOW - HOUR)
    new = await has_key(store, created_at=NOW, community="other")
    assert await store.list_eab_keys(None) == [new, old]
    assert await store.list_eab_keys("default") == [old]
