"""Terms that changed keep an account from new work until it agrees, and only then."""

from dataclasses import replace

import pytest

from broker.issuance.events import EventKind
from broker.issuance.settings import CommunitySettings
from broker.issuance.terms import agreed_version, check_agreed, check_current
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import AccountUpdate, NewAccount
from tests.fakes.world import World, jwk_of

TERMS = "https://pki.corp.example/terms"
HOW = "https://pki.corp.example/how"


def community(**changes: object) -> CommunitySettings:
    """Return a community with terms."""
    made = CommunitySettings(name="default", terms_of_service=TERMS, terms_version="2")
    return replace(made, **changes)  # type: ignore[arg-type]


def put_in_force(world: World, demands: CommunitySettings) -> None:
    """Have the world demand this from the next request on."""
    communities = {**world.settings.communities, demands.name: demands}
    settings = replace(world.settings, communities=communities)
    world.accounts._settings = world.orders._settings = settings
    world.orders._ahead._settings = settings


def test_version_without_terms_counts_for_nothing() -> None:
    """There is nothing to agree to."""
    assert agreed_version(community()) == "2"
    assert agreed_version(community(terms_of_service=None)) is None
    check_agreed(community(terms_of_service=None), is_agreeing=False)


async def test_account_of_older_terms_orders_nothing(world: World) -> None:
    """403 with where to read them, and how to agree; whoever agreed to these goes on."""
    old = await world.client()
    put_in_force(world, community(terms_instance=HOW))
    with pytest.raises(Problem) as refused:
        await old.order("www.example.com")
    problem = refused.value
    assert (problem.type, problem.status) == (ProblemType.USER_ACTION_REQUIRED, 403)
    assert problem.links == (("terms-of-service", TERMS),)
    assert problem.instance == HOW
    with pytest.raises(Problem) as refused:
        await world.orders.pre_authorize(
            old.account, Identifier(IdentifierType.DNS, "www.example.com")
        )
    assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    key = jwk_of(new := old.key)
    assert new is old.key
    agreed, _ = await world.accounts.register("default", key, NewAccount(terms_agreed=True), None)
    old.account = agreed
    await old.order("www.example.com")


async def test_instance_is_the_terms_where_no_page_tells_more(world: World) -> None:
    """There is always somewhere to go (RFC 8555 §7.3.3)."""
    client = await world.client()
    with pytest.raises(Problem) as refused:
        check_current(community(), client.account)
    assert refused.value.instance == TERMS
    check_current(community(terms_version=None), client.account)


async def test_update_agrees_as_well_and_is_kept_once(world: World) -> None:
    """What does not agree changes nothing; agreeing twice is one event."""
    client = await world.client()
    put_in_force(world, community())
    same = await world.accounts.update(client.account, AccountUpdate())
    assert same.terms_version is None
    for _ in range(2):
        client.account = await world.accounts.update(
            client.account, AccountUpdate(terms_agreed=True)
        )
    assert client.account.terms_version == "2"
    (event,) = await world.events(EventKind.ACCOUNT_AGREED)
    assert event.data == {"terms_version": "2"}
    await client.order("www.example.com")


async def test_reading_and_finding_an_account_agrees_to_nothing(world: World) -> None:
    """Only the member that says so does."""
    client = await world.client()
    put_in_force(world, community())
    found, _ = await world.accounts.register(
        "default", jwk_of(client.key), NewAccount(only_return_existing=True), None
    )
    assert found.terms_version is None


async def test_new_account_agrees_to_the_version_in_force(world: World) -> None:
    """And needs no second word."""
    put_in_force(world, community())
    from tests.fakes.world import Client, new_key

    key = new_key()
    account, _ = await world.accounts.register(
        "default", jwk_of(key), NewAccount(terms_agreed=True), None
    )
    assert account.terms_version == "2"
    await Client(world, account, key).order("www.example.com")
