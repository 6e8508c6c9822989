"""What was asked of policy, in pages, over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.replay_ports import AskedRecord, ReplayPlace
from broker.protocol.problems import Problem
from tests.fakes.world import World, dns
from tests.unit.storage.conftest import Plans

HOUR = timedelta(hours=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world."""
    async with World(tmp_path) as made:
        yield made


def place_after(row: AskedRecord) -> ReplayPlace:
    """Return where the page behind *row* begins."""
    return ReplayPlace(row.at, row.reference)


async def test_orders_come_in_pages_as_they_were_asked(world: World, plans: Plans) -> None:
    """Each once, oldest first, by the index on time."""
    client = await world.client()
    begin = world.clock.now()
    orders = []
    for name in ("a.example.com", "b.example.com", "c.example.com"):
        await world.let_pass(HOUR)
        orders.append(await client.order(name))
    first = await world.store.orders_asked(ReplayPlace(begin), 2)
    rest = await world.store.orders_asked(place_after(first[-1]), 2)
    assert [row.reference for row in (*first, *rest)] == [one.order_id for one in orders]
    [row] = rest
    assert row.identifiers == (dns("c.example.com"),)
    assert (row.profile, row.lifetime, row.is_start_asked, row.until) == (None, None, False, None)
    assert row.requester["account_id"] == client.account.account_id
    assert not row.is_unchanged_renewal
    mine = [step for step, statement in plans.steps if "json_extract(o.decision" in statement]
    assert mine
    assert all(step.startswith("SEARCH o USING INDEX orders_by_time") for step in mine)


async def test_live_certificates_bring_their_orders(world: World) -> None:
    """Those that were revoked or have ended need no renewal."""
    client = await world.client()
    begin = ReplayPlace(world.clock.now() - HOUR)
    await client.issue("a.example.com")
    gone = await client.issue("b.example.com")
    now = world.clock.now()
    assert len(await world.store.certificates_alive(now, begin, 10)) == 2
    await client.revoke(await client.leaf_der(gone))
    await world.settle()
    [row] = await world.store.certificates_alive(now, begin, 10)
    assert row.identifiers == (dns("a.example.com"),)
    assert row.until is not None
    assert row.until > now
    assert await world.store.certificates_alive(row.until, begin, 10) == []
    assert await world.store.certificates_alive(now, place_after(row), 10) == []


async def test_refused_requests_are_kept_whole(world: World) -> None:
    """So that another policy can be asked about them."""
    client = await world.client()
    begin = ReplayPlace(world.clock.now() - HOUR)
    with pytest.raises(Problem):
        await client.order("denied.example.com", "a.example.com")
    [row] = await world.store.refusals_asked(begin, 10)
    assert {one.value for one in row.identifiers} == {"denied.example.com", "a.example.com"}
    assert row.account_id == client.account.account_id
    assert row.requester["account_id"] == client.account.account_id
    assert await world.store.refusals_asked(place_after(row), 10) == []


async def test_askers_have_what_their_binding_limits_them_to(world: World) -> None:
    """One query for a page, and nothing for an account that is not there."""
    robot, client = await world.robot(), await world.client()
    wanted = [robot.account.account_id, client.account.account_id, "nobody"]
    found = {one.account_id: one for one in await world.store.askers(wanted)}
    assert set(found) == set(wanted[:2])
    bound = found[robot.account.account_id]
    assert bound.eab_key_id == "robot"
    assert not bound.is_closed
    assert found[client.account.account_id].eab_key_id is None
    assert found[client.account.account_id].thumbprint == client.account.thumbprint


async def test_what_there_is_to_replay_is_counted(world: World) -> None:
    """For the share that progress shows."""
    client = await world.client()
    await client.issue("a.example.com")
    now = world.clock.now()
    assert await world.store.count_asked(now, now - HOUR) == (1, 1)
    assert await world.store.count_asked(now, now + HOUR) == (0, 1)
