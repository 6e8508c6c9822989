"""A world for the workflows: a real store, a fake CA, a clock that stands still."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A broker that has just been started."""
    with memory_folder() as folder:
        async with World(folder) as made:
            yield made


@pytest.fixture
async def hosts() -> AsyncIterator[DeliveryWorld]:
    """A broker that has just been started and serves nodes."""
    with memory_folder() as folder:
        async with DeliveryWorld(folder) as made:
            yield made
