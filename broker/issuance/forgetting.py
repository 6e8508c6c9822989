"""Deliveries that ended long ago are forgotten, so that a store does not grow with every renewal.

What happened stays on record: ``audit trace`` and ``cert evidence`` read events.  A delivery's own
row is what ``cert trace`` and incidents read, so it stays for as long as its certificate is good,
and the time of the configuration besides.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from broker.issuance.ports import Clock

__all__ = ["EndedDeliveries", "Forgetting"]

BATCH: Final = 1_000
"""Most deliveries that are forgotten in one transaction: others wait for it meanwhile."""

LOOK_EVERY: Final = timedelta(hours=6)
"""How often it is looked for more: each look passes over the newest of every certificate."""

log = structlog.get_logger("penstock")


class EndedDeliveries(Protocol):
    """Deliveries that are over."""

    async def forget_deliveries(self, before: datetime, limit: int) -> int:
        """Forget the first *limit* that ended before that and that nobody asks about any more.

        What stays however old it is: the newest ended one of each certificate at a node, the one
        that brought what is there now, one whose certificate had not ended by then, one of an
        incident that goes on, and one whose end has still to be told.
        """
        ...


class Forgetting:
    """Forgets deliveries, a part at a time."""

    def __init__(self, store: EndedDeliveries, clock: Clock, *, keep: timedelta) -> None:
        """Keep each for *keep* after its end, and after that of its certificate."""
        self._store = store
        self._clock = clock
        self._keep = keep
        self._look_at = clock.now()

    async def take_turn(self) -> None:
        """Forget a part of what there is, if it is time to look."""
        now = self._clock.now()
        if now < self._look_at:
            return
        forgotten = await self._store.forget_deliveries(now - self._keep, BATCH)
        self._look_at = now if forgotten == BATCH else now + LOOK_EVERY
        if forgotten:
            log.info("ended deliveries are forgotten", deliveries=forgotten)
