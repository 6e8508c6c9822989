"""Readings of a standard that are about the whole of an order, over a real store and a fake CA."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.protocol.resources import AuthorizationStatus, OrderStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import World

NAME = "www.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A broker that has just been started."""
    with memory_folder(tmp_path) as folder:
        async with World(folder) as made:
            yield made


async def test_same_new_order_again_makes_another_order(world: World) -> None:
    """A pending order is never handed out twice, not even to its own account."""
    client = await world.client()
    first, second = await client.order(NAME), await client.order(NAME)
    assert first.order_id != second.order_id
    assert not set(first.authorization_ids) & set(second.authorization_ids)
    await client.prove(first)
    assert (await client.read(first)).status is OrderStatus.READY
    assert (await client.read(second)).status is OrderStatus.PENDING


async def test_proof_for_one_order_is_no_proof_for_the_next(world: World) -> None:
    """Each order proves its names anew, also right after a certificate for them was issued."""
    client = await world.client()
    done = await client.issue(NAME)
    assert done.status is OrderStatus.VALID
    asked = len(world.validator.asked)
    again = await client.order(NAME)
    (authorization,) = await client.authorizations(again)
    assert authorization.status is AuthorizationStatus.PENDING
    await client.prove(again)
    assert len(world.validator.asked) == asked + 1


async def test_what_a_ca_finds_valid_proves_nothing_here(world: World) -> None:
    """The CA knows the name for one account of ours; another has to prove it all the same."""
    known, stranger = await world.client(), await world.client()
    assert (await known.issue(NAME)).status is OrderStatus.VALID
    order = await stranger.order(NAME)
    (authorization,) = await stranger.authorizations(order)
    assert (order.status, authorization.status, authorization.proof) == (
        OrderStatus.PENDING,
        AuthorizationStatus.PENDING,
        None,
    )
    calls = len(world.ca.calls)
    assert (await stranger.read(order)).status is OrderStatus.PENDING
    assert len(world.ca.calls) == calls
    await stranger.prove(order)
    assert (await stranger.read(order)).status is OrderStatus.READY
