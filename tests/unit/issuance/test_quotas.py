"""Quotas of policy: tokens that are taken with the order or not at all."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import OverLimit
from broker.issuance.events import EventKind
from broker.issuance.quotas import limited
from broker.policy.decisions import NewOrderDecision, NewOrderFacts, QuotaDemand, QuotaPer, RuleRef
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.world import ROBOT_KEY, World

WEEK = timedelta(days=7)


def demand(per: QuotaPer, limit: int, **how: object) -> QuotaDemand:
    """Return a quota of so many orders a week."""
    made = QuotaDemand(
        per=per, limit=limit, window=WEEK, rule=RuleRef("default.yaml", 7, "x"), name="few"
    )
    return replace(made, **how)  # type: ignore[arg-type]


def under(world: World, *demands: QuotaDemand) -> None:
    """Have policy demand these quotas of every order."""
    decide = world.planner.decide

    def decided(facts: NewOrderFacts, document: object = None) -> NewOrderDecision:
        return replace(decide(facts, document), quotas=demands)  # type: ignore[arg-type]

    world.planner.decide = decided  # type: ignore[method-assign]


async def test_requester_has_its_orders_and_no_more(world: World) -> None:
    """Another account has its own."""
    under(world, demand(QuotaPer.REQUESTER, 2))
    client, other = await world.client(), await world.client()
    await client.order("a.example.com")
    await client.order("b.example.com")
    with pytest.raises(Problem, match="under rule 'few' are limited to 2/7d") as refused:
        await client.order("c.example.com")
    assert refused.value.type is ProblemType.RATE_LIMITED
    assert refused.value.retry_after == WEEK / 2
    await other.order("c.example.com")


async def test_workload_has_its_orders_whichever_pods_it_has(world: World) -> None:
    """A restart is another account; another service account has its own, and so has a person."""
    under(world, demand(QuotaPer.WORKLOAD, 1))

    def of(service_account: str | None) -> None:
        facts = world.planner.facts

        async def found(*args: Any, **asked: Any) -> NewOrderFacts:
            made = await facts(*args, **asked)
            who = replace(made.requester, cluster="prod", namespace="shop")
            return replace(made, requester=replace(who, service_account=service_account))

        world.planner.facts = found  # type: ignore[method-assign]

    of("web")
    await (await world.client()).order("a.example.com")
    with pytest.raises(Problem, match="under rule 'few' are limited to 1/7d"):
        await (await world.client()).order("b.example.com")
    of("db")
    await (await world.client()).order("c.example.com")
    of(None)
    for name in ("d.example.com", "e.example.com"):
        await (await world.client()).order(name)
    buckets = {one.bucket for one in await world.store.list_buckets("", 10)}
    assert "policy|default|few|workload|prod/shop/web" in buckets
    assert len(buckets) == 4


async def test_refusal_is_kept_with_what_it_was_about(world: World) -> None:
    """For whoever asks why an engineer was refused at night."""
    under(world, demand(QuotaPer.COMMUNITY, 1))
    client = await world.client()
    await client.order("a.example.com")
    with pytest.raises(Problem):
        await client.order("b.example.com")
    (event,) = await world.events(EventKind.QUOTA_EXCEEDED)
    assert event.account_id == client.account.account_id
    assert event.data["bucket"] == "policy|default|few|community|default"
    assert event.data["identifiers"] == ["b.example.com"]
    assert "limited to 1/7d" in str(event.data["sentence"])


@pytest.mark.parametrize(
    ("per", "allowed", "refused"),
    [
        pytest.param(QuotaPer.NAMES, ["b.example.com"], ["a.example.com"], id="names"),
        pytest.param(QuotaPer.DOMAIN, ["x.co.example.com"], ["b.example.com"], id="domain"),
        pytest.param(QuotaPer.UPSTREAM, [], ["b.example.com"], id="upstream"),
        pytest.param(QuotaPer.COMMUNITY, [], ["b.example.com"], id="community"),
    ],
)
async def test_what_is_counted_by(
    world: World, per: QuotaPer, allowed: list[str], refused: list[str]
) -> None:
    """One order is enough here for whatever it is counted by."""
    under(world, demand(per, 1))
    client, other = await world.client(), await world.client()
    await client.order("a.example.com")
    for name in allowed:
        await client.order(name)
    for name in refused:
        with pytest.raises(Problem, match="under rule 'few'"):
            await other.order(name)


async def test_binding_key_counts_over_all_its_accounts(world: World) -> None:
    """Who has none counts alone; nobody leaves a quota by another account of the same key."""
    under(world, demand(QuotaPer.EAB, 1))
    bound = [await world.client(binding=("robot", ROBOT_KEY)) for _ in range(2)]
    free = [await world.client() for _ in range(2)]
    await bound[0].order("a.robots.example.com")
    with pytest.raises(Problem, match="under rule 'few'"):
        await bound[1].order("b.robots.example.com")
    for client in free:
        await client.order("c.example.com")


async def test_share_is_kept_for_renewals(world: World) -> None:
    """Of names that the account has had."""
    client = await world.client()
    await client.issue("a.example.com")
    under(world, demand(QuotaPer.REQUESTER, 4, kept_for_renewals=0.5))
    await client.order("b.example.com")
    await client.order("c.example.com")
    with pytest.raises(Problem, match="kept for renewals"):
        await client.order("d.example.com")
    await client.order("a.example.com")


async def test_quota_that_only_warns_is_told_and_refuses_nobody(world: World) -> None:
    """So that a team sees whom it would stop before it does."""
    under(world, demand(QuotaPer.REQUESTER, 1, is_enforced=False))
    client = await world.client()
    made = [await client.order(f"{name}.example.com") for name in "abc"]
    told = await world.events(EventKind.QUOTA_EXCEEDED)
    assert [event.order_id for event in told] == [one.order_id for one in made[1:]]
    assert told[0].data["enforced"] is False
    assert told[0].data["limit"] == "1/7d"


async def test_one_short_bucket_costs_no_token_of_another(world: World) -> None:
    """All of them or none."""
    under(world, demand(QuotaPer.REQUESTER, 5), demand(QuotaPer.NAMES, 1, name="once"))
    client = await world.client()
    await client.order("a.example.com")
    for _ in range(10):
        with pytest.raises(Problem, match="under rule 'once'"):
            await client.order("a.example.com")
    kept = await world.store.read_bucket(
        f"policy|default|few|requester|{client.account.account_id}"
    )
    assert kept is not None
    assert round(kept.level, 3) == 4


async def test_longest_wait_is_the_one_that_is_told(world: World) -> None:
    """Or the client would come again for nothing."""
    hours = demand(QuotaPer.REQUESTER, 1, window=timedelta(hours=1), name="hourly")
    under(world, hours, demand(QuotaPer.NAMES, 1))
    client = await world.client()
    await client.order("a.example.com")
    with pytest.raises(Problem) as refused:
        await client.order("a.example.com")
    assert refused.value.retry_after == WEEK


@pytest.mark.parametrize(
    ("bucket", "said"),
    [
        pytest.param("ca|le|account|default", "orders for upstream 'le' are limited", id="account"),
        pytest.param("ca|le|domain|x.com", "orders for upstream 'le' below 'x.com'", id="domain"),
        pytest.param("policy|d|r|domain|x.com", "orders under rule 'r' below 'x.com'", id="rule"),
    ],
)
def test_whose_limit_it_is_is_said(bucket: str, said: str) -> None:
    """A client's operator has to know whom to ask for more."""
    over = OverLimit("x", bucket=bucket, limit="5/7d", wait=timedelta(milliseconds=1), floor=0)
    problem = limited(over)
    assert problem.detail.startswith(said)
    assert problem.retry_after == timedelta(seconds=1)


async def test_rule_may_count_by_the_same_thing_twice(world: World) -> None:
    """So many in a moment and so many in a week are two buckets."""
    hourly = demand(QuotaPer.REQUESTER, 2, window=timedelta(hours=1))
    under(world, hourly, demand(QuotaPer.REQUESTER, 3))
    client = await world.client()
    await client.order("a.example.com")
    await client.order("b.example.com")
    with pytest.raises(Problem, match="under rule 'few' are limited to 2/1h"):
        await client.order("c.example.com")
    world.clock.advance(timedelta(hours=1))
    await client.order("c.example.com")
    with pytest.raises(Problem, match="under rule 'few' are limited to 3/7d"):
        await client.order("d.example.com")
