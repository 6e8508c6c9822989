"""Our accounts at the upstreams, and suspensions."""

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Store
from broker.protocol.resources import OrderStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def test_account_is_kept_for_upstream_and_community(store: Store) -> None:
    """It is found by that pair alone."""
    made = given.upstream_account()
    await store.save_upstream_account(made, given.event())
    assert await store.find_upstream_account("ca", "default") == made
    assert await store.find_upstream_account("ca", "other") is None
    assert await store.find_upstream_account("other", "default") is None


async def test_account_registered_anew_replaces_the_old(store: Store) -> None:
    """There is one account of a pair, the latest; others are left alone."""
    other = given.upstream_account(community="another")
    old, new = given.upstream_account(), given.upstream_account(account_url="https://ca.example/2")
    for one in (other, old, new):
        await store.save_upstream_account(one, given.event(EventKind.UPSTREAM_ACCOUNT_REGISTERED))
    assert await store.list_upstream_accounts() == [other, new]
    assert not await store.is_account_key(old.thumbprint)
    events = await store.read_events(after=0, limit=10, order_id=None)
    assert [one.kind for _, one in events] == [EventKind.UPSTREAM_ACCOUNT_REGISTERED] * 3


async def test_suspension_is_lifted_for_its_pair_alone(store: Store) -> None:
    """Resuming one profile leaves the others standing; the default is a pair of its own."""
    for n, profile in enumerate((None, "short", "long")):
        order, _ = await given.has_claimed(store)
        suspension = given.suspension(order, upstream_profile=profile, since=NOW + n * HOUR)
        await store.close_order(
            given.closing(order, status=OrderStatus.INVALID, suspension=suspension)
        )
    upstream = order.upstream
    await store.resume(upstream, "short", given.event(EventKind.UPSTREAM_RESUMED))
    assert [one.upstream_profile for one in await store.suspensions()] == [None, "long"]
    await store.resume(upstream, None, given.event(EventKind.UPSTREAM_RESUMED))
    assert [one.upstream_profile for one in await store.suspensions()] == ["long"]
    events = await store.read_events(after=0, limit=100, order_id=None)
    assert [one.kind for _, one in events].count(EventKind.UPSTREAM_RESUMED) == 2


async def test_resuming_what_is_not_suspended_is_a_conflict(store: Store) -> None:
    """Nothing is lifted and nothing told."""
    with pytest.raises(Conflict, match="default profile"):
        await store.resume("ca", None, given.event())
    with pytest.raises(Conflict, match="short"):
        await store.resume("ca", "short", given.event())
    assert await store.read_events(after=0, limit=10, order_id=None) == []
