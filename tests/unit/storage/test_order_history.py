"""Orders as they were made, over a real store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

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


async def test_names_that_an_account_has_had(world: World) -> None:
    """All of them in one certificate, and its own."""
    client, stranger = await world.client(), await world.client()
    await client.issue("a.example.com", "b.example.com")
    had = world.store.has_had
    mine = client.account.account_id
    assert await had(mine, frozenset({dns("a.example.com")}))
    assert not await had(mine, frozenset({dns("a.example.com"), dns("c.example.com")}))
    assert not await had(stranger.account.account_id, frozenset({dns("a.example.com")}))
