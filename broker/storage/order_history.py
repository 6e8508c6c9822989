"""Orders as they were made: what limits of CAs are counted by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from broker.issuance.approval_resting import RENEWED_UNDER, RESTING_ON
from broker.issuance.records import OrderRecord
from broker.protocol.identifiers import Identifier
from broker.storage.part import Part
from broker.storage.rows import ORDERS, json_of, moment_of, time_of
from broker.storage.transaction import Snapshot

__all__ = ["OrderHistories"]

MAX_LOOKED_AT: Final = 2_000
"""Most orders of one account in which names, or young certificates of a CSR, are looked for, the
newest first: 10 ms."""

MAX_YOUNG: Final = 200
"""Most young orders of one account that are looked at, the newest first: 1 ms.  Past it an upstream
order may be begun that nobody needs."""

_MADE: Final = (
    "SELECT created_at FROM orders INDEXED BY orders_by_upstream"
    " WHERE upstream = ? AND community = ? AND created_at > ? ORDER BY created_at"
)
_HAD: Final = " ".join(
    (ORDERS.select, "WHERE account_id = ? AND status = 'valid' ORDER BY created_at DESC LIMIT ?")
)

_YOUNG: Final = " ".join(
    (
        ORDERS.select,
        "INDEXED BY orders_by_account WHERE account_id = ? AND created_at >= ?",
        "AND status = 'valid' ORDER BY created_at DESC LIMIT ?",
    )
)
_OF_CSR: Final = "FROM orders INDEXED BY orders_by_csr WHERE account_id = ? AND csr_sha256 = ?"

# Several that were answered with one certificate stand for each other.
_VALID_SIBLINGS: Final = " ".join(
    (
        "SELECT had.order_id, max(finalized_at) FROM",
        "(SELECT order_id, finalized_at, certificate_id",
        _OF_CSR,
        "AND profile = ? AND status = 'valid' ORDER BY finalized_at DESC LIMIT ?) AS had",
        "JOIN certificates AS c ON c.certificate_id = had.certificate_id AND c.received_at >= ?",
        "GROUP BY c.certificate_id ORDER BY 2 DESC LIMIT 50",
    )
)

# Events are numbered in the order of their transactions, whatever the clock said in each.
_CLAIM_NUMBER: Final = (
    "(SELECT ifnull(max(seq), 0) FROM events INDEXED BY events_by_order"
    " WHERE events.order_id = {} AND kind = 'order-finalized')"
)
_SIBLINGS_BEFORE: Final = (
    f"SELECT order_id, {_CLAIM_NUMBER.format('orders.order_id')} AS number {_OF_CSR}"
    " AND profile = ? AND status = 'processing'"
    f" AND number < {_CLAIM_NUMBER.format('?')} ORDER BY number LIMIT 50"
)

_HELD: Final = (
    "SELECT c.identifiers, o.profile, o.created_at, o.decision"
    " FROM certificates AS c INDEXED BY certificates_held"
    " JOIN orders AS o ON o.order_id = c.order_id"
    " WHERE c.account_id = ? AND length(c.identifiers) = ? AND c.not_after > ?"
    " AND c.is_released = 1 AND c.revoked_at IS NULL ORDER BY c.not_after DESC LIMIT ?"
)


class OrderHistories(Part):
    """The ports OrderHistory and YoungStore."""

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

    async def has_had_there(
        self, account_id: str, upstream: str, identifiers: frozenset[Identifier]
    ) -> bool:
        """Return whether the account has had a certificate from there for exactly these."""

        def is_had(snapshot: Snapshot) -> bool:
            for order in ORDERS.read_all(snapshot.all(_HAD, account_id, MAX_LOOKED_AT)):
                if order.upstream == upstream and identifiers == set(order.identifiers):
                    return True
            return False

        return await self._database.scan(is_had)

    async def has_young(
        self, account_id: str, identifiers: Sequence[Identifier], since: datetime
    ) -> bool:
        """Return whether a young order of the account was for exactly these; see the port."""

        def is_had(snapshot: Snapshot) -> bool:
            rows = snapshot.all(_YOUNG, account_id, time_of(since), MAX_YOUNG)
            return any(set(identifiers) == set(one.identifiers) for one in ORDERS.read_all(rows))

        return await self._database.read(is_had)

    async def sibling_orders(self, order: OrderRecord, since: datetime) -> Sequence[str]:
        """Return what *order* may be answered with, or waits for; see the port."""
        given = (order.account_id, order.csr_sha256, order.profile)

        def siblings(snapshot: Snapshot) -> list[str]:
            valid = snapshot.all(_VALID_SIBLINGS, *given, MAX_LOOKED_AT, time_of(since))
            before = snapshot.all(_SIBLINGS_BEFORE, *given, order.order_id)
            return [str(row[0]) for row in (*valid, *before)]

        return await self._database.read(siblings)

    async def has_certificate_of(
        self,
        account_id: str,
        identifiers: frozenset[Identifier],
        profile: str,
        *,
        alive_after: datetime,
    ) -> bool:
        """Return whether the account was given a certificate of exactly these names."""

        def is_held(snapshot: Snapshot) -> bool:
            held = _held(snapshot, account_id, identifiers, profile, alive_after)
            return next(held, None) is not None

        return await self._database.read(is_held)

    async def approvals_behind(
        self,
        account_id: str,
        identifiers: frozenset[Identifier],
        profile: str,
        *,
        alive_after: datetime,
    ) -> Sequence[str]:
        """Return what the newest such certificate rests on or goes back to; see the port."""

        def behind(snapshot: Snapshot) -> list[str]:
            held = _held(snapshot, account_id, identifiers, profile, alive_after)
            newest = max(held, key=lambda row: row[2], default=None)
            decision = {} if newest is None else json.loads(newest[3])
            told = [*decision.get(RESTING_ON, ()), *decision.get(RENEWED_UNDER, ())]
            return list(dict.fromkeys(str(one) for one in told))

        return await self._database.read(behind)


def _held(
    snapshot: Snapshot,
    account_id: str,
    identifiers: frozenset[Identifier],
    profile: str,
    alive_after: datetime,
) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each certificate of exactly these names that the account was given."""
    text = json_of([(one.type, one.value) for one in identifiers])
    wanted = {(str(one.type), one.value) for one in identifiers}
    given = (account_id, len(text), time_of(alive_after), MAX_LOOKED_AT)
    for row in snapshot.all(_HELD, *given):
        found = {(kind, value) for kind, value in json.loads(row[0])}
        if row[1] == profile and found == wanted:
            yield row
