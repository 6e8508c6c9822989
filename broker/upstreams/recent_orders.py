"""The ledger's answers about the orders asked for last.

Whoever opens an order of the built-in CA finalizes it and downloads its certificate right after,
and each of the three asks the ledger.  Only one process writes there, so what it said holds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from broker.issuance.records import CaCertificateRecord

__all__ = ["RecentOrders"]

RECENT_ORDERS: Final = 1024
"""Orders whose answer is kept: a megabyte, and more than are between opening and download."""


class RecentOrders:
    """Certificates, or that there is none, by the order's reference."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, CaCertificateRecord | None] = OrderedDict()

    def __contains__(self, reference: str) -> bool:
        return reference in self._kept

    def find(self, reference: str) -> CaCertificateRecord | None:
        """Return what was kept: a certificate, or that there is none."""
        return self._kept[reference]

    def keep(self, reference: str, found: CaCertificateRecord | None) -> None:
        """Keep an answer, and drop the oldest beyond what is kept."""
        self._kept[reference] = found
        if len(self._kept) > RECENT_ORDERS:
            self._kept.popitem(last=False)

    def forget(self, reference: str) -> None:
        """Keep nothing of an order whose certificate is about to be recorded."""
        self._kept.pop(reference, None)
