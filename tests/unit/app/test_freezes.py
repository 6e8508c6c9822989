"""Freezes on the readiness page and the metrics page."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.app.freezes import SHOWN, FreezeMetrics, freeze_warning
from broker.issuance.errors import Unreachable
from broker.issuance.freeze_ports import FreezeKind, FreezeRecord
from broker.issuance.freezes import Freezes
from tests.fakes.world import World
from tests.unit.operations.conftest import ANNA


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A whole world."""
    async with World(tmp_path) as made:
        yield made


async def freeze(world: World, kind: FreezeKind, subject: str) -> None:
    """Freeze something, and let a second pass."""
    record = FreezeRecord(
        kind=kind,
        community="default",
        subject=subject,
        name=subject,
        at=world.clock.now(),
        actor=ANNA.name,
        reason="a drill",
    )
    await world.freezes.freeze(record, ANNA)
    world.clock.advance(timedelta(seconds=1))


async def test_readiness_names_what_is_frozen(world: World) -> None:
    """The first few of them; nothing where nothing is."""
    assert await freeze_warning(world.freezes) is None
    await freeze(world, FreezeKind.COMMUNITY, "default")
    assert await freeze_warning(world.freezes) == ("community 'default' since 2026-03-01T12:00:00Z")
    for number in range(SHOWN):
        await freeze(world, FreezeKind.ACCOUNT, f"a{number}")
    said = await freeze_warning(world.freezes)
    assert said is not None
    assert said.endswith("account 'a3' since 2026-03-01T12:00:04Z and 1 more")


async def test_metrics_count_by_kind(world: World) -> None:
    """Zero as well, so that an alarm has something to look at."""
    registry = CollectorRegistry()
    metrics = FreezeMetrics(registry)

    def value(kind: str) -> float | None:
        return registry.get_sample_value("penstock_frozen", {"kind": kind})

    await metrics.show(world.freezes)
    assert [value(str(kind)) for kind in FreezeKind] == [0.0] * len(FreezeKind)
    await freeze(world, FreezeKind.ACCOUNT, "a1")
    await freeze(world, FreezeKind.ACCOUNT, "a2")
    await metrics.show(world.freezes)
    assert (value("account"), value("community")) == (2.0, 0.0)


async def test_store_that_cannot_be_read_is_told(world: World) -> None:
    """The readiness page answers all the same."""

    class Failing:
        async def freezes(self) -> Any:
            raise Unreachable("disk is failing")

    store: Any = Failing()
    said = await freeze_warning(Freezes(store, world.store, world.clock))
    assert said == "everything: it cannot be read what is (disk is failing)"
