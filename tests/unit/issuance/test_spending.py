"""Limits that are spent: the next CA of the list serves, where policy leaves one."""

from datetime import timedelta

import pytest

from broker.issuance.events import EventKind
from broker.policy.decisions import QuotaPer
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import World
from tests.unit.issuance.test_failover import have_two, issued
from tests.unit.issuance.test_quotas import WEEK, demand, under

NAME = "www.example.com"


@pytest.fixture
async def world(world: World) -> World:
    """A broker with two CAs, of which the first is preferred and allows one for the same names."""
    have_two(world)
    world.limits["ca"] = (PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, WEEK)),)
    return world


async def test_next_ca_serves_what_the_first_has_no_tokens_for(world: World) -> None:
    """Each replica is an account of its own, and all ask for the same names."""
    for _ in range(4):
        await (await world.client()).issue(NAME)
    assert issued(world) == (1, 3)


async def test_order_says_why_it_went_elsewhere(world: World) -> None:
    """And other names still go to the first."""
    await (await world.client()).issue(NAME)
    order = await (await world.client()).issue(NAME)
    told = order.decision["passed_over"]
    assert isinstance(told, dict)
    assert "limited to 1/7d and none is left" in told["ca"]
    assert (await (await world.client()).issue("b.example.com")).upstream == "ca"
    assert await world.count(EventKind.QUOTA_EXCEEDED) == 0


async def test_order_stays_where_it_went(world: World) -> None:
    """What was decided at newOrder holds at finalize, though a token came back meanwhile."""
    await (await world.client()).issue(NAME)
    client = await world.client()
    order = await client.ready(NAME)
    world.clock.advance(timedelta(hours=3))
    world.limits["ca"] = ()
    order = await world.finish(await client.finalize(order))
    assert (order.upstream, issued(world)) == ("next", (1, 1))


async def test_where_there_is_no_other_the_client_waits(world: World) -> None:
    """429 as before, with when to come again."""
    world.policies.set(POLICY)
    await (await world.client()).issue(NAME)
    with pytest.raises(Problem, match="for upstream 'ca' for exactly these names") as refused:
        await (await world.client()).order(NAME)
    assert refused.value.type is ProblemType.RATE_LIMITED
    assert refused.value.retry_after == WEEK
    assert await world.count(EventKind.QUOTA_EXCEEDED) == 1


async def test_where_all_are_spent_the_first_is_told_of(world: World) -> None:
    """Who waits for a token waits for the CA that is preferred."""
    world.limits["next"] = (PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(1, WEEK)),)
    for _ in range(2):
        await (await world.client()).issue(NAME)
    with pytest.raises(Problem, match="for upstream 'ca' for exactly these names"):
        await (await world.client()).order(NAME)
    assert issued(world) == (1, 1)


async def test_token_that_is_back_in_seconds_is_waited_for(world: World) -> None:
    """Another CA's challenges cost a client more than half a minute."""
    world.limits["ca"] = (PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, timedelta(seconds=20))),)
    await (await world.client()).issue(NAME)
    with pytest.raises(Problem, match="limited to 1/20s"):
        await (await world.client()).order(NAME)


async def test_quota_that_no_ca_can_help_with_refuses(world: World) -> None:
    """It counts the asking, wherever the order would go."""
    under(world, demand(QuotaPer.COMMUNITY, 1))
    await (await world.client()).issue("a.example.com")
    with pytest.raises(Problem, match="under rule 'few' are limited"):
        await (await world.client()).order("b.example.com")
    assert issued(world) == (1, 0)


async def test_quota_of_one_upstream_leaves_the_others(world: World) -> None:
    """Its tokens are taken by orders that go there alone."""
    world.limits.clear()
    under(world, demand(QuotaPer.COMMUNITY, 1, upstreams=frozenset({"ca"})))
    for number in range(3):
        await (await world.client()).issue(f"{number}.example.com")
    assert issued(world) == (1, 2)
    (bucket,) = await world.store.list_buckets("", 10)
    assert (bucket.bucket, bucket.count) == ("policy|default|few|community|default", 1)
