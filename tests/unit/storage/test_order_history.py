"""Orders as they were made, over a real store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.storage.rows import json_of
from tests.fakes.world import World, dns
from tests.unit.storage.conftest import Plans


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world."""
    async with World(tmp_path) as made:
        yield made


async def test_orders_of_an_upstream_are_counted_by_their_time(world: World, plans: Plans) -> None:
    """Without reading any other order."""
    client = await world.client()
    begin = world.clock.now()
    await client.issue("a.example.com")
    await world.let_pass(timedelta(hours=1))
    await client.issue("b.example.com")
    made = world.store.orders_made
    assert len(await made("ca", "default", begin - timedelta(seconds=1))) == 2
    assert len(await made("ca", "default", begin + timedelta(seconds=1))) == 1
    assert await made("local", "default", begin - timedelta(days=1)) == []
    assert not [step for step in plans.scans() if "orders_by_upstream" in step]


async def test_siblings_are_found_without_reading_other_orders(world: World, plans: Plans) -> None:
    """It is asked in each run of each order under a policy that answers again."""
    client = await world.client()
    order = await client.issue("a.example.com")
    begin = world.clock.now() - timedelta(hours=1)
    assert await world.store.sibling_orders(order, begin) == [order.order_id]
    assert not [step for step in plans.scans() if "orders" in step]


async def test_names_that_an_account_has_had(world: World) -> None:
    """All of them in one certificate, and its own."""
    client, stranger = await world.client(), await world.client()
    await client.issue("a.example.com", "b.example.com")
    had = world.store.has_had
    mine = client.account.account_id
    assert await had(mine, frozenset({dns("a.example.com")}))
    assert not await had(mine, frozenset({dns("a.example.com"), dns("c.example.com")}))
    assert not await had(stranger.account.account_id, frozenset({dns("a.example.com")}))


async def test_certificates_that_make_an_order_a_renewal(world: World, plans: Plans) -> None:
    """Of exactly these names under this profile, its own, not revoked, and not long ended."""
    client, stranger = await world.client(), await world.client()
    await client.issue("a.example.com", "b.example.com")
    both = frozenset({dns("b.example.com"), dns("a.example.com")})
    now, mine = world.clock.now(), client.account.account_id
    has = world.store.has_certificate_of
    assert await has(mine, both, "server", alive_after=now)
    assert not await has(mine, both, "other", alive_after=now)
    assert not await has(mine, frozenset({dns("a.example.com")}), "server", alive_after=now)
    assert not await has(mine, both | {dns("c.example.com")}, "server", alive_after=now)
    assert not await has(stranger.account.account_id, both, "server", alive_after=now)
    assert not await has(mine, both, "server", alive_after=now + timedelta(days=400))
    assert not [step for step in plans.scans() if "certificates_held" in step]


async def test_approvals_that_a_renewal_goes_back_to(world: World, plans: Plans) -> None:
    """Those of the newest certificate of exactly these names, its own and those of its line."""
    client = await world.client()
    mine, names = client.account.account_id, frozenset({dns("a.example.com")})
    behind = world.store.approvals_behind
    assert await behind(mine, names, "server", alive_after=world.clock.now()) == []
    for number, told in enumerate(({"approvals": ["a1"]}, {"approvals": ["a2"]}, {})):
        order = await client.issue("a.example.com")
        decision = json_of({**order.decision, **told, "renewed_under": ["a0", f"b{number}"]})
        await world.store._database.write(
            lambda transaction, kept=(decision, order.order_id): transaction.change(
                "UPDATE orders SET decision = ? WHERE order_id = ?", *kept
            )
        )
        found = await behind(mine, names, "server", alive_after=world.clock.now())
        assert found == [*told.get("approvals", ()), "a0", f"b{number}"]
        world.clock.advance(timedelta(days=1))
    later = world.clock.now() + timedelta(days=400)
    assert await behind(mine, names, "server", alive_after=later) == []
    assert await behind(mine, names, "other", alive_after=world.clock.now()) == []
    assert not [step for step in plans.scans() if "certificates_held" in step]


async def test_a_revoked_certificate_makes_no_renewal(world: World) -> None:
    """Whoever lost one asks as for the first time."""
    client = await world.client()
    order = await client.issue("a.example.com")
    names = frozenset({dns("a.example.com")})
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    await world.store._database.write(
        lambda transaction: transaction.change(
            "UPDATE certificates SET revoked_at = 1 WHERE certificate_id = ?", found.certificate_id
        )
    )
    has = world.store.has_certificate_of
    mine = client.account.account_id
    assert not await has(mine, names, "server", alive_after=world.clock.now())
