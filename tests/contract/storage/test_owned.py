"""What an account owns: the list of its orders, what it proved ahead, and how it ends."""

import asyncio
from dataclasses import replace

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached, Store
from broker.issuance.records import AuthorizationRecord, OrderRecord, Proof
from broker.protocol.resources import AccountStatus, AuthorizationStatus, OrderStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW

VALID, DEACTIVATED = AuthorizationStatus.VALID, AuthorizationStatus.DEACTIVATED


async def keep(store: Store, order: OrderRecord, *parts: AuthorizationRecord) -> OrderRecord:
    """Keep an order with its authorizations."""
    order = replace(order, authorization_ids=tuple(one.authorization_id for one in parts))
    await store.create_order(order, parts, Attached())
    return order


def ahead(of: OrderRecord, **changes: object) -> AuthorizationRecord:
    """Return an authorization without an order, valid by a challenge."""
    made = given.authorization(of, order_id=None, status=VALID, proof=Proof.CHALLENGE)
    return replace(made, **{"expires_at": NOW + 24 * HOUR, **changes})  # type: ignore[arg-type]


async def test_orders_are_listed_newest_first_in_pages(store: Store) -> None:
    """Without a gap and without one twice, also where several are of the same moment."""
    owner, other = await given.has_account(store), await given.has_account(store)
    kept = [
        await keep(store, given.order(owner, created_at=NOW + (number // 2) * HOUR / 60))
        for number in range(7)
    ]
    await keep(store, given.order(other))
    listed: list[str] = []
    after = None
    while True:
        page = await store.orders_of_account(owner.account_id, at=NOW, after=after, limit=3)
        assert page is not None
        if not page:
            break
        listed += page
        after = page[-1]
    newest = sorted(kept, key=lambda one: (one.created_at, one.order_id), reverse=True)
    assert listed == [one.order_id for one in newest]


@pytest.mark.parametrize("status", list(OrderStatus))
async def test_invalid_and_expired_orders_are_left_out(store: Store, status: OrderStatus) -> None:
    """Pending, ready, processing and valid ones are in (RFC 8555 §7.1.2.1)."""
    owner = await given.has_account(store)
    order = await keep(store, given.order(owner, status=status))
    now = await store.orders_of_account(owner.account_id, at=NOW, after=None, limit=9)
    later = await store.orders_of_account(
        owner.account_id, at=order.expires_at, after=None, limit=9
    )
    is_open = status in (OrderStatus.PENDING, OrderStatus.READY)
    assert now == ([] if status is OrderStatus.INVALID else [order.order_id])
    assert later == ([] if is_open or status is OrderStatus.INVALID else [order.order_id])


async def test_place_in_another_accounts_list_is_none(store: Store) -> None:
    """A cursor is good for the account that it was made for."""
    owner, other = await given.has_account(store), await given.has_account(store)
    order = await keep(store, given.order(owner))

    async def page(account_id: str, after: str) -> object:
        return await store.orders_of_account(account_id, at=NOW, after=after, limit=9)

    assert await page(owner.account_id, order.order_id) == []
    assert await page(other.account_id, order.order_id) is None
    assert await page(owner.account_id, "nothing") is None


async def test_authorization_without_an_order_comes_back_whole(store: Store) -> None:
    """With its challenges, and with the event of its making."""
    owner = await given.has_account(store)
    made = ahead(given.order(owner))
    await store.create_authorization(made, given.event(EventKind.AUTHORIZATION_CREATED))
    assert await store.load_authorization(made.authorization_id) == made
    (*_, (_, event)) = await store.read_events(after=0, limit=10, order_id=None)
    assert event.kind is EventKind.AUTHORIZATION_CREATED


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": AuthorizationStatus.PENDING}, id="pending"),
        pytest.param({"proof": Proof.POLICY}, id="by policy"),
        pytest.param({"proof": None}, id="by nothing"),
        pytest.param({"expires_at": NOW}, id="ended"),
    ],
)
async def test_proof_ahead_is_a_challenge_that_holds(
    store: Store, changes: dict[str, object]
) -> None:
    """Anything less proves nothing; the good twin beside it is found, the longest first."""
    owner, other = await given.has_account(store), await given.has_account(store)
    order = given.order(owner)
    bad = ahead(order, **changes)
    await store.create_authorization(bad, given.event())
    names = [bad.identifier]
    assert await store.proved_ahead(owner.account_id, names, until=NOW) == []
    good = [ahead(order), ahead(order, expires_at=NOW + 48 * HOUR)]
    for one in good:
        await store.create_authorization(one, given.event())
    assert await store.proved_ahead(owner.account_id, names, until=NOW) == [good[1]]
    assert await store.proved_ahead(other.account_id, names, until=NOW) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": AuthorizationStatus.DEACTIVATED}, id="given up"),
        pytest.param({"expires_at": NOW}, id="ends earlier"),
        pytest.param({"community": "elsewhere"}, id="another community"),
    ],
)
async def test_order_rests_on_what_holds_and_nothing_else(
    store: Store, changes: dict[str, object]
) -> None:
    """Else nothing of it is kept; the good twin is."""
    owner = await given.has_account(store)
    for made in (ahead(given.order(owner), **changes), ahead(given.order(owner))):
        await store.create_authorization(made, given.event())
        order = given.order(owner)
        part = given.authorization(
            order, status=VALID, proof=Proof.CHALLENGE, rests_on=made.authorization_id
        )
        is_good = not changes.items() <= {
            "status": made.status, "expires_at": made.expires_at, "community": made.community
        }.items()  # fmt: skip
        if is_good:
            await keep(store, order, part)
            assert await store.load_authorization(part.authorization_id) == part
        else:
            with pytest.raises(Conflict, match="authorization"):
                await keep(store, order, part)
            assert await store.load_order(order.order_id) is None


async def test_another_accounts_proof_carries_no_order(store: Store) -> None:
    """Whatever a caller says it rests on."""
    owner, other = await given.has_account(store), await given.has_account(store)
    made = ahead(given.order(other))
    await store.create_authorization(made, given.event())
    order = given.order(owner)
    part = given.authorization(order, status=VALID, rests_on=made.authorization_id)
    with pytest.raises(Conflict):
        await keep(store, order, part)


async def test_what_rests_on_an_authorization_ends_with_it(store: Store) -> None:
    """With its order, where that is still open; a closed one keeps its status."""
    owner = await given.has_account(store)
    ground = ahead(given.order(owner))
    await store.create_authorization(ground, given.event())
    kept = []
    for status in (OrderStatus.PENDING, OrderStatus.READY, OrderStatus.PROCESSING):
        order = given.order(owner, status=status)
        part = given.authorization(
            order, status=VALID, proof=Proof.CHALLENGE, rests_on=ground.authorization_id
        )
        kept.append((await keep(store, order, part), part))
    await store.change_authorization(
        ground.authorization_id,
        expected=VALID,
        status=DEACTIVATED,
        order_expected=(OrderStatus.PENDING, OrderStatus.READY),
        order_status=OrderStatus.INVALID,
        order_error={"type": "x"},
        events=(given.event(EventKind.AUTHORIZATION_DEACTIVATED),),
    )
    statuses = []
    for order, part in kept:
        found = await store.load_authorization(part.authorization_id)
        assert found is not None
        assert found.status is DEACTIVATED
        now = await store.load_order(order.order_id)
        assert now is not None
        statuses.append(now.status)
    assert statuses == [OrderStatus.INVALID, OrderStatus.INVALID, OrderStatus.PROCESSING]


async def test_account_ends_with_its_open_work_and_nothing_else(store: Store) -> None:
    """One transaction: orders, their authorizations, those without an order, an event for each."""
    owner, other = await given.has_account(store), await given.has_account(store)
    kept = {}
    for status in OrderStatus:
        order = given.order(owner, status=status)
        part = given.authorization(order, status=VALID)
        kept[status] = (await keep(store, order, part), part)
    free = ahead(given.order(owner))
    await store.create_authorization(free, given.event())
    others = given.order(other)
    others = await keep(store, others, given.authorization(others))
    ended = await store.close_account(given.account_closing(owner.account_id))
    assert ended.status is AccountStatus.DEACTIVATED
    for status, (order, part) in kept.items():
        is_open = status in (OrderStatus.PENDING, OrderStatus.READY)
        now = await store.load_order(order.order_id)
        now_part = await store.load_authorization(part.authorization_id)
        assert now is not None
        assert now_part is not None
        assert now.status is (OrderStatus.INVALID if is_open else status)
        assert now_part.status is (DEACTIVATED if is_open else VALID)
    found = await store.load_authorization(free.authorization_id)
    assert found is not None
    assert found.status is DEACTIVATED
    untouched = await store.load_order(others.order_id)
    assert untouched is not None
    assert untouched.status is OrderStatus.PENDING
    events = [one for _, one in await store.read_events(after=0, limit=50, order_id=None)]
    cancelled = [one.order_id for one in events if one.kind is EventKind.ORDER_CANCELLED]
    assert sorted(map(str, cancelled)) == sorted(
        kept[status][0].order_id for status in (OrderStatus.PENDING, OrderStatus.READY)
    )


async def test_account_ends_once(store: Store) -> None:
    """Of eight at once, one did it."""
    owner = await given.has_account(store)
    closing = given.account_closing(owner.account_id)
    got = await asyncio.gather(
        *(store.close_account(closing) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in got) == 7
    with pytest.raises(Conflict, match="unknown"):
        await store.close_account(replace(closing, account_id="nobody"))


async def test_key_is_changed_by_compare_and_set(store: Store) -> None:
    """Of eight at once one wins; a key that is taken gives its holder, and changes nothing."""
    made, other = await given.has_account(store), await given.has_account(store)

    async def change(number: int, expected: str = made.thumbprint) -> object:
        return await store.change_account_key(
            made.account_id,
            expected=expected,
            jwk_json="{}",
            thumbprint=f"new-{number}",
            event=given.event(EventKind.ACCOUNT_KEY_CHANGED),
        )

    got = await asyncio.gather(*map(change, range(8)), return_exceptions=True)
    assert sum(isinstance(one, Conflict) for one in got) == 7
    now = await store.find_account(made.account_id)
    assert now is not None
    assert now.jwk_json == "{}"
    taken = await store.change_account_key(
        made.account_id,
        expected=now.thumbprint,
        jwk_json="{}",
        thumbprint=other.thumbprint,
        event=given.event(EventKind.ACCOUNT_KEY_CHANGED),
    )
    assert taken == other
    assert await store.find_account(made.account_id) == now
    events = [one for _, one in await store.read_events(after=0, limit=50, order_id=None)]
    assert [one.kind for one in events].count(EventKind.ACCOUNT_KEY_CHANGED) == 1
    await store.close_account(given.account_closing(made.account_id))
    with pytest.raises(Conflict, match="deactivated"):
        await change(9, now.thumbprint)


async def test_keys_of_upstreams_and_certificates_are_reserved(store: Store) -> None:
    """A downstream account's are not: those belong to accounts."""
    owner = await given.has_account(store)
    upstream = given.upstream_account()
    await store.save_upstream_account(upstream, given.event())
    assert await store.is_reserved_key(thumbprint=upstream.thumbprint, spki_sha256="00")
    assert not await store.is_reserved_key(thumbprint=owner.thumbprint, spki_sha256="00")


async def test_terms_are_agreed_to(store: Store) -> None:
    """The version is kept; nobody agrees for an account that is not there."""
    made = await given.has_account(store, terms_agreed=False)
    agreed = await store.agree_to_terms(made.account_id, "2", given.event(EventKind.ACCOUNT_AGREED))
    assert agreed == replace(made, terms_agreed=True, terms_version="2")
    assert await store.find_account(made.account_id) == agreed
    with pytest.raises(Conflict, match="unknown"):
        await store.agree_to_terms("nobody", "2", given.event())
