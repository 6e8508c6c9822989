"""The limits of CAs, and the share of them that is kept for renewals, over a real store."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.quota_ports import GivesBack
from broker.issuance.records import OrderRecord
from broker.issuance.renewal_budget import names_key
from broker.policy.published_limits import Exemption, LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.world import Client, World, dns

HOUR = timedelta(hours=1)


def limit(
    per: LimitPer, count: int, kept: float = 0.0, *exempt: Exemption, period: timedelta = HOUR
) -> PublishedLimit:
    """Return a limit of so many an hour."""
    rate = Rate(count, period)
    return PublishedLimit(per=per, rate=rate, kept_for_renewals=kept, exempt=frozenset(exempt))


def account(count: int, kept: float = 0.5, *exempt: Exemption) -> PublishedLimit:
    """Return a limit of orders of our account."""
    return limit(LimitPer.ACCOUNT, count, kept, *exempt)


async def use_up(client: Client, count: int, zone: str = "new.example.com") -> None:
    """Make *count* orders for names that nobody had."""
    for number in range(count):
        await client.order(f"{zone[:1]}{number}.{zone}")


async def test_new_names_leave_the_share_of_renewals(world: World) -> None:
    """They are told when to come again; renewals go on with all that is left."""
    client = await world.client()
    await client.issue("old.example.com")
    world.clock.advance(timedelta(days=1))
    world.limits["ca"] = (account(10),)
    await use_up(client, 5)
    with pytest.raises(Problem, match="what is left is kept for renewals") as refused:
        await client.order("b.example.com")
    assert refused.value.type is ProblemType.RATE_LIMITED
    assert refused.value.retry_after == timedelta(minutes=6)
    assert "orders for upstream 'ca' are limited to 10/1h" in refused.value.detail
    for _ in range(5):
        await client.order("old.example.com")
    with pytest.raises(Problem, match="none is left") as refused:
        await client.order("old.example.com")
    assert refused.value.retry_after == timedelta(minutes=6)
    world.clock.advance(timedelta(minutes=6))
    await client.order("old.example.com")


async def test_client_that_comes_when_it_was_told_to_is_served(world: World) -> None:
    """Not a moment later, and nobody before it took the token."""
    client = await world.client()
    world.limits["ca"] = (account(10),)
    await use_up(client, 5)
    world.clock.advance(timedelta(minutes=6))
    await client.order("b.example.com")


async def test_orders_at_once_take_a_token_each(world: World) -> None:
    """Nobody overshoots: the bucket is looked at in the transaction that takes from it."""
    client = await world.client()
    world.limits["ca"] = (account(10),)
    made = (client.order(f"w{number}.example.com") for number in range(20))
    done = await asyncio.gather(*made, return_exceptions=True)
    assert sum(isinstance(one, OrderRecord) for one in done) == 5


async def test_restart_forgets_nothing(world: World) -> None:
    """The bucket lies in the store, and outlives a power cut with the orders that took of it."""
    world.keeps_snapshots = True
    await world.restart()
    client = await world.client()
    world.limits["ca"] = (account(10),)
    await use_up(client, 5)
    await world.restart(power_cut=True)
    with pytest.raises(Problem, match="kept for renewals"):
        await client.order("b.example.com")


async def test_store_of_an_earlier_version_counts_its_orders(world: World) -> None:
    """Before there was a bucket they were made all the same."""
    client = await world.client()
    await use_up(client, 5)
    world.limits["ca"] = (account(10),)
    with pytest.raises(Problem, match="kept for renewals"):
        await client.order("b.example.com")


async def test_order_that_is_not_kept_takes_nothing(world: World) -> None:
    """The token is taken in the transaction that fails."""
    client = await world.client()
    world.limits["ca"] = (account(10, 0.0),)
    await client.order("a.example.com")

    async def fail(*_: object) -> None:
        raise Conflict("lost")

    world.orders._orders = replace_method(world, "create_order", fail)
    with pytest.raises(Conflict):
        await client.order("b.example.com")
    found = await world.budget.level("ca", "default")
    assert found is not None
    assert found.level == 9


def replace_method(world: World, name: str, method: object) -> Any:
    """Return the store with one method replaced."""

    class Store:
        def __getattr__(self, wanted: str) -> object:
            return method if wanted == name else getattr(world.store, wanted)

    return Store()


async def test_token_comes_back_when_no_ca_has_heard_of_the_order(world: World) -> None:
    """One that expires before its names are proved; one that was ready has cost the CA an order."""
    client = await world.client()
    world.limits["ca"] = (account(10, 0.0),)
    await client.order("a.example.com")
    await client.ready("b.example.com")
    world.clock.advance(timedelta(milliseconds=1))
    before = await world.budget.level("ca", "default")
    assert before is not None
    assert round(before.level, 2) == 8
    world.clock.advance(world.settings.order_lifetime)
    world.limits["ca"] = (limit(LimitPer.ACCOUNT, 10, period=timedelta(days=3650)),)
    await world.orders.expire_due()
    after = await world.budget.level("ca", "default")
    assert after is not None
    assert round(after.level, 2) == 9 or after.level == 10


async def test_exact_set_of_names_has_a_budget_whatever_the_key(world: World) -> None:
    """A new key costs a token each time; another set of names has its own."""
    world.limits["ca"] = (limit(LimitPer.NAMES, 3),)
    client, other = await world.client(), await world.client()
    await client.issue("a.example.com", "b.example.com")
    await client.issue("b.example.com", "a.example.com")
    await other.issue("a.example.com", "b.example.com")
    with pytest.raises(Problem, match="for exactly these names are limited to 3/1h") as refused:
        await client.order("a.example.com", "b.example.com")
    assert refused.value.retry_after == timedelta(minutes=20)
    await client.issue("a.example.com")


async def test_certificates_below_a_registered_domain_have_one_too(world: World) -> None:
    """Each domain once for each order, over all communities, as the CA counts."""
    world.limits["ca"] = (limit(LimitPer.DOMAIN, 2),)
    client, lab = await world.client(), await world.client("lab")
    await client.issue("a.example.com", "b.example.com")
    await lab.issue("c.example.com")
    with pytest.raises(Problem, match=r"below 'example\.com' are limited to 2/1h"):
        await client.order("d.example.com")
    await client.order("d.co.example.com")


async def test_certificate_that_never_came_gives_its_token_back(world: World) -> None:
    """A CA counts what it issues; what it refused it did not."""
    world.limits["ca"] = (limit(LimitPer.NAMES, 1),)
    client = await world.client()
    world.ca.fails_after_finalize = Problem(ProblemType.CAA, "not for us")
    order = await client.finalize(await client.ready("a.example.com"))
    assert (await world.finish(order)).status is OrderStatus.INVALID
    world.ca.fails_after_finalize = None
    await client.issue("a.example.com")
    with pytest.raises(Problem, match="exactly these names"):
        await client.order("a.example.com")


async def test_renewals_that_the_ca_does_not_count_take_nothing(world: World) -> None:
    """Of exactly the names that came from there, where it says so; others do."""
    client = await world.client()
    await client.issue("a.example.com", "b.example.com")
    world.clock.advance(timedelta(days=1))
    world.limits["ca"] = (account(1, 0.0, Exemption.SAME_NAMES),)
    for _ in range(3):
        await client.issue("a.example.com", "b.example.com")
    await client.order("a.example.com")
    with pytest.raises(Problem, match="none is left"):
        await client.order("b.example.com")


async def test_clients_word_alone_makes_no_renewal(world: World) -> None:
    """What another account has had is new to this one."""
    client, stranger = await world.client(), await world.client()
    await client.issue("a.example.com")
    world.clock.advance(timedelta(days=1))
    world.limits["ca"] = (account(2),)
    await client.order("new.example.com")
    with pytest.raises(Problem, match="kept for renewals"):
        await stranger.order("a.example.com")
    await client.order("a.example.com")


async def test_upstream_without_a_limit_is_not_counted(world: World) -> None:
    """Its level is not known."""
    client = await world.client()
    await use_up(client, 3)
    assert await world.budget.level("ca", "default") is None


def test_long_list_of_names_is_counted_under_its_digest() -> None:
    """The order of the names makes no difference."""
    many = [dns(f"host-{number}.example.com") for number in range(50)]
    assert names_key(many) == names_key(many[::-1])
    assert len(names_key(many)) == 64
    assert names_key(many[:2]) == "host-0.example.com,host-1.example.com"


async def test_takes_say_what_comes_back(world: World) -> None:
    """Orders count when they were sent, certificates when they came."""
    world.limits["ca"] = (account(5, 0.0), limit(LimitPer.NAMES, 5), limit(LimitPer.DOMAIN, 5))
    client = await world.client()
    made = await client.order("a.example.com")
    takes = await world.budget.takes(replace(made, order_id="other"))
    assert [one.gives_back for one in takes] == [
        GivesBack.UNSENT,
        GivesBack.UNISSUED,
        GivesBack.UNISSUED,
    ]
