"""The part of the desk that hands out what was asked of policy, for ``policy diff``.

Facts only, in pages: the command asks both sets of policies in its own process, so that a broker is
held by nothing but reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.issuance.replay_ports import AskedRecord, Asker, ReplayPlace
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.replay_report import ReplayKind
from broker.web.operator import OperationError

__all__ = ["ReplayDesk"]

PAGE_ROWS: Final = 2_000
"""Most rows of one page: about half a megabyte, which holds the loop for some 20 ms."""


class ReplayDesk(Desk):
    """Commands about what was asked."""

    async def policy_asked_counts(self, *, days: int) -> Any:
        """Return how many orders and live certificates there are to replay."""
        now = self._rooms.clock.now()
        orders, certificates = await self._store.count_asked(now, now - _days(days))
        return {"at": time_view(now), "orders": orders, "certificates": certificates}

    async def policy_asked(
        self, *, kind: str, days: int, after: Sequence[object] | None = None, limit: int = PAGE_ROWS
    ) -> Any:
        """Return a page of what was asked, with the accounts that asked, and where the next begins.

        *after* is what the page before told; *kind* is order, certificate or refusal.
        """
        if kind not in set(ReplayKind):
            raise OperationError(f"'{kind}' is no kind", f"one of {', '.join(ReplayKind)}")
        if not 0 < limit <= PAGE_ROWS:
            raise OperationError(f"limit {limit} is not between 1 and {PAGE_ROWS}")
        now = self._rooms.clock.now()
        since = now - _days(days)
        rows = await self._page(ReplayKind(kind), now, since, after, limit)
        askers = await self._store.askers(sorted({row.account_id for row in rows}))
        return {
            "rows": [_row(row) for row in rows],
            "askers": {one.account_id: _asker(one) for one in askers},
            "after": _place_after(rows[-1]) if len(rows) == limit else None,
        }

    async def _page(
        self,
        kind: ReplayKind,
        now: datetime,
        since: datetime,
        after: Sequence[object] | None,
        limit: int,
    ) -> Sequence[AskedRecord]:
        if kind is ReplayKind.CERTIFICATE:
            place = ReplayPlace(datetime.fromtimestamp(0, UTC)) if after is None else _read(after)
            return await self._store.certificates_alive(now, place, limit)
        place = ReplayPlace(since) if after is None else _read(after)
        if kind is ReplayKind.ORDER:
            return await self._store.orders_asked(place, limit)
        return await self._store.refusals_asked(place, limit)


def _days(days: int) -> timedelta:
    if not 0 <= days <= 3_660:
        raise OperationError(f"{days} days are not between 0 and 3660")
    return timedelta(days=days)


def _place_after(row: AskedRecord) -> list[object]:
    return [row.at.isoformat(), row.reference]


def _read(after: Sequence[object]) -> ReplayPlace:
    try:
        at, reference = after
        return ReplayPlace(datetime.fromisoformat(str(at)), str(reference))
    except ValueError:
        raise OperationError("'after' is no place that a page told") from None


def _row(row: AskedRecord) -> View:
    return {
        "reference": row.reference,
        "community": row.community,
        "account": row.account_id,
        "names": [[str(one.type), one.value] for one in row.identifiers],
        "profile": row.profile,
        "start": row.is_start_asked,
        "lifetime": None if row.lifetime is None else row.lifetime.total_seconds(),
        "requester": dict(row.requester),
        "renewal": row.is_unchanged_renewal,
        "until": time_view(row.until),
    }


def _asker(one: Asker) -> View:
    return {
        "thumbprint": one.thumbprint,
        "eab": one.eab_key_id,
        "eab_names": list(one.eab_names),
        "eab_profiles": list(one.eab_profiles),
        "node": one.node,
        "node_names": list(one.node_names),
        "node_profiles": list(one.node_profiles),
        "attestation": one.attestation,
        "closed": one.is_closed,
    }
