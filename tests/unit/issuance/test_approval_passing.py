"""Where the journey of an order meets the gate: renewals that a rule exempts."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_ports import ApprovalRecord
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.approving import ANNA, BEN, filed, people_policy, say, waiting
from tests.fakes.world import Client, World

HOST = "www.people.example.com"
BOARD = "www.board.example.com"


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


async def test_renewal_that_is_exempt_outlives_its_approval(world: World) -> None:
    """That is what the rule says."""
    client = await world.client()
    request = await held(world, client)
    world.clock.advance(timedelta(days=31))
    order = await client.issue(HOST)
    assert "approvals" not in order.decision
    assert order.decision["renewed_under"] == [request.approval_id]


async def test_line_of_renewals_goes_back_to_the_newest_approval(world: World) -> None:
    """However often it was renewed since, and to what was approved last."""
    client = await world.client()
    first = await held(world, client)
    for _ in range(3):
        world.clock.advance(timedelta(days=20))
        order = await client.issue(HOST)
        assert order.decision["renewed_under"] == [first.approval_id]
    world.clock.advance(timedelta(days=200))
    second = await held(world, client)
    order = await client.issue(HOST)
    assert order.decision["renewed_under"] == [second.approval_id]


async def test_renewal_that_is_not_exempt_rests_on_its_approval_alone(world: World) -> None:
    """The one that it was made by before has nothing to do with it."""
    world.policies.set(people_policy())
    client = await world.client()
    await held(world, client)
    world.clock.advance(timedelta(days=31))
    second = await held(world, client)
    order = await client.issue(HOST)
    assert order.decision["approvals"] == [second.approval_id]
    assert "renewed_under" not in order.decision


async def test_exempt_names_beside_names_that_are_not_are_looked_at_too(world: World) -> None:
    """A rule that wants people for one name hides nothing of another that was taken back."""
    client = await world.client()
    board = await filed(client, BOARD)
    await say(world, board, "approve", ANNA, "ticket=7")
    await say(world, board, "approve", BEN)
    exempt = await filed(client, HOST, BOARD)
    await say(world, exempt, "approve", ANNA, "ticket=8")
    await say(world, exempt, "approve", BEN)
    await client.issue(HOST, BOARD)
    again = await client.issue(HOST, BOARD)
    assert again.decision["approvals"] == [board.approval_id]
    assert again.decision["renewed_under"] == [exempt.approval_id]
    await say(world, exempt, "withdraw", BEN)
    with pytest.raises(Problem, match=f"for '{HOST}' has to be approved by a person"):
        await client.order(HOST, BOARD)
    await client.issue(BOARD)


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


CLOSED = """\
  - name: closed
    because: no host is added there any more
    names: ["**.people.example.com"]
    renewals: exempt
    refuse: ask the board
"""


async def test_renewal_that_is_spared_a_refusal_is_not_spared_a_withdrawal(world: World) -> None:
    """Where new orders are refused, renewals are all there is, and what was withdrawn is none."""
    client, other = await world.client(), await world.client()
    request = await held(world, client)
    await held(world, other)
    exempt = 'names: ["**.people.example.com"]'
    world.policies.set(people_policy(exempt, f"renewals: exempt\n    {exempt}") + CLOSED)
    await client.issue(HOST)
    await say(world, request, "withdraw", BEN)
    with pytest.raises(Problem, match="has to be approved by a person"):
        await client.order(HOST)
    await other.issue(HOST)


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
