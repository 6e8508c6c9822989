"""The gate before orders that need a person, over a real store."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_gate import LIMITS, ApprovalGate
from broker.issuance.approval_people import People
from broker.issuance.approval_ports import ApprovalStatus, QueueLimits
from broker.issuance.events import EventKind
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.approving import ANNA, BEN, ask, filed, people_policy, say, waiting
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.world import World, approval_url, dns

DAY = timedelta(days=1)
HOST = "www.people.example.com"
OTHER = "mail.people.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people."""
    async with World(tmp_path) as made:
        made.policies.set(people_policy())
        yield made


async def test_order_that_needs_a_person_is_refused_and_filed(world: World) -> None:
    """With a sentence that stands alone, and the URL in both places."""
    client = await world.client()
    problem = await ask(client, HOST)
    (request,) = await waiting(world)
    url = approval_url("default", request.approval_id)
    assert (problem.type, problem.status) == (ProblemType.USER_ACTION_REQUIRED, 403)
    assert problem.instance == url
    assert problem.detail == (
        f"profile 'server' for '{HOST}' has to be approved by a person, and the request waits for"
        f" that; run your client again once it says so at {url}"
    )
    (event,) = await world.events(EventKind.APPROVAL_REQUESTED)
    assert event.actor.name == f"account:{client.account.account_id}"
    assert event.data["identifiers"] == [HOST]
    assert request.asked_by["thumbprint"] == client.account.thumbprint
    assert request.terms["rules"] == ["default.yaml:33 rule 'one-person'"]
    assert await world.count(EventKind.ORDER_CREATED) == 0


async def test_who_asks_is_shown_with_how_its_node_was_let_in(world: World) -> None:
    """And what of it there is nothing to know of is left out."""
    client = await world.client()
    facts = await world.planner.facts(
        client.account, identifiers=(dns(HOST),), profile=None, not_before=None, not_after=None
    )
    asks = replace(facts.requester, node="web-01", attestation="kubernetes", namespace="shop")
    with pytest.raises(Problem):
        await world.approvals.require(client.account, world.planner.decide(facts), asks)
    (request,) = await waiting(world)
    shown = request.asked_by
    assert (shown["node"], shown["attestation"]) == ("web-01", "kubernetes")
    assert "service_account" not in shown


async def test_order_that_needs_nobody_passes(world: World) -> None:
    """In the same community, for the same account."""
    client = await world.client()
    order = await client.order("www.example.com")
    assert "approvals" not in order.decision
    assert not await waiting(world)


async def test_identical_retry_joins_the_request(world: World) -> None:
    """It gets the same words, and is counted once a minute."""
    client = await world.client()
    told = [await ask(client, HOST, OTHER), await ask(client, OTHER, HOST)]
    world.clock.advance(timedelta(hours=1))
    told.append(await ask(client, HOST, OTHER))
    assert told[0] == told[1] == told[2]
    (request,) = await waiting(world)
    assert (request.times_asked, request.last_asked_at) == (2, world.clock.now())
    assert await world.count(EventKind.APPROVAL_REQUESTED) == 1


async def test_retries_at_the_same_moment_file_one_request(world: World) -> None:
    """Ten of them."""
    client = await world.client()
    told = await asyncio.gather(*(ask(client, HOST) for _ in range(10)))
    assert len({one.instance for one in told}) == 1
    assert len(await waiting(world)) == 1


async def test_another_account_profile_or_set_of_names_is_another_request(world: World) -> None:
    """What one is given, nobody else has."""
    client, other = await world.client(), await world.client()
    instances = {
        (await ask(client, HOST)).instance,
        (await ask(other, HOST)).instance,
        (await ask(client, HOST, profile="private")).instance,
        (await ask(client, OTHER)).instance,
    }
    assert len(instances) == 4
    approved = await filed(client, HOST)
    await say(world, approved, "approve", ANNA)
    await client.order(HOST)
    assert (await ask(other, HOST)).type is ProblemType.USER_ACTION_REQUIRED
    assert (await ask(client, HOST, profile="private")).type is ProblemType.USER_ACTION_REQUIRED


async def test_next_ordinary_run_after_the_approval_gets_its_certificate(world: World) -> None:
    """And so does every one for as long as the approval holds."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    order = await client.issue(HOST)
    assert (await world.load(order)).decision["approvals"] == [request.approval_id]
    world.clock.advance(29 * DAY)
    await client.issue(HOST)


async def test_approvals_of_single_names_open_them_together(world: World) -> None:
    """A further name is asked for alone."""
    client = await world.client()
    for name in (HOST, OTHER):
        await say(world, await filed(client, name), "approve", ANNA)
    order = await client.order(HOST, OTHER, "www.example.com")
    assert len(order.decision["approvals"]) == 2  # type: ignore[arg-type]
    request = await filed(client, HOST, "new.people.example.com")
    assert [one.value for one in request.identifiers] == ["new.people.example.com"]


async def test_request_stays_though_its_client_never_returns(world: World) -> None:
    """Also over a restart."""
    client = await world.client()
    request = await filed(client, HOST)
    await world.restart()
    assert await waiting(world) == [request]
    approved = await say(world, request, "approve", ANNA)
    assert approved.status is ApprovalStatus.APPROVED


async def test_request_that_nobody_answers_ends_and_is_filed_anew(world: World) -> None:
    """Only once the client asks again."""
    client = await world.client()
    request = await filed(client, HOST)
    world.clock.advance(7 * DAY)
    again = await filed(client, HOST)
    assert again.earlier == request.approval_id
    ended = await world.store.find_approval(request.approval_id)
    assert ended is not None
    assert ended.status is ApprovalStatus.EXPIRED
    (event,) = await world.events(EventKind.APPROVAL_EXPIRED)
    assert event.data["why"] == "nobody answered in time"


async def test_approval_ends_and_is_asked_for_anew(world: World) -> None:
    """Its holder is told with the same words as at first."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    world.clock.advance(30 * DAY)
    again = await filed(client, HOST)
    assert (again.earlier, again.status) == (request.approval_id, ApprovalStatus.WAITING)


async def test_denied_request_is_told_why_and_does_not_pester(world: World) -> None:
    """For as long as an answer is waited for; a larger set of names is another request."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "deny", ANNA)
    refused = await ask(client, HOST)
    assert (refused.type, refused.status) == (ProblemType.UNAUTHORIZED, 403)
    assert "was not approved" in refused.detail
    assert "(seen in person)" in refused.detail
    assert not await waiting(world)
    assert (await filed(client, HOST, OTHER)).status is ApprovalStatus.WAITING
    world.clock.advance(7 * DAY)
    assert (await filed(client, HOST)).earlier == request.approval_id


async def test_suspended_approval_freezes_orders_until_it_is_resumed(world: World) -> None:
    """New ones and those that are open; nothing is filed meanwhile."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    order = await client.ready(HOST)
    await say(world, request, "suspend", BEN)
    with pytest.raises(Problem, match="the approval is suspended") as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    assert "is suspended" in (await ask(client, HOST)).detail
    assert (await client.read(order)).status is OrderStatus.READY
    await say(world, request, "resume", ANNA)
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_withdrawn_approval_ends_open_orders(world: World) -> None:
    """A further ask is filed with what came before."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    order = await client.ready(HOST)
    await say(world, request, "withdraw", BEN)
    with pytest.raises(Problem, match="the approval was withdrawn") as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    again = await filed(client, HOST)
    assert again.earlier == request.approval_id
    # What is approved now is not what the order was made under.
    await say(world, again, "approve", ANNA)
    with pytest.raises(Problem, match="the approval was withdrawn"):
        await client.finalize(order)


async def test_rule_that_comes_between_is_asked_at_finalize(world: World) -> None:
    """The stricter of the two versions of the policy holds."""
    client = await world.client()
    world.policies.change("cap: 90d", "cap: 89d")
    order = await client.ready(HOST)
    world.policies.set(people_policy())
    with pytest.raises(Problem) as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    (request,) = await waiting(world)
    await say(world, request, "approve", ANNA)
    done = await client.finalize(order)
    assert done.decision["approvals"] == [request.approval_id]


async def test_rule_that_goes_leaves_what_was_withdrawn(world: World) -> None:
    """An order that was made under an approval rests on it to its end."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    order = await client.ready(HOST)
    await say(world, request, "withdraw", BEN)
    world.policies.change("cap: 90d", "cap: 89d")
    with pytest.raises(Problem, match="the approval was withdrawn"):
        await client.finalize(order)
    await client.issue(HOST)


async def test_stricter_policy_makes_an_approval_due(world: World) -> None:
    """It opens nothing until as many people have said yes as it takes now."""
    client = await world.client()
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    world.policies.set(people_policy("answer_within: 7d", "people: 2"))
    refused = await ask(client, HOST)
    assert "its evidence has to be shown anew" in refused.detail
    assert refused.instance == approval_url("default", request.approval_id)
    (event,) = await world.events(EventKind.APPROVAL_DUE)
    assert event.data["why"] == "policy asks for more by now"
    await say(world, request, "renew", ANNA)
    assert "shown anew" in (await ask(client, HOST)).detail
    await say(world, request, "renew", BEN)
    await client.issue(HOST)


async def test_evidence_that_grew_old_makes_an_approval_due(world: World) -> None:
    """Renewals of unchanged names are no exception; a renewal without evidence mends nothing."""
    client = await world.client()
    name = "www.board.example.com"
    request = await filed(client, name)
    await say(world, request, "approve", ANNA, "ticket=7")
    await say(world, request, "approve", BEN)
    await client.issue(name)
    world.clock.advance(100 * DAY)
    assert "its evidence has to be shown anew" in (await ask(client, name)).detail
    await say(world, request, "renew", ANNA)
    with pytest.raises(Problem, match="evidence of kind 'ticket' is missing"):
        await say(world, request, "renew", BEN)
    await say(world, request, "renew", BEN, "ticket=8")
    await client.issue(name)


# -------------------------------------------------------------------------------------- bounds


async def test_one_account_does_not_fill_the_queue(world: World) -> None:
    """It is told so, and others are heard as before."""
    client, other = await world.client(), await world.client()
    for number in range(LIMITS.of_asker):
        await filed(client, f"h{number}.people.example.com")
    full = await ask(client, HOST)
    assert full.type is ProblemType.RATE_LIMITED
    assert full.retry_after is not None
    assert "20 requests of this requester wait for a person already" in full.detail
    assert (await ask(client, "h0.people.example.com")).type is ProblemType.USER_ACTION_REQUIRED
    assert (await filed(other, HOST)).status is ApprovalStatus.WAITING


async def test_queue_as_a_whole_is_bounded(world: World) -> None:
    """Accounts cost nothing, people do."""
    gate = ApprovalGate(
        world.store, People(world.store), world.clock, approval_url,
        limits=QueueLimits(of_asker=20, in_all=2),
    )  # fmt: skip
    world.orders._approvals = gate
    for _ in range(2):
        await filed(await world.client(), HOST)
    full = await ask(await world.client(), HOST)
    assert full.type is ProblemType.RATE_LIMITED
    assert "2 requests wait for a person already, at most 2" in full.detail


async def test_without_anybody_to_ask_nothing_passes(world: World) -> None:
    """Unsure means no; what needs nobody passes all the same."""
    client = await world.client()
    world.orders._approvals = None
    refused = await ask(client, HOST)
    assert refused.type is ProblemType.UNAUTHORIZED
    await client.order("www.example.com")


# --------------------------------------------------------------------------------------- nodes


async def test_node_is_told_once_and_gets_its_certificate_after_the_approval(
    tmp_path: Path,
) -> None:
    """It is asked for no key before, not told the same again, and need not wait for its turn."""
    async with DeliveryWorld(tmp_path) as world:
        world.policies.set(people_policy("people.example.com", "robots.example.com"))
        node = await world.node("web-01")
        await node.wants("www")
        await node.work()
        (request,) = await waiting(world)
        assert request.asked_by["people"] == ["web team", "web@corp.example"]
        for _ in range(3):
            await world.let_pass(timedelta(hours=7))
            await world.sweep()
            await node.work()
        assert len(await waiting(world)) == 1
        assert await world.count(EventKind.MANAGED_REFUSED) == 1
        assert [one.kind for one in node.heard].count("refused") == 1
        assert not node.csrs
        await say(world, request, "approve", ANNA)
        await world.sweep()
        await node.work()
        assert node.installed


async def test_demand_that_names_nothing_is_about_the_whole_order(world: World) -> None:
    """And one about no name at all opens nothing."""
    client = await world.client()
    facts = await world.planner.facts(
        client.account, identifiers=(dns(HOST), dns("www.example.com")), profile=None,
        not_before=None, not_after=None,
    )  # fmt: skip
    decision = world.planner.decide(facts)
    assert decision.approval is not None
    vague = replace(decision, approval=replace(decision.approval, identifiers=()))
    with pytest.raises(Problem):
        await world.approvals.require(client.account, vague, facts.requester)
    (request,) = await waiting(world)
    assert [one.value for one in request.identifiers] == ["www.example.com", HOST]
    with pytest.raises(Problem):
        await world.approvals.require(
            client.account, replace(vague, requirements={}), facts.requester
        )
