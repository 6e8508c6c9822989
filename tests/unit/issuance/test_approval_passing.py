"""Where the journey of an order meets the gate: renewals that a rule exempts."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_passing import resting_on
from broker.issuance.approval_ports import ApprovalRecord
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.approving import ANNA, BEN, filed, people_policy, say, waiting
from tests.fakes.world import Client, World

HOST = "www.people.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people, and leaves renewals of unchanged names alone."""
    async with World(tmp_path) as made:
        made.policies.set(
            people_policy(
                'names: ["**.people.example.com"]',
                'renewals: exempt\n    names: ["**.people.example.com"]',
            )
        )
        yield made


async def held(world: World, client: Client) -> ApprovalRecord:
    """Have a certificate by an approval."""
    request = await filed(client, HOST)
    await say(world, request, "approve", ANNA)
    await client.issue(HOST)
    return request


def test_order_tells_what_it_rests_on() -> None:
    """And says nothing where that is nothing."""
    assert resting_on({"lever": "ask"}, ["a1"]) == {"lever": "ask", "approvals": ["a1"]}
    assert resting_on({"lever": "ask"}, ()) == {"lever": "ask"}


async def test_renewal_that_is_exempt_outlives_its_approval(world: World) -> None:
    """That is what the rule says."""
    client = await world.client()
    request = await held(world, client)
    order = await client.issue(HOST)
    assert "approvals" not in order.decision
    assert request.approval_id


async def test_renewal_of_what_was_withdrawn_takes_a_person(world: World) -> None:
    """However exempt renewals are; once approved anew they are exempt again."""
    client = await world.client()
    request = await held(world, client)
    opened = await client.ready(HOST)
    await say(world, request, "withdraw", BEN)
    for doing in (client.order(HOST), client.finalize(opened)):
        with pytest.raises(Problem, match="has to be approved by a person") as refused:
            await doing
        assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    (again,) = await waiting(world)
    assert again.earlier == request.approval_id
    await say(world, again, "approve", ANNA)
    await client.issue(HOST)
    await client.finalize(opened)


async def test_no_after_a_withdrawal_opens_nothing(world: World) -> None:
    """Who asks anew and is denied has what they had before they asked: nothing."""
    client = await world.client()
    await say(world, await held(world, client), "withdraw", BEN)
    again = await filed(client, HOST)
    world.clock.advance(timedelta(hours=1))
    await say(world, again, "deny", ANNA)
    with pytest.raises(Problem, match="was not approved"):
        await client.order(HOST)
    world.clock.advance(timedelta(days=8))
    with pytest.raises(Problem, match="has to be approved by a person"):
        await client.order(HOST)


async def test_renewal_of_what_is_suspended_waits(world: World) -> None:
    """Until it is resumed."""
    client = await world.client()
    request = await held(world, client)
    await say(world, request, "suspend", BEN)
    with pytest.raises(Problem, match="the approval is suspended"):
        await client.order(HOST)
    await say(world, request, "resume", ANNA)
    await client.issue(HOST)


async def test_rule_that_is_gone_takes_nobody(world: World) -> None:
    """What was withdrawn under it is an order like any other then."""
    client = await world.client()
    await say(world, await held(world, client), "withdraw", BEN)
    world.policies.change("cap: 90d", "cap: 89d")
    await client.issue(HOST)
