"""Deliveries as the broker's store has them at the end of a soak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.deployments.node_agents import TrustingPenstock

__all__ = ["ENDS", "Delivery", "read_deliveries"]

ENDS: Final = ("seen", "refused", "failed", "restored", "withdrawn", "superseded")

_MICRO: Final = 1_000_000

_DELIVERIES: Final = """
SELECT d.delivery_id, n.name, d.generation, d.stage, d.reason, d.note, d.certificate_id, d.order_id,
       d.begun_at, d.issued_at, d.pushed_at, d.checked_at, d.installed_at, d.reloaded_at, d.ended_at
FROM deliveries d JOIN nodes n ON n.node_id = d.node_id ORDER BY d.begun_at
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery; times in seconds since 1970."""

    delivery_id: str
    node: str
    generation: int
    stage: str
    reason: str
    note: str | None
    certificate_id: str | None
    order_id: str | None
    begun_at: float
    issued_at: float | None
    pushed_at: float | None
    checked_at: float | None
    installed_at: float | None
    reloaded_at: float | None
    ended_at: float | None

    @property
    def steps(self) -> dict[str, float]:
        """Return how long each step took that was taken, in seconds."""
        times = [
            ("issued", self.begun_at, self.issued_at),
            ("pushed", self.issued_at, self.pushed_at),
            ("installed", self.pushed_at, self.installed_at),
            ("served", self.pushed_at, self.ended_at if self.stage == "seen" else None),
        ]
        return {
            name: end - begin for name, begin, end in times if begin is not None and end is not None
        }


def read_deliveries(broker: TrustingPenstock) -> list[Delivery]:
    """Return every delivery, oldest first."""
    found = []
    for row in broker.rows(_DELIVERIES):
        times = [None if at is None else at / _MICRO for at in row[8:]]
        found.append(Delivery(*row[:8], *times))
    return found
