"""Waves and open deliveries over a real store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.rollout_ports import WaveRecord
from tests.fakes.delivery_world import DeliveryWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[DeliveryWorld]:
    """A world with nodes."""
    async with DeliveryWorld(tmp_path) as made:
        yield made


async def test_wave_is_kept_in_place_of_the_one_before(world: DeliveryWorld) -> None:
    """With its event."""
    now = world.clock.now()
    wave = WaveRecord(
        group_name="web", begun_at=now, served=("web-01",), served_at=now, failures=1,
        halted_at=None, halted_why=None, noted_at=now,
    )  # fmt: skip
    event = Event(kind=EventKind.ROLLOUT_RESUMED, at=now)
    await world.store.keep_wave(wave, [event])
    await world.store.keep_wave(wave, [])
    assert await world.store.waves() == [wave]
    assert await world.count(EventKind.ROLLOUT_RESUMED) == 1


async def test_deliveries_are_found_by_their_stage(world: DeliveryWorld) -> None:
    """Open ones with the name of their node, and those that failed after a moment."""
    node, other = await world.node("web-01"), await world.node("web-02")
    await node.wants("www1")
    other.ends = "failed"
    before = world.clock.now() - timedelta(seconds=1)
    await other.wants("www2")
    await other.work()
    (asked,) = await world.store.open_deliveries([DeliveryStage.ASKED, DeliveryStage.PUSHED])
    assert (asked.node, asked.stage) == ("web-01", DeliveryStage.ASKED)
    (failed,) = await world.store.failed_since(before)
    assert (failed.node, failed.stage) == ("web-02", DeliveryStage.FAILED)
    assert await world.store.failed_since(world.clock.now()) == []
    found = await world.store.stages_of([asked.delivery_id, failed.delivery_id, "none"])
    assert {one.delivery_id for one in found} == {asked.delivery_id, failed.delivery_id}
