"""What rollout groups keep and read; under the rules of ``ports`` and beside ``node_ports``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from broker.issuance.events import Event
from broker.issuance.node_ports import DeliveryStage
from broker.policy.rollout import Group, Outcome, Wave

__all__ = [
    "BEGUN",
    "OUTCOMES",
    "UNDER_WAY",
    "GroupView",
    "OpenDelivery",
    "RolloutStore",
    "Waiting",
    "WaveRecord",
    "in_turn",
    "late_outcome",
]


BEGUN: Final = (DeliveryStage.ASKED, DeliveryStage.ORDERED, DeliveryStage.ISSUED)
"""Stages before a push."""

UNDER_WAY: Final = (
    DeliveryStage.PUSHED,
    DeliveryStage.CHECKED,
    DeliveryStage.INSTALLED,
    DeliveryStage.RELOADED,
)
"""Stages between a push and its end."""

OUTCOMES: Final = {
    DeliveryStage.SEEN: Outcome.SERVED,
    DeliveryStage.REFUSED: Outcome.FAILED,
    DeliveryStage.FAILED: Outcome.FAILED,
    DeliveryStage.RESTORED: Outcome.FAILED,
}
"""What the end of a delivery says about its wave; any other says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveRecord:
    """Where the wave of a rollout group stands, as it is kept."""

    group_name: str
    begun_at: datetime
    served: tuple[str, ...]
    served_at: datetime | None
    failures: int
    halted_at: datetime | None
    halted_why: str | None
    noted_at: datetime
    """When the last outcome was counted: what ended before is in ``failures`` already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDelivery:
    """A delivery as far as a rollout looks at it."""

    delivery_id: str
    node_id: str
    node: str
    """Name of the node."""
    stage: DeliveryStage
    begun_at: datetime
    issued_at: datetime | None
    pushed_at: datetime | None
    ended_at: datetime | None


class RolloutStore(Protocol):
    """Waves, and the deliveries that they are made of."""

    async def waves(self) -> Sequence[WaveRecord]: ...

    async def keep_wave(self, wave: WaveRecord, events: Sequence[Event]) -> None:
        """Keep *wave* in place of what is there for its group."""
        ...

    async def open_deliveries(self, stages: Sequence[DeliveryStage]) -> Sequence[OpenDelivery]:
        """Return the deliveries in these stages, the longest begun first."""
        ...

    async def stages_of(self, delivery_ids: Sequence[str]) -> Sequence[OpenDelivery]:
        """Return these deliveries as they stand, ended or not."""
        ...

    async def failed_since(self, moment: datetime) -> Sequence[OpenDelivery]:
        """Return what failed, was refused or put back after *moment*, the oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that was not let go when it was judged last."""

    delivery_id: str
    node: str
    why: str
    asked_at: datetime
    is_canary: bool
    is_shut: bool = False
    """Whether it waits for a window."""


def in_turn(one: Waiting) -> tuple[bool, str, str]:
    """Return where a delivery stands in the queue: canaries first, then by name."""
    return not one.is_canary, one.node, one.delivery_id


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group as people see it."""

    group: Group
    wave: Wave
    under_way: Sequence[str]
    waiting: Sequence[Waiting]


def late_outcome(found: OpenDelivery | None) -> Outcome:
    """Return what a late delivery counts as: as it ended, if only nobody told of it."""
    if found is None or found.stage in BEGUN:
        return Outcome.DROPPED
    if found.stage.is_end:
        return OUTCOMES.get(found.stage, Outcome.DROPPED)
    return Outcome.SILENT
