"""Waves of rollout groups, and the deliveries that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.events import Event
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.rollout_ports import OpenDelivery, WaveRecord
from broker.storage.part import Part
from broker.storage.rows import RowCodec, json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Rollouts"]

WAVES: Final = RowCodec("rollout_waves", WaveRecord)
_OPEN: Final = RowCodec("open_deliveries", OpenDelivery)

_KEEP: Final = WAVES.insert.replace("INSERT", "INSERT OR REPLACE", 1)
_DELIVERIES: Final = " ".join(
    (
        "SELECT",
        ", ".join("n.name" if name == "node" else f"d.{name}" for name in _OPEN.columns),
        "FROM deliveries d JOIN nodes n ON n.node_id = d.node_id",
    )
)
_IN_STAGES: Final = " ".join(
    (
        _DELIVERIES,
        "WHERE d.stage IN (SELECT value FROM json_each(?)) AND d.ended_at IS NULL",
        "ORDER BY d.begun_at, d.delivery_id",
    )
)
_BY_ID: Final = " ".join((_DELIVERIES, "WHERE d.delivery_id IN (SELECT value FROM json_each(?))"))
_FAILED: Final = " ".join(
    (
        _DELIVERIES,
        "WHERE d.stage IN ('refused', 'failed', 'restored') AND d.ended_at > ?",
        "ORDER BY d.ended_at, d.delivery_id LIMIT 10000",
    )
)


class Rollouts(Part):
    """The port RolloutStore."""

    async def waves(self) -> Sequence[WaveRecord]:
        """Return every wave that is kept."""
        return await self._database.read(
            lambda snapshot: WAVES.read_all(snapshot.all(WAVES.select + " ORDER BY group_name"))
        )

    async def keep_wave(self, wave: WaveRecord, events: Sequence[Event]) -> None:
        """Keep *wave* in place of what is there for its group."""

        def work(transaction: Transaction) -> None:
            transaction.change(_KEEP, *WAVES.values(wave))
            transaction.record(events)

        await self._database.write(work)

    async def open_deliveries(self, stages: Sequence[DeliveryStage]) -> Sequence[OpenDelivery]:
        """Return the deliveries in these stages, the longest begun first."""
        words = json_of([stage.value for stage in stages])

        def work(snapshot: Snapshot) -> list[OpenDelivery]:
            return _OPEN.read_all(snapshot.all(_IN_STAGES, words))

        return await self._database.scan(work)

    async def stages_of(self, delivery_ids: Sequence[str]) -> Sequence[OpenDelivery]:
        """Return these deliveries as they stand, ended or not."""
        ids = json_of(list(delivery_ids))
        return await self._database.read(lambda snapshot: _OPEN.read_all(snapshot.all(_BY_ID, ids)))

    async def failed_since(self, moment: datetime) -> Sequence[OpenDelivery]:
        """Return what failed, was refused or put back after *moment*, the oldest first."""
        return await self._database.scan(
            lambda snapshot: _OPEN.read_all(snapshot.all(_FAILED, time_of(moment)))
        )
