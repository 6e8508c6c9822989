"""Names proven ahead of any order: worth something to the account that proved them, for a while."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.records import AuthorizationRecord, Proof
from broker.issuance.settings import CommunitySettings
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import Client, World, dns

WEEK = timedelta(days=7)
NAME = "www.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A broker whose communities offer pre-authorization for a week."""
    communities = {
        name: CommunitySettings(name=name, pre_authorization=WEEK) for name in ("default", "lab")
    }
    with memory_folder(tmp_path) as folder:
        async with World(folder, communities=communities) as made:
            yield made


async def ahead(client: Client, name: str = NAME) -> AuthorizationRecord:
    """Ask for an authorization without an order."""
    return await client.world.orders.pre_authorize(client.account, dns(name))


async def proven(client: Client, name: str = NAME, place: int = 0) -> AuthorizationRecord:
    """Ask for one, and prove the name."""
    made = await ahead(client, name)
    await client.respond(made, place)
    await client.world.settle()
    found = await client.world.authorizations.read(client.account, made.authorization_id)
    assert found.status is AuthorizationStatus.VALID
    return found


async def test_authorization_without_an_order_is_pending_and_becomes_valid(world: World) -> None:
    """With the challenges that policy offers; a look makes it valid as it would an order's."""
    client = await world.client()
    made = await ahead(client)
    assert (made.order_id, made.status) == (None, AuthorizationStatus.PENDING)
    kinds = [one.type for one in made.challenges]
    assert kinds == [ChallengeType.HTTP_01, ChallengeType.DNS_01]
    assert made.expires_at == world.clock.now() + WEEK
    valid = await proven(client, "api.example.com")
    assert (valid.proof, valid.rests_on) == (Proof.CHALLENGE, None)
    assert await world.count(EventKind.AUTHORIZATION_CREATED) == 2
    assert await world.jobs() == 0


async def test_wrong_answer_makes_it_invalid(world: World) -> None:
    """Nobody's order ends with it, for there is none."""
    client = await world.client()
    world.validator.wrong.add(NAME)
    made = await ahead(client)
    await client.respond(made)
    await world.settle()
    found = await world.authorizations.read(client.account, made.authorization_id)
    assert found.status is AuthorizationStatus.INVALID
    order = await client.order(NAME)
    assert order.status is OrderStatus.PENDING


async def test_later_order_is_ready_at_once(world: World) -> None:
    """It has an authorization of its own, valid by the same proof, and nobody looks again."""
    client = await world.client()
    ground = await proven(client)
    order = await client.order(NAME)
    assert order.status is OrderStatus.READY
    (own,) = await client.authorizations(order)
    assert own.authorization_id != ground.authorization_id
    assert (own.rests_on, own.proof) == (ground.authorization_id, Proof.CHALLENGE)
    (challenge,) = own.challenges
    assert (challenge.status, challenge.type) == (ChallengeStatus.VALID, ChallengeType.HTTP_01)
    assert challenge.challenge_id not in {one.challenge_id for one in ground.challenges}
    assert len(world.validator.asked) == 1
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_order_of_several_names_asks_for_the_others(world: World) -> None:
    """What was proven ahead is valid, the rest is pending."""
    client = await world.client()
    await proven(client)
    order = await client.order(NAME, "api.example.com")
    assert order.status is OrderStatus.PENDING
    statuses = [one.status for one in await client.authorizations(order)]
    assert statuses == [AuthorizationStatus.VALID, AuthorizationStatus.PENDING]
    for authorization in (await client.authorizations(order))[1:]:
        await client.respond(authorization)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY


@pytest.mark.parametrize(
    ("community", "is_same"),
    [("default", False), ("lab", False), ("default", True)],
    ids=["another account", "another community", "the same account"],
)
async def test_proof_is_worth_nothing_to_anybody_else(
    world: World, community: str, is_same: bool
) -> None:
    """Not to another account, and not to the same key in another community."""
    client = await world.client()
    await proven(client)
    key = client.key if community == "lab" else None
    asker = client if is_same else await world.client(community, key=key)
    order = await asker.order(NAME)
    assert order.status is (OrderStatus.READY if is_same else OrderStatus.PENDING)


@pytest.mark.parametrize(
    "name",
    ["*.sub.example.com", "www.sub.example.com", "of.example.com", "osub.example.com"],
    ids=["wildcard", "below", "beside", "longer"],
)
async def test_proof_of_a_name_is_no_proof_of_its_neighbours(world: World, name: str) -> None:
    """Exactly the name that was proven, and never a wildcard."""
    client = await world.client()
    await proven(client, "sub.example.com")
    assert (await client.order(name)).status is OrderStatus.PENDING
    assert (await client.order("sub.example.com")).status is OrderStatus.READY


async def test_order_ends_no_later_than_what_it_rests_on(world: World) -> None:
    """An hour before its end it is good for an hour; minutes before, it is good for nothing."""
    client = await world.client()
    ground = await proven(client)
    world.clock.advance(WEEK - timedelta(hours=1))
    order = await client.order(NAME)
    assert (order.status, order.expires_at) == (OrderStatus.READY, ground.expires_at)
    assert [one.expires_at for one in await client.authorizations(order)] == [ground.expires_at]
    world.clock.advance(timedelta(minutes=50))
    late = await client.order(NAME)
    assert late.status is OrderStatus.PENDING
    world.clock.advance(timedelta(minutes=10))
    assert (await client.read(order)).status is OrderStatus.INVALID


async def test_challenge_that_policy_asks_for_no_more_proves_nothing(world: World) -> None:
    """Policy is asked anew at newOrder; a proof of the kind that it still wants holds."""
    client = await world.client()
    await proven(client)
    await proven(client, "api.example.com", place=1)
    world.policies.change("challenges: [http-01, dns-01]", "challenges: [dns-01]")
    assert (await client.order(NAME)).status is OrderStatus.PENDING
    assert (await client.order("api.example.com")).status is OrderStatus.READY


async def test_name_that_policy_denies_by_now_is_refused_all_the_same(world: World) -> None:
    """A proof of control is no permission."""
    client = await world.client()
    await proven(client)
    world.policies.change("denied.example.com", NAME)
    with pytest.raises(Problem) as refused:
        await client.order(NAME)
    assert refused.value.type is ProblemType.REJECTED_IDENTIFIER


@pytest.mark.parametrize(
    ("identifier", "kind"),
    [
        (dns("www.example.net"), ProblemType.REJECTED_IDENTIFIER),
        (dns("denied.example.com"), ProblemType.REJECTED_IDENTIFIER),
        (Identifier(IdentifierType.EMAIL, "a@example.com"), ProblemType.UNSUPPORTED_IDENTIFIER),
    ],
    ids=["allowed by no rule", "denied", "another type"],
)
async def test_unwilling_policy_answers_403(
    world: World, identifier: Identifier, kind: ProblemType
) -> None:
    """As newOrder would, with the status of RFC 8555 §7.4.1; a name it allows is pending."""
    client = await world.client()
    with pytest.raises(Problem) as refused:
        await world.orders.pre_authorize(client.account, identifier)
    assert (refused.value.type, refused.value.status) == (kind, 403)
    assert len(await world.events(EventKind.REQUEST_REFUSED)) == 1
    await ahead(client)


async def test_trusted_requester_is_granted_it_at_once(world: World) -> None:
    """By policy, so it is no ground for anything: the rule is asked anew at newOrder."""
    robot = await world.robot()
    made = await ahead(robot, "a.robots.example.com")
    assert (made.status, made.proof) == (AuthorizationStatus.VALID, Proof.POLICY)
    order = await robot.order("a.robots.example.com")
    (own,) = await robot.authorizations(order)
    assert (own.proof, own.rests_on) == (Proof.POLICY, None)


async def test_community_that_offers_none_makes_none(tmp_path: Path) -> None:
    """Off unless it is configured, and then older ones count for nothing."""
    with memory_folder(tmp_path) as folder:
        async with World(folder) as world:
            client = await world.client()
            with pytest.raises(Problem) as refused:
                await ahead(client)
            assert (refused.value.type, refused.value.status) == (ProblemType.UNAUTHORIZED, 403)


async def test_giving_it_up_takes_the_orders_that_rest_on_it(world: World) -> None:
    """Those that are not on their way to the CA; another name's order stays (RFC 8555 §7.5.2)."""
    client = await world.client()
    ground = await proven(client)
    ready, finalized = await client.order(NAME), await client.order(NAME)
    finalized = await client.finalize(finalized)
    other = await client.ready("api.example.com")
    await world.authorizations.deactivate(client.account, ground.authorization_id)
    assert (await client.read(ready)).status is OrderStatus.INVALID
    assert (await client.read(finalized)).status is OrderStatus.VALID
    assert (await client.read(other)).status is OrderStatus.READY
    (own,) = await client.authorizations(ready)
    assert own.status is AuthorizationStatus.DEACTIVATED
    assert (await client.order(NAME)).status is OrderStatus.PENDING


async def test_ground_that_is_given_up_under_a_new_order_is_none(world: World) -> None:
    """Between the look at it and the write: the order begins pending."""
    client = await world.client()
    ground = await proven(client)
    looked = world.orders._ahead.grounds

    async def grounds(*args: object) -> object:
        found = await looked(*args)  # type: ignore[arg-type]
        await world.authorizations.deactivate(client.account, ground.authorization_id)
        return found

    world.orders._ahead.grounds = grounds  # type: ignore[assignment, method-assign]
    order = await client.order(NAME)
    assert order.status is OrderStatus.PENDING
    (own,) = await client.authorizations(order)
    assert own.rests_on is None


async def test_eight_orders_at_once_rest_on_one(world: World) -> None:
    """Each has its own authorization, and all are ready."""
    client = await world.client()
    await proven(client)
    orders = await asyncio.gather(*(client.order(NAME) for _ in range(8)))
    assert {order.status for order in orders} == {OrderStatus.READY}
    assert len({order.authorization_ids for order in orders}) == 8


async def test_account_that_ends_takes_its_pre_authorizations(world: World) -> None:
    """Pending and valid ones; another account's stay."""
    client, other = await world.client(), await world.client()
    pending, valid = await ahead(client, "api.example.com"), await proven(client)
    others = await proven(other)
    await world.accounts.deactivate(client.account, Actor("operator:ann"))
    for one, status in (
        (pending, AuthorizationStatus.DEACTIVATED),
        (valid, AuthorizationStatus.DEACTIVATED),
        (others, AuthorizationStatus.VALID),
    ):
        found = await world.store.load_authorization(one.authorization_id)
        assert found is not None
        assert found.status is status


async def test_expired_one_is_not_looked_for(world: World) -> None:
    """A broker that was down for its whole life has nothing to look for."""
    client = await world.client()
    made = await ahead(client)
    world.validator.stall()
    await client.respond(made)
    await world.settle()
    await world.stop()
    world.clock.advance(WEEK)
    await world.start()
    await world.settle()
    assert len(world.validator.asked) == 1
    kept = await world.store.load_authorization(made.authorization_id)
    assert kept is not None
    assert kept.status is AuthorizationStatus.INVALID
