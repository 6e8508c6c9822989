"""Holds and breakers in a list, for several who ask one CA."""

from collections.abc import Sequence
from datetime import datetime

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord


class FakeStandingStore:
    """``quota_ports.HoldStore`` and ``BreakerStore`` without a disk."""

    def __init__(self) -> None:
        self.kept: list[HoldRecord] = []
        self.open: dict[str, BreakerRecord] = {}
        self.events: list[Event] = []
        self.reads = 0

    async def keep_hold(self, hold: HoldRecord) -> None:
        """See the port."""
        self.kept.append(hold)

    async def holds(self, upstream: str | None, now: datetime) -> Sequence[HoldRecord]:
        """See the port."""
        self.reads += 1
        return [one for one in self.kept if upstream in (None, one.upstream) and one.until > now]

    async def breakers(self) -> Sequence[BreakerRecord]:
        """See the port."""
        self.reads += 1
        return list(self.open.values())

    async def move_breaker(
        self, record: BreakerRecord, *, expected: BreakerRecord | None, events: Sequence[Event]
    ) -> None:
        """See the port."""
        if self.open.get(record.upstream) != expected:
            raise Conflict("moved meanwhile")
        self.open.pop(record.upstream, None)
        if record.state is not BreakerState.CLOSED:
            self.open[record.upstream] = record
        self.events += events
