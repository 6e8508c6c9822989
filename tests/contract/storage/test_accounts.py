"""Downstream accounts: one per key and community, changed by compare-and-set."""

import asyncio
from dataclasses import replace

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Store
from broker.protocol.resources import AccountStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def test_account_is_found_by_id_and_by_key(store: Store) -> None:
    """A new account is returned as given and found both ways."""
    made = given.account()
    assert await store.create_account(made, given.event(), eab_key_id=None) == made
    assert await store.find_account(made.account_id) == made
    assert await store.find_account_by_key("default", made.thumbprint) == made


async def test_unknown_account_is_none(store: Store) -> None:
    """What was never kept is not found, nor is a key of another community."""
    made = await given.has_account(store)
    assert await store.find_account("nobody") is None
    assert await store.find_account_by_key("other", made.thumbprint) is None


async def test_same_key_gets_the_account_it_has(store: Store) -> None:
    """A second account for the same key is not kept, and tells of no event."""
    first = await given.has_account(store)
    second = given.account(thumbprint=first.thumbprint, contacts=("mailto:b@example.org",))
    assert await store.create_account(second, given.event(), eab_key_id=None) == first
    assert await store.find_account(second.account_id) is None
    assert len(await store.read_events(after=0, limit=10, order_id=None)) == 1


async def test_same_key_in_another_community_is_another_account(store: Store) -> None:
    """(community, key) names an account; the key alone does not."""
    first = await given.has_account(store)
    second = await given.has_account(store, thumbprint=first.thumbprint, community="other")
    assert second.account_id != first.account_id


async def test_same_key_at_once_gives_one_account(store: Store) -> None:
    """Eight new accounts for one key at the same time are one account and one event."""
    asked = [given.account(thumbprint="same") for _ in range(8)]
    got = await asyncio.gather(
        *(store.create_account(one, given.event(), eab_key_id=None) for one in asked)
    )
    assert len({one.account_id for one in got}) == 1
    assert len(await store.list_accounts(community=None, after=None, limit=10)) == 1
    assert len(await store.read_events(after=0, limit=10, order_id=None)) == 1


async def test_contacts_change_and_stay(store: Store) -> None:
    """Contacts are replaced when given, emptied when given empty, kept when None."""
    made = await given.has_account(store)
    for contacts, after in (
        (("mailto:new@example.org",), ("mailto:new@example.org",)),
        (None, ("mailto:new@example.org",)),
        ((), ()),
    ):
        changed = await store.update_account(
            made.account_id,
            expected=AccountStatus.VALID,
            status=AccountStatus.VALID,
            contacts=contacts,
            event=given.event(EventKind.ACCOUNT_UPDATED),
        )
        assert changed == replace(made, contacts=after)
        assert await store.find_account(made.account_id) == changed


async def test_update_of_an_account_in_another_status_is_a_conflict(store: Store) -> None:
    """A deactivated account is not changed by a caller who thinks it valid."""
    made = await given.has_account(store)

    async def deactivate() -> None:
        await store.update_account(
            made.account_id,
            expected=AccountStatus.VALID,
            status=AccountStatus.DEACTIVATED,
            contacts=None,
            event=given.event(EventKind.ACCOUNT_DEACTIVATED),
        )

    await deactivate()
    with pytest.raises(Conflict, match="is deactivated, expected valid"):
        await deactivate()
    events = await store.read_events(after=0, limit=10, order_id=None)
    assert [one.kind for _, one in events].count(EventKind.ACCOUNT_DEACTIVATED) == 1


async def test_update_of_an_unknown_account_is_a_conflict(store: Store) -> None:
    """There is nothing to compare with."""
    with pytest.raises(Conflict, match="unknown"):
        await store.update_account(
            "nobody",
            expected=AccountStatus.VALID,
            status=AccountStatus.VALID,
            contacts=(),
            event=given.event(),
        )


async def test_accounts_are_listed_newest_first_in_pages(store: Store) -> None:
    """Pages follow each other without a gap, also where two accounts are of the same moment."""
    made = [await given.has_account(store, created_at=NOW + (n // 2) * HOUR) for n in range(5)]
    expected = sorted(made, key=lambda one: (one.created_at, one.account_id), reverse=True)
    seen: list[str] = []
    after = None
    while page := await store.list_accounts(community=None, after=after, limit=2):
        seen += [one.account_id for one in page]
        after = seen[-1]
    assert seen == [one.account_id for one in expected]


async def test_accounts_of_one_community_are_listed_alone(store: Store) -> None:
    """The filter holds, and a page after an id that is not there is empty."""
    mine = await given.has_account(store, community="mine")
    await given.has_account(store)
    assert await store.list_accounts(community="mine", after=None, limit=10) == [mine]
    assert await store.list_accounts(community="none", after=None, limit=10) == []
    assert await store.list_accounts(community=None, after="nobody", limit=10) == []


async def test_account_keys_are_known_downstream_and_upstream(store: Store) -> None:
    """A key is an account key wherever it is one, and no other key is."""
    down = await given.has_account(store, community="other")
    up = given.upstream_account()
    await store.save_upstream_account(up, given.event())
    assert await store.is_account_key(down.thumbprint)
    assert await store.is_account_key(up.thumbprint)
    assert not await store.is_account_key("another")
