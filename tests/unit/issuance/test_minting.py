"""The binding key that an approval of an account mints."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_ports import MINTED_PREFIX
from broker.issuance.events import EventKind
from broker.issuance.minting import Minting, end_minted
from broker.protocol.problems import Problem
from tests.fakes.clock import START
from tests.fakes.world import World
from tests.unit.issuance.test_approval_changes import record


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with a store."""
    async with World(tmp_path) as made:
        yield made


async def test_one_key_is_minted_however_often_it_is_tried(world: World) -> None:
    """It ends with the approval, is good for one account, and names what it came of."""
    minting = Minting(world.enrollment, names=("**.example.com",), profiles=("server",))
    first = await minting(record("approved"))
    again = await minting(record("approved"))
    assert first.eab_key_id == again.eab_key_id
    (key,) = [one for one in await world.enrollment.list(None) if one.key_id != "robot"]
    assert key.key_id.startswith(MINTED_PREFIX)
    assert (key.names, key.profiles, key.is_reusable) == (("**.example.com",), ("server",), False)
    assert key.expires_at == START + timedelta(days=90)
    minted = await world.events(EventKind.EAB_MINTED)
    assert minted[-1].actor.name == "approval:a1"


async def test_key_ends_with_its_approval(world: World) -> None:
    """Once; an approval that minted none ends nothing."""
    minting = Minting(world.enrollment, names=(), profiles=())
    approved = await minting(record("approved"))
    assert minting.key is not None
    client = await world.client(binding=(minting.key.key_id, minting.key.mac_key))
    await client.order("www.example.com")
    for _ in range(2):
        await end_minted(world.enrollment, approved)
    await end_minted(world.enrollment, replace(approved, eab_key_id=None))
    with pytest.raises(Problem, match="has been revoked"):
        await client.order("www.example.com")
    assert await world.count(EventKind.EAB_REVOKED) == 1
