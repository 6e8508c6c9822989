"""Which orders were claimed in this process: of those it knows whether a finalize was sent.

FINALIZING is written without fsync, and before finalize is sent.  So while the process that claimed
an order lives, nothing that it wrote of it can have been lost; what an earlier one wrote may be
gone with the machine's power.  No clock says which it is: clocks are set back.
"""

from __future__ import annotations

from typing import Final

from broker.issuance.records import OrderRecord, WorkRecord, WorkStatus

__all__ = ["Witness"]

MAX_CLAIMS: Final = 50_000
"""Most claims that are remembered, the newest: 10 MiB.  One that is forgotten is like one of an
earlier process."""


class Witness:
    """Remembers the claims of one process, over all its turns."""

    def __init__(self) -> None:
        self._claimed: dict[str, None] = {}

    def saw_claim(self, order_id: str) -> None:
        """Note that this process has claimed the order: nothing of it was sent before."""
        if len(self._claimed) >= MAX_CLAIMS:
            del self._claimed[next(iter(self._claimed))]
        self._claimed[order_id] = None

    def is_unfinalized(self, order: OrderRecord, work: WorkRecord) -> bool:
        """Return whether no finalize of *work* can have reached its CA, which is none of ours.

        INTENDED is on the disk before newOrder is sent.
        """
        if work.status is WorkStatus.INTENDED:
            return True
        return work.status is WorkStatus.OPENED and order.order_id in self._claimed
