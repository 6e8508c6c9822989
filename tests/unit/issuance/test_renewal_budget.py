"""The bucket of orders of an upstream, and the share of it that is kept for renewals."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.issuance.records import OrderRecord
from broker.issuance.renewal_budget import OrderLimit, RenewalBudget
from broker.policy.units import Rate
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, dns

LIMIT = OrderLimit(Rate(10, timedelta(hours=1)), 0.5)


class FakeHistory:
    """Orders that were made before."""

    def __init__(self) -> None:
        self.made: list[datetime] = []
        self.had: set[Identifier] = set()

    async def orders_made(
        self, upstream: str, community: str, since: datetime
    ) -> Sequence[datetime]:
        """Return those of the one account."""
        assert (upstream, community) == ("ca", "default")
        return [one for one in self.made if one > since]

    async def has_had(self, account_id: str, identifiers: frozenset[Identifier]) -> bool:
        """Return whether all are among them."""
        assert account_id == "someone"
        return identifiers <= self.had


class Till:
    """A budget, and orders for it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.history = FakeHistory()
        self.history.had.add(dns("old.example.com"))
        self.restart()

    def restart(self) -> None:
        """Forget what was in memory."""
        self.budget = RenewalBudget(self.history, {"ca": LIMIT}, self.clock)

    async def take(self, name: str = "new.example.com", **how: object) -> None:
        """Take a token for an order, which is kept then."""
        await self.budget.take(order(self.clock, name, **how))
        self.history.made.append(self.clock.now())


def order(clock: FakeClock, name: str, **how: object) -> OrderRecord:
    """Return an order for *name*."""
    made = OrderRecord(
        order_id="o",
        account_id="someone",
        community="default",
        status="pending",  # type: ignore[arg-type]
        identifiers=(dns(name),),
        authorization_ids=(),
        profile="server",
        is_profile_asked=False,
        not_before=None,
        not_after=None,
        created_at=clock.now(),
        expires_at=clock.now(),
        decision={},
        upstream="ca",
        upstream_profile=None,
        cap_seconds=1,
        ask_not_after=False,
    )
    return replace(made, **how)  # type: ignore[arg-type]


async def test_new_names_leave_the_share_of_renewals() -> None:
    """They are told when to come again; renewals go on with all that is left."""
    till = Till()
    for _ in range(5):
        await till.take()
    with pytest.raises(Problem, match="what is left is kept for renewals") as refused:
        await till.take()
    assert refused.value.type is ProblemType.RATE_LIMITED
    assert refused.value.retry_after == timedelta(minutes=6)
    for _ in range(5):
        await till.take("old.example.com")
    with pytest.raises(Problem, match="none is left") as refused:
        await till.take("old.example.com")
    assert refused.value.retry_after == timedelta(minutes=6)
    till.clock.advance(timedelta(minutes=6))
    await till.take("old.example.com")


async def test_new_name_may_go_once_the_bucket_has_filled() -> None:
    """After the time that it was told."""
    till = Till()
    for _ in range(5):
        await till.take()
    till.clock.advance(timedelta(minutes=6))
    await till.take()


@pytest.mark.parametrize(
    ("how", "is_renewal"),
    [
        pytest.param({"replaces_upstream": "ca", "replaces": "a.b"}, True, id="ours-there"),
        pytest.param({"replaces": "a.b"}, False, id="claimed-alone"),
        pytest.param(
            {"identifiers": (dns("old.example.com"), dns("x.example.com"))}, False, id="a-name-more"
        ),
    ],
)
async def test_what_counts_as_a_renewal(how: dict[str, object], is_renewal: bool) -> None:
    """The client's word that it replaces something opens nothing."""
    till = Till()
    for _ in range(5):
        await till.take()
    if is_renewal:
        await till.take(**how)
        return
    with pytest.raises(Problem, match="kept for renewals"):
        await till.take(**how)


async def test_restart_forgets_nothing() -> None:
    """The level is worked out from the orders that are kept."""
    till = Till()
    for _ in range(5):
        await till.take()
    till.restart()
    with pytest.raises(Problem, match="kept for renewals"):
        await till.take()
    await till.take("old.example.com")


async def test_orders_at_once_take_a_token_each() -> None:
    """Nobody overshoots."""
    till = Till()
    done = await asyncio.gather(*(till.take() for _ in range(20)), return_exceptions=True)
    assert sum(one is None for one in done) == 5


async def test_order_that_was_not_kept_gives_its_token_back() -> None:
    """It is another's then."""
    till = Till()
    made = order(till.clock, "new.example.com")
    for _ in range(5):
        await till.budget.take(made)
    till.budget.give_back(made)
    await till.budget.take(made)
    with pytest.raises(Problem, match="kept for renewals"):
        await till.budget.take(made)


async def test_upstream_without_a_limit_is_not_counted() -> None:
    """Its history is not even asked for."""
    till = Till()
    budget = RenewalBudget(till.history, {}, till.clock)
    made = order(till.clock, "new.example.com", upstream="other")
    for _ in range(50):
        await budget.take(made)
    budget.give_back(made)
    assert await budget.level("other", "default") is None
    assert await till.budget.level("ca", "default") is not None


async def test_new_order_is_refused_and_its_renewal_taken(world: World) -> None:
    """At newOrder, over a real store: what a client had before goes on."""
    limits = {"ca": OrderLimit(Rate(4, timedelta(hours=1)), 0.5)}
    world.orders._budget = RenewalBudget(world.store, limits, world.clock)
    client = await world.client()
    await client.issue("a.example.com")
    await client.issue("b.example.com")
    with pytest.raises(Problem, match="kept for renewals"):
        await client.order("c.example.com")
    world.orders._budget = RenewalBudget(world.store, limits, world.clock)
    with pytest.raises(Problem, match="kept for renewals"):
        await client.order("c.example.com")
    await client.issue("a.example.com")
    stranger = await world.client()
    with pytest.raises(Problem, match="kept for renewals"):
        await stranger.order("a.example.com")
