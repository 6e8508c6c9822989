"""Orders as they were made: what limits of CAs are counted by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.protocol.identifiers import Identifier
from broker.storage.part import Part
from broker.storage.rows import ORDERS, moment_of, time_of
from broker.storage.transaction import Snapshot

__all__ = ["OrderHistories"]

MAX_LOOKED_AT: Final = 2_000
"""Most orders of one account in which names are looked for, the newest first: 10 ms."""

_MADE: Final = (
    "SELECT created_at FROM orders INDEXED BY orders_by_upstream"
    " WHERE upstream = ? AND community = ? AND created_at > ? ORDER BY created_at"
)
_HAD: Final = " ".join(
    (ORDERS.select, "WHERE account_id = ? AND status = 'valid' ORDER BY created_at DESC LIMIT ?")
)


class OrderHistories(Part):
    """The port OrderHistory."""

    async def orders_made(
        self, upstream: str, community: str, since: datetime
    ) -> Sequence[datetime]:
        """Return when orders for that upstream were made, the oldest first."""
        rows = await self._database.scan(
            lambda snapshot: snapshot.all(_MADE, upstream, community, time_of(since))
        )
        return [moment_of(row[0]) for row in rows]

    async def has_had(self, account_id: str, identifiers: frozenset[Identifier]) -> bool:
        """Return whether one order of the account brought a certificate for all of these."""

        def is_had(snapshot: Snapshot) -> bool:
            rows = snapshot.all(_HAD, account_id, MAX_LOOKED_AT)
            return any(identifiers <= set(ORDERS.read(row).identifiers) for row in rows)

        return await self._database.scan(is_had)
