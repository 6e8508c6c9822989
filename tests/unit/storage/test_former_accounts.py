"""What goes with an account that is replaced, in one transaction, and what stays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.issuance.account_ports import AccountRecovery, LossCause
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.accounts_asked import KEY, URL, account_record
from tests.fakes.clock import START
from tests.unit.storage.conftest import Plans

ORDER = "https://ca.example/order/1"
NEW_URL = "https://ca.example/acct/2"


def told(kind: EventKind = EventKind.UPSTREAM_ACCOUNT_REPLACED) -> Event:
    """Return an event of a day later."""
    return Event(kind=kind, at=START + timedelta(days=1))


async def replaced(store: SqliteStore, new_url: str = NEW_URL) -> None:
    """Put another account in the place of ours."""
    new = account_record(account_url=new_url, key_id=f"{KEY}0", thumbprint="new")
    await store.replace_upstream_account(new, old_url=URL, cause=LossCause.KEY_GONE, event=told())


async def test_former_account_is_kept(store: SqliteStore) -> None:
    """With when and why it was replaced."""
    await store.save_upstream_account(account_record(), given.event())
    await replaced(store)
    (former,) = await store.former_upstream_accounts("ca", "default")
    assert (former.account_url, former.key_id, former.cause) == (URL, KEY, LossCause.KEY_GONE)
    assert former.until == START + timedelta(days=1)
    assert await store.former_upstream_accounts("other", None) == []


async def test_account_with_the_same_url_is_another_one_when_it_was_lost(
    store: SqliteStore,
) -> None:
    """A CA that was set up anew may count from one again."""
    await store.save_upstream_account(account_record(), given.event())
    await replaced(store, URL)
    assert len(await store.former_upstream_accounts(None, None)) == 1


async def test_registering_the_same_account_again_replaces_nothing(store: SqliteStore) -> None:
    """It is found again by its key; another one in its place is remembered."""
    await store.save_upstream_account(account_record(), given.event())
    await store.save_upstream_account(account_record(), given.event())
    assert await store.former_upstream_accounts(None, None) == []
    await store.save_upstream_account(account_record(account_url=NEW_URL), told())
    (former,) = await store.former_upstream_accounts(None, None)
    assert former.cause is LossCause.REGISTERED_ANEW


async def test_account_is_replaced_once(store: SqliteStore) -> None:
    """Whoever comes second finds another account than the one it looked at."""
    await store.save_upstream_account(account_record(), given.event())
    await replaced(store)
    with pytest.raises(Conflict, match="any more"):
        await replaced(store)
    other = account_record(key_id="other")
    with pytest.raises(Conflict):
        await store.repin_upstream_account(other, told(EventKind.UPSTREAM_ACCOUNT_REPINNED))


async def test_recovery_is_open_until_the_account_is_kept(store: SqliteStore) -> None:
    """A later intention takes the place of the earlier one."""
    await store.save_upstream_account(account_record(), given.event())
    for key_id in ("first", "second"):
        recovery = AccountRecovery(
            upstream="ca",
            community="default",
            old_account_url=URL,
            new_key_id=key_id,
            cause=LossCause.KEY_GONE,
            begun_at=START,
        )
        await store.begin_account_recovery(recovery, told(EventKind.UPSTREAM_RECOVERY_BEGUN))
        assert await store.open_account_recovery("ca", "default") == recovery
    await replaced(store)
    assert await store.open_account_recovery("ca", "default") is None
    known = await store.key_ids_of_account("ca", "default")
    assert set(known) == {"first", "second", KEY, f"{KEY}0"}


async def test_work_of_an_account_that_was_replaced_meanwhile_is_not_kept(
    store: SqliteStore,
) -> None:
    """The CA's answer came after the account was replaced: nobody could go on with that order."""
    await store.save_upstream_account(account_record(), given.event())
    _, work = await given.has_claimed(store)
    assert (work.upstream, work.community) == ("ca", "default")
    await replaced(store)
    fresh = (await store.work_of_order(work.taken_by or "")) or work
    with pytest.raises(Conflict, match="was replaced before its order"):
        await store.record_opened(
            fresh.work_id, ORDER, given.event(), durable=True, account_url=URL
        )
    kept = await store.record_opened(
        fresh.work_id, ORDER, given.event(), durable=True, account_url=NEW_URL
    )
    assert (kept.order_url, kept.account_url) == (ORDER, NEW_URL)


async def test_nothing_is_scanned(store: SqliteStore, plans: Plans) -> None:
    """Live certificates of an account are found by an index among many."""
    await store.live_certificates_of(URL, now=START, limit=10)
    assert plans.scans() == set()
