"""The tighter cap of newOrder and finalize, and whether its CA may still be taken."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.planning import decision_facts
from broker.issuance.records import OrderRecord
from broker.issuance.stricter import is_open, stricter
from broker.policy.decisions import CapPlan, NewOrderDecision, NewOrderFacts, Retirement
from broker.protocol.resources import OrderStatus
from tests.fakes.clock import START
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import World, always

NAME = "www.example.com"
DAY = timedelta(days=1)
RETIREMENT = Retirement(longest=90 * DAY, grace=DAY, revokes_unreplaced=False)


async def made(world: World) -> tuple[OrderRecord, NewOrderFacts, NewOrderDecision, CapPlan]:
    """Return an order, with the plan that it was made under, of a cap of 90 days."""
    client = await world.client()
    order = await client.order(NAME)
    assert order.status is OrderStatus.PENDING
    facts = await world.planner.facts(
        client.account,
        identifiers=order.identifiers,
        profile=order.profile,
        not_before=None,
        not_after=None,
    )
    decision = world.planner.decide(facts)
    assert decision.plan is not None
    return order, facts, decision, decision.plan


async def test_tighter_cap_of_now_is_held_as_policy_says_now(world: World) -> None:
    """With the CA that it chooses."""
    order, _, _, plan = await made(world)
    now = replace(plan, cap=30 * DAY, upstream="next")
    assert stricter(order, now) == now
    assert stricter(order, replace(now, cap=90 * DAY)).upstream == "next"


async def test_tighter_cap_of_then_is_held_as_it_was_decided(world: World) -> None:
    """The twin: its rule, its CA, and what that is asked for."""
    order, _, _, plan = await made(world)
    now = replace(plan, cap=300 * DAY, upstream="next", ask_not_after=False)
    assert stricter(order, now) == plan


@pytest.mark.parametrize("is_retired_now", [True, False])
async def test_cap_that_is_held_comes_before_a_retirement_of_then(
    world: World, is_retired_now: bool
) -> None:
    """An order that was to be retired had no cap held for it."""
    order, _, decision, plan = await made(world)
    retiring = replace(plan, retirement=RETIREMENT)
    order = replace(order, decision=decision_facts(decision, retiring, START))
    now = replace(plan, cap=300 * DAY, retirement=RETIREMENT if is_retired_now else None)
    assert stricter(order, now).cap == (90 * DAY if is_retired_now else 300 * DAY)


async def test_ca_is_open_while_nothing_but_lengths_speaks_against_it(world: World) -> None:
    """One that is closed for another reason is not, nor one that has left the profile."""
    order, facts, _, _ = await made(world)
    document = world.policies.current("default")
    assert is_open(order, facts, document)
    longer = replace(
        facts.upstreams[0], honours_not_after=False, default_lifetimes=(always(300 * DAY),)
    )
    assert is_open(order, replace(facts, upstreams=(longer,)), document)
    assert not is_open(order, replace(facts, upstreams=()), document)
    assert not is_open(order, replace(facts, suspended=frozenset({("ca", None)})), document)
    assert not is_open(order, replace(facts, frozen={"ca": "is frozen"}), document)
    world.policies.set(POLICY.replace("[{upstream: ca}]", "[{upstream: local}]"))
    assert not is_open(order, facts, world.policies.current("default"))
