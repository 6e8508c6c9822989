"""What was asked of policy, in pages: orders, live certificates, refused requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from broker.issuance.replay_ports import AskedRecord, Asker, ReplayPlace
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.storage.part import Part
from broker.storage.rows import json_of, moment_of, time_of

__all__ = ["Replays"]

_ASKED: Final = (
    "o.community, o.account_id, o.identifiers, CASE WHEN o.is_profile_asked THEN o.profile END,"
    " o.not_before IS NOT NULL, o.not_after - o.created_at,"
    " json_extract(o.decision, '$.requester'),"
    " json_extract(o.decision, '$.is_unchanged_renewal')"
)
"""What policy was asked, of an order; the lifetime in microseconds."""

_ORDERS: Final = " ".join(
    (
        "SELECT o.order_id, o.created_at, NULL,",
        _ASKED,
        "FROM orders o INDEXED BY orders_by_time WHERE (o.created_at, o.order_id) > (?1, ?2)",
        "ORDER BY o.created_at, o.order_id LIMIT ?3",
    )
)
# The plus keeps the planner from the index on ends, in which pages have no order.
_CERTIFICATES: Final = " ".join(
    (
        "SELECT c.certificate_id, c.received_at, c.not_after,",
        _ASKED,
        "FROM certificates c INDEXED BY certificates_by_time",
        "JOIN orders o ON o.order_id = c.order_id",
        "WHERE (c.received_at, c.certificate_id) > (?1, ?2) AND +c.not_after > ?4",
        "AND c.is_released = 1 AND c.revoked_at IS NULL",
        "ORDER BY c.received_at, c.certificate_id LIMIT ?3",
    )
)
_REFUSALS: Final = (
    "SELECT seq, at, community, account_id, json_extract(data, '$.request') FROM events"
    " INDEXED BY events_refused WHERE kind = 'request-refused' AND (at, seq) > (?1, ?2)"
    " AND json_extract(data, '$.request') IS NOT NULL AND account_id IS NOT NULL"
    " ORDER BY at, seq LIMIT ?3"
)
_ASKERS: Final = (
    "SELECT a.account_id, a.thumbprint, a.eab_key_id, e.names, e.profiles,"
    " n.name, n.names, n.profiles, n.method,"
    " a.status <> 'valid' OR (a.eab_key_id IS NOT NULL AND e.key_id IS NULL)"
    " OR e.revoked_at IS NOT NULL OR coalesce(n.status = 'revoked', 0)"
    " FROM accounts a"
    " LEFT JOIN eab_keys e ON e.community = a.community AND e.key_id = a.eab_key_id"
    " LEFT JOIN nodes n ON n.account_id = a.account_id"
    " WHERE a.account_id IN (SELECT value FROM json_each(?))"
)
_COUNTS: Final = (
    "SELECT (SELECT count(*) FROM orders WHERE created_at > ?1),"
    " (SELECT count(*) FROM certificates"
    " WHERE is_released = 1 AND revoked_at IS NULL AND not_after > ?2)"
)


class Replays(Part):
    """The port ReplayStore."""

    async def orders_asked(self, after: ReplayPlace, limit: int) -> Sequence[AskedRecord]:
        """Return orders that were made behind *after*."""
        rows = await self._database.scan(
            lambda snapshot: snapshot.all(_ORDERS, time_of(after.at), after.reference, limit)
        )
        return [_asked(row) for row in rows]

    async def certificates_alive(
        self, now: datetime, after: ReplayPlace, limit: int
    ) -> Sequence[AskedRecord]:
        """Return live certificates that were received behind *after*."""
        rows = await self._database.scan(
            lambda snapshot: snapshot.all(
                _CERTIFICATES, time_of(after.at), after.reference, limit, time_of(now)
            )
        )
        return [_asked(row) for row in rows]

    async def refusals_asked(self, after: ReplayPlace, limit: int) -> Sequence[AskedRecord]:
        """Return requests that policy refused behind *after*."""
        number = int(after.reference) if after.reference else 0
        rows = await self._database.scan(
            lambda snapshot: snapshot.all(_REFUSALS, time_of(after.at), number, limit)
        )
        return [_refused(row) for row in rows]

    async def askers(self, account_ids: Sequence[str]) -> Sequence[Asker]:
        """Return these accounts."""
        asked = json_of(list(account_ids))
        rows = await self._database.scan(lambda snapshot: snapshot.all(_ASKERS, asked))
        return [_asker(row) for row in rows]

    async def count_asked(self, now: datetime, since: datetime) -> tuple[int, int]:
        """Return how many orders were made past *since*, and how many certificates are alive."""
        row = await self._database.scan(
            lambda snapshot: snapshot.all(_COUNTS, time_of(since), time_of(now))[0]
        )
        return row[0], row[1]


def _asked(row: tuple[Any, ...]) -> AskedRecord:
    reference, at, until, community, account, names, profile, start, life, requester, again = row
    return AskedRecord(
        reference=reference,
        community=community,
        account_id=account,
        identifiers=_identifiers(json.loads(names)),
        profile=profile,
        is_start_asked=bool(start),
        lifetime=None if life is None else timedelta(microseconds=life),
        at=moment_of(at),
        requester={} if requester is None else json.loads(requester),
        is_unchanged_renewal=bool(again),
        until=None if until is None else moment_of(until),
    )


def _refused(row: tuple[Any, ...]) -> AskedRecord:
    number, at, community, account, text = row
    request: Mapping[str, Any] = json.loads(text)
    seconds = request.get("lifetime_seconds")
    return AskedRecord(
        reference=str(number),
        community=community,
        account_id=account,
        identifiers=_identifiers(request.get("identifiers", ())),
        profile=request.get("profile"),
        is_start_asked=bool(request.get("is_start_asked")),
        lifetime=None if seconds is None else timedelta(seconds=seconds),
        at=moment_of(at),
        requester=request.get("requester") or {},
        is_unchanged_renewal=bool(request.get("is_unchanged_renewal")),
    )


def _identifiers(pairs: Sequence[Sequence[str]]) -> tuple[Identifier, ...]:
    return tuple(Identifier(IdentifierType(kind), value) for kind, value in pairs)


def _asker(row: tuple[Any, ...]) -> Asker:
    account, thumbprint, key, names, profiles = row[:5]
    node, node_names, node_profiles, method, is_closed = row[5:]
    return Asker(
        account_id=account,
        thumbprint=thumbprint,
        eab_key_id=key,
        eab_names=_texts(names),
        eab_profiles=_texts(profiles),
        node=node,
        node_names=_texts(node_names),
        node_profiles=_texts(node_profiles),
        attestation=method,
        is_closed=bool(is_closed),
    )


def _texts(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(json.loads(text))
