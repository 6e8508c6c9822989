"""One key is one account; what a community demands is asked once, when the account is made."""

import asyncio
from dataclasses import replace

import pytest

from broker.issuance.accounts import new_id
from broker.issuance.events import Actor, EventKind
from broker.issuance.settings import CommunitySettings
from broker.protocol.jws import seal_binding
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import AccountUpdate, NewAccount
from broker.protocol.resources import AccountStatus, AuthorizationStatus, OrderStatus
from tests.fakes.world import NEW_ACCOUNT_URL, ROBOT_KEY, World, jwk_of, new_key

TERMS = "https://pki.corp.example/terms"


def demand(world: World, **changes: object) -> None:
    """Change what the lab demands, from the next request on."""
    lab = replace(CommunitySettings(name="lab"), **changes)  # type: ignore[arg-type]
    communities = {**world.settings.communities, "lab": lab}
    world.accounts._settings = replace(world.settings, communities=communities)


def test_ids_are_hex_and_unlike() -> None:
    """128 bits, which nobody guesses."""
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)


async def test_account_is_made_once(world: World) -> None:
    """The same key gets the same account, whatever else it says then."""
    key = jwk_of(new_key())
    request = NewAccount(contacts=("mailto:a@example.com",), terms_agreed=True)
    made, is_new = await world.accounts.register("default", key, request, None)
    again, is_new_again = await world.accounts.register(
        "default", key, NewAccount(contacts=("mailto:b@example.com",)), None
    )
    assert (is_new, is_new_again) == (True, False)
    assert again == made
    assert (made.contacts, made.terms_agreed) == (("mailto:a@example.com",), True)
    assert await world.count(EventKind.ACCOUNT_CREATED) == 1


async def test_eight_requests_at_once_make_one_account(world: World) -> None:
    """One of them made it, the others got it."""
    key = jwk_of(new_key())
    got = await asyncio.gather(
        *(world.accounts.register("default", key, NewAccount(), None) for _ in range(8))
    )
    assert len({account.account_id for account, _ in got}) == 1
    assert sum(is_new for _, is_new in got) == 1
    assert await world.count(EventKind.ACCOUNT_CREATED) == 1


async def test_one_key_in_two_communities_is_two_accounts(world: World) -> None:
    """A community knows nothing of another's accounts."""
    key = jwk_of(new_key())
    here, _ = await world.accounts.register("default", key, NewAccount(), None)
    there, _ = await world.accounts.register("lab", key, NewAccount(), None)
    assert here.account_id != there.account_id
    for community, other in (("default", there), ("lab", here)):
        with pytest.raises(Problem) as refused:
            await world.accounts.require(community, other.account_id)
        assert refused.value.type is ProblemType.ACCOUNT_DOES_NOT_EXIST
    assert await world.accounts.require("default", here.account_id) == here


async def test_only_return_existing_makes_nothing(world: World) -> None:
    """An unknown key is told so; a known one gets its account."""
    key = jwk_of(new_key())
    asks = NewAccount(only_return_existing=True)
    with pytest.raises(Problem) as refused:
        await world.accounts.register("default", key, asks, None)
    assert refused.value.type is ProblemType.ACCOUNT_DOES_NOT_EXIST
    made, _ = await world.accounts.register("default", key, NewAccount(), None)
    assert await world.accounts.register("default", key, asks, None) == (made, False)


async def test_terms_have_to_be_agreed_to(world: World) -> None:
    """Where there are terms, newAccount without agreement is refused with their address."""
    demand(world, terms_of_service=TERMS)
    key = jwk_of(new_key())
    with pytest.raises(Problem) as refused:
        await world.accounts.register("lab", key, NewAccount(), None)
    assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    assert refused.value.links == (("terms-of-service", TERMS),)
    made, is_new = await world.accounts.register("lab", key, NewAccount(terms_agreed=True), None)
    assert is_new
    assert made.terms_agreed


async def test_binding_has_to_be_there_where_it_is_required(world: World) -> None:
    """Without one newAccount is refused; with one it passes, and the account keeps its key id."""
    communities = {
        **world.settings.communities,
        "default": CommunitySettings(name="default", external_account_required=True),
    }
    world.accounts._settings = replace(world.settings, communities=communities)
    key = jwk_of(new_key())
    with pytest.raises(Problem) as refused:
        await world.accounts.register("default", key, NewAccount(), None)
    assert refused.value.type is ProblemType.EXTERNAL_ACCOUNT_REQUIRED
    binding = world.binding("robot", ROBOT_KEY, key)
    made, _ = await world.accounts.register("default", key, NewAccount(), binding)
    assert made.eab_key_id == "robot"


async def test_contacts_change_and_nothing_else_does(world: World) -> None:
    """No event is written where nothing changed."""
    client = await world.client()
    changed = await world.accounts.update(
        client.account, AccountUpdate(contacts=("mailto:new@example.com",))
    )
    assert changed == replace(client.account, contacts=("mailto:new@example.com",))
    assert await world.accounts.update(changed, AccountUpdate()) == changed
    assert await world.accounts.update(changed, AccountUpdate(contacts=changed.contacts)) == changed
    assert await world.count(EventKind.ACCOUNT_UPDATED) == 1


async def test_deactivated_account_can_do_nothing_more(world: World) -> None:
    """Each way in is closed with 401, and its key does not get a new one."""
    client = await world.client()
    ended = await world.accounts.update(client.account, AccountUpdate(deactivate=True))
    assert ended.status is AccountStatus.DEACTIVATED
    attempts = [
        world.accounts.require("default", ended.account_id),
        world.accounts.register("default", jwk_of(client.key), NewAccount(), None),
        world.accounts.update(client.account, AccountUpdate(contacts=("mailto:a@example.com",))),
        world.accounts.update(client.account, AccountUpdate(deactivate=True)),
        world.accounts.deactivate(ended, Actor("operator:ann")),
    ]
    for attempt in attempts:
        with pytest.raises(Problem) as refused:
            await attempt
        assert (refused.value.type, refused.value.status) == (ProblemType.UNAUTHORIZED, 401)
    assert await world.count(EventKind.ACCOUNT_DEACTIVATED) == 1


async def test_deactivation_takes_the_unfinished_orders_with_it(world: World) -> None:
    """Pending and ready ones with their authorizations; certificates stay (RFC 8555 §7.3.6)."""
    client, other = await world.client(), await world.client()
    issued = await client.issue("issued.example.com")
    pending, ready = await client.order("a.example.com"), await client.ready("b.example.com")
    others = await other.order("c.example.com")
    await world.accounts.update(client.account, AccountUpdate(deactivate=True))
    for order, status in (
        (pending, OrderStatus.INVALID),
        (ready, OrderStatus.INVALID),
        (issued, OrderStatus.VALID),
        (others, OrderStatus.PENDING),
    ):
        assert (await world.load(order)).status is status
    for order in (pending, ready):
        for authorization_id in order.authorization_ids:
            kept = await world.store.load_authorization(authorization_id)
            assert kept is not None
            assert kept.status is AuthorizationStatus.DEACTIVATED
    assert {event.order_id for event in await world.events(EventKind.ORDER_CANCELLED)} == {
        pending.order_id,
        ready.order_id,
    }
    (certificate,) = await world.certificates()
    assert certificate.revoked_at is None


async def test_binding_is_kept_as_it_was_sent(world: World) -> None:
    """Only of an account that was made by it, and only once it is verified (RFC 8555 §7.3.4)."""
    key = jwk_of(new_key())
    sealed = seal_binding("robot", ROBOT_KEY, "HS256", NEW_ACCOUNT_URL, key)
    binding = world.binding("robot", ROBOT_KEY, key)
    made, _ = await world.accounts.register("default", key, NewAccount(eab=sealed), binding)
    kept = await world.store.find_account(made.account_id)
    assert kept is not None
    assert kept.binding == sealed
    other, _ = await world.accounts.register(
        "default", jwk_of(new_key()), NewAccount(eab=None), None
    )
    assert other.binding is None
    again, _ = await world.accounts.register("default", key, NewAccount(eab={"x": "y"}), None)
    assert again.binding == sealed


async def test_operator_who_deactivates_is_named(world: World) -> None:
    """The event tells who did it and why."""
    client = await world.client()
    await world.accounts.deactivate(client.account, Actor("operator:ann", "left the company"))
    (event,) = await world.events(EventKind.ACCOUNT_DEACTIVATED)
    assert event.actor == Actor("operator:ann", "left the company")
    assert event.account_id == client.account.account_id
