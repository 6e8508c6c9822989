"""Orders as they were made: what limits of CAs are counted by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from broker.issuance.approval_resting import RENEWED_UNDER, RESTING_ON
from broker.issuance.ports import FinalizeClaim
from broker.issuance.records import OrderRecord
from broker.protocol.identifiers import Identifier
from broker.storage.part import Part
from broker.storage.rows import ORDERS, json_of, moment_of, time_of
from broker.storage.transaction import Snapshot

__all__ = ["OrderHistories", "behind_siblings"]

MAX_LOOKED_AT: Final = 2_000
"""Most orders of one account in which names are looked for, the newest first: 10 ms."""

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
_VALID_SIBLINGS: Final = (
    f"SELECT order_id, max(finalized_at) {_OF_CSR} AND finalized_at >= ? AND status = 'valid'"
    " AND profile = ? GROUP BY certificate_id ORDER BY 2 DESC LIMIT 50"
)
_SIBLINGS_BEFORE: Final = (
    f"SELECT order_id {_OF_CSR} AND finalized_at >= ? AND status = 'processing'"
    " AND profile = ? AND (finalized_at, order_id) < (?, ?)"
    " ORDER BY finalized_at, order_id LIMIT 50"
)
_LAST_SIBLING: Final = (
    "SELECT max(one.finalized_at) FROM orders AS own, orders AS one INDEXED BY orders_by_csr"
    " WHERE own.order_id = ? AND one.account_id = own.account_id AND one.csr_sha256 = ?"
)

TICK: Final = timedelta(microseconds=1)
"""The least by which two times in the store differ."""

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
        if order.finalized_at is None:
            return []
        given = (order.account_id, order.csr_sha256, time_of(since), order.profile)
        place = (time_of(order.finalized_at), order.order_id)

        def siblings(snapshot: Snapshot) -> list[str]:
            valid = snapshot.all(_VALID_SIBLINGS, *given)
            before = snapshot.all(_SIBLINGS_BEFORE, *given, *place)
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


def behind_siblings(snapshot: Snapshot, claim: FinalizeClaim) -> FinalizeClaim:
    """Return *claim* at a time after every earlier claim of the account with this CSR.

    The one whose transaction comes first is the first, whatever the clock said when each was made:
    ``sibling_orders`` could otherwise find none before either of two, and both would be issued.
    What is begun with the claim is no older than it.
    """
    ((last,),) = snapshot.all(_LAST_SIBLING, claim.order_id, claim.csr_sha256)
    if last is None or time_of(claim.at) > last:
        return claim
    at = moment_of(last) + TICK
    work = replace(claim.new_work, created_at=max(claim.new_work.created_at, at))
    return replace(claim, at=at, new_work=work)


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
