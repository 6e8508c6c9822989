"""What is left of limits, looked at as an order would take from them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.budgets import Limits, order_of
from broker.issuance.records import AccountRecord, OrderRecord
from broker.policy.decisions import NewOrderFacts, QuotaPer
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from tests.fakes.world import World, dns
from tests.unit.issuance.test_quotas import WEEK, demand

NAME = "www.example.com"


async def order(world: World, account: AccountRecord) -> OrderRecord:
    """Return the order that *account* would make."""
    facts = await _facts(world, account)
    decision = world.planner.decide(facts)
    assert decision.plan is not None
    return order_of(account, facts, decision, decision.plan)


async def _facts(world: World, account: AccountRecord) -> NewOrderFacts:
    return await world.planner.facts(
        account, identifiers=(dns(NAME),), profile=None, not_before=None, not_after=None
    )


async def test_order_is_as_newOrder_would_make_it(world: World) -> None:  # noqa: N802 - its name
    """For the same CA under the same cap, so that the same tokens are meant."""
    client = await world.client()
    supposed = await order(world, client.account)
    made = await client.order(NAME)
    for field in ("upstream", "upstream_profile", "cap_seconds", "profile", "identifiers"):
        assert getattr(supposed, field) == getattr(made, field)


async def test_figures_are_those_that_an_order_takes_from(world: World) -> None:
    """Of CAs and of policy; looking takes nothing."""
    world.limits["ca"] = (PublishedLimit(per=LimitPer.NAMES, rate=Rate(2, WEEK)),)
    limits = Limits(world.quotas, world.store, world.clock)
    client = await world.client()
    await client.issue(NAME)
    asked = await order(world, client.account)
    quota = demand(QuotaPer.REQUESTER, 3)
    before = world.dump()
    found, over = await limits.look(client.account, asked, (quota,))
    assert over is None
    assert [(one.limit, one.used, one.would_exceed) for one in found] == [
        ("2/7d", 1, False),
        ("3/7d", 0, False),
    ]
    assert world.dump() == before


async def test_longest_wait_is_what_stops_it(world: World) -> None:
    """What is only warned of stops nothing and is told."""
    world.limits["ca"] = (
        PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, timedelta(hours=1))),
        PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(1, WEEK)),
    )
    limits = Limits(world.quotas, world.store, world.clock)
    client = await world.client()
    await client.issue(NAME)
    asked = await order(world, client.account)
    found, over = await limits.look(client.account, asked, ())
    assert over is not None
    assert over.limit == "1/7d"
    assert [one.would_exceed for one in found] == [True, True]
    world.limits.clear()
    warned = replace(demand(QuotaPer.REQUESTER, 1), is_enforced=False)
    taking = await world.quotas.taking(client.account, asked, (warned,))
    assert taking.takes[0].told is not None
    found, over = await limits.look(client.account, asked, (warned,))
    assert (over, found[0].would_exceed) == (None, False)


@pytest.mark.parametrize("at_first", [0.0, 2.0])
async def test_bucket_that_was_never_kept_begins_as_it_would(world: World, at_first: float) -> None:
    """Full, or with what the kept orders make of it."""
    limits = Limits(world.quotas, world.store, world.clock)
    client = await world.client()
    asked = await order(world, client.account)
    taking = await world.quotas.taking(client.account, asked, (demand(QuotaPer.NAMES, 3),))
    bucket = await limits._bucket(replace(taking.takes[0], at_first=at_first))
    assert bucket.level == at_first
