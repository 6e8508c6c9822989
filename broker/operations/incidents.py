"""The part of the desk about mass replacement: what is meant, how long it takes, how far it is."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.issuance.events import Actor
from broker.issuance.incident_ports import (
    AT_ONCE,
    IncidentRecord,
    IncidentStatus,
    ItemKind,
    ItemStatus,
    Order,
    Selected,
    Selection,
)
from broker.issuance.incidents import Incidents
from broker.issuance.revocations import REASONS
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.replacement import ordered_at, rolled_out_at
from broker.policy.units import format_duration, format_rate, parse_duration
from broker.protocol.parsed_certificate import ChainError, parse_certificate
from broker.web.operator import OperationError

__all__ = ["IncidentDesk"]

MAX_SHOWN: Final = 200
"""Most certificates that are shown of each kind; ``--json`` has as many, the counts are whole."""

MAX_AT_ONCE: Final = 1000
"""Most replacements that may be ordered at once: more than any CA answers side by side."""

SELECTORS: Final = frozenset(
    {"issuer", "key", "node", "profile", "upstream", "community", "after", "before"}
)
"""What a selection may name."""

_KEY_ID: Final = re.compile(r"[0-9a-f]{8,128}", re.ASCII)
_SPKI: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

_LEFT: Final = tuple(one for one in ItemStatus if not one.is_end)


class IncidentDesk(Desk):
    """Commands about mass replacement."""

    @property
    def _incidents(self) -> Incidents:
        if self._rooms.incidents is None:
            raise OperationError("this desk has no incidents")
        return self._rooms.incidents

    async def incident_plan(self, *, select: Mapping[str, str], deadline: str | None = None) -> Any:
        """Return how many would be replaced, what limits allow, and when it would be finished."""
        selection = await self._selection(select)
        found = await self._incidents.select(selection)
        return await self._forecast(selection, found, _duration(deadline))

    async def incident_start(
        self,
        *,
        actor: Actor,
        select: Mapping[str, str],
        deadline: str | None = None,
        code: int = 4,
        at_once: int | None = None,
        explanation: str | None = None,
    ) -> Any:
        """Begin to replace what is selected."""
        if code not in REASONS:
            allowed = ", ".join(str(one) for one in sorted(REASONS))
            raise OperationError(f"reason {code} is not offered", f"one of {allowed}")
        if at_once is not None and not 0 < at_once <= MAX_AT_ONCE:
            raise OperationError(f"at once {at_once} is not between 1 and {MAX_AT_ONCE}")
        if explanation is not None and not explanation.startswith(("https://", "http://")):
            raise OperationError("explanation is no URL of a web page")
        order = Order(
            selection=await self._selection(select),
            revocation_reason=code,
            deadline=_duration(deadline),
            at_once=AT_ONCE if at_once is None else at_once,
            explanation_url=explanation,
        )
        incident = await self._incidents.start(order, actor)
        return await self._incident_view(incident)

    async def incident_list(self) -> Any:
        """Return mass replacements, the newest first."""
        found = await self._store.list_incidents(MAX_SHOWN)
        return [await self._incident_row(one) for one in found]

    async def incident_show(self, *, incident: str) -> Any:
        """Return one with what is left of it."""
        return await self._incident_view(await self._incident(incident))

    async def incident_pause(self, *, actor: Actor, incident: str) -> Any:
        """Begin nothing more of it until it is resumed."""
        return await self._change_incident(incident, IncidentStatus.PAUSED, actor)

    async def incident_resume(self, *, actor: Actor, incident: str) -> Any:
        """Go on with one that was paused."""
        return await self._change_incident(incident, IncidentStatus.OPEN, actor)

    async def incident_abandon(self, *, actor: Actor, incident: str) -> Any:
        """End it with whatever is left; what was begun is not undone."""
        return await self._change_incident(incident, IncidentStatus.ABANDONED, actor)

    # ------------------------------------------------------------------------------------ within

    async def _incident(self, incident: str) -> IncidentRecord:
        found = await self._store.find_incident(incident)
        if found is None:
            raise OperationError(f"there is no incident '{incident}'", "see penstock incident list")
        return found

    async def _change_incident(self, incident: str, status: IncidentStatus, actor: Actor) -> Any:
        await self._incident(incident)
        return await self._incident_row(await self._incidents.change(incident, status, actor))

    async def _selection(self, select: Mapping[str, str]) -> Selection:
        unknown = set(select) - SELECTORS
        if unknown:
            words = ", ".join(sorted(SELECTORS))
            raise OperationError(f"'{min(unknown)}' selects nothing", f"one of {words}")
        if not select:
            raise OperationError("nothing is selected", "name an issuer, a key, a node or a date")
        key = select.get("key")
        if key is not None and _SPKI.fullmatch(key) is None:
            raise OperationError("key is no SHA-256 of a public key in hex")
        issuer = select.get("issuer")
        return Selection(
            issuers=() if issuer is None else await self._issuers(issuer),
            spki_sha256=key,
            node=select.get("node"),
            profile=select.get("profile"),
            upstream=select.get("upstream"),
            community=select.get("community"),
            issued_after=_moment(select.get("after")),
            issued_before=_moment(select.get("before")),
        )

    async def _issuers(self, text: str) -> tuple[str, ...]:
        """Return the key identifiers of the issuer of that key identifier or name."""
        bare = text.replace(":", "").lower()
        if _KEY_ID.fullmatch(bare) and len(bare) % 2 == 0:
            octets = bytes.fromhex(bare)
            return (base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii"),)
        samples = await self._store.issuer_samples()
        names = {key: _issuer_name(der) for key, der in samples.items()}
        found = tuple(key for key, name in names.items() if _is_called(name, text))
        if not found:
            known = ", ".join(sorted({name for name in names.values() if name})) or "none"
            raise OperationError(
                f"no certificate comes from an issuer '{text}'", f"there is {known}"
            )
        return found

    async def _forecast(
        self, selection: Selection, found: Sequence[Selected], deadline: timedelta | None
    ) -> View:
        now = self._rooms.clock.now()
        managed = [one for one in found if one.managed_id is not None]
        stock = [one for one in found if one.managed_id is None]
        upstreams, ordered = await self._orders_forecast(managed, now)
        groups, finished = self._groups_forecast(managed, ordered, now)
        due = None if deadline is None else now + deadline
        return {
            "selection": selection.document(),
            "certificates": len(found),
            "at_nodes": len(managed),
            "by_their_clients": len(stock),
            "orders": upstreams,
            "rollout": groups,
            "finished": time_view(finished),
            "deadline": time_view(due),
            "in_time": None if due is None else finished <= due,
            "late_by": format_duration(finished - due) if due and finished > due else None,
            "clients": [_selected_view(one) for one in stock[:MAX_SHOWN]],
        }

    async def _orders_forecast(
        self, managed: Sequence[Selected], now: datetime
    ) -> tuple[list[View], datetime]:
        counts = Counter((one.upstream, one.community) for one in managed)
        views: list[View] = []
        last = now
        for (upstream, community), number in sorted(counts.items()):
            budget = self._rooms.budget
            bucket = None if budget is None else await budget.level(upstream, community)
            by = ordered_at(number, bucket, now)
            last = max(last, by)
            views.append(
                {
                    "upstream": upstream,
                    "community": community,
                    "orders": number,
                    "limit": None if bucket is None else format_rate(bucket.rate),
                    "left_now": None if bucket is None else int(bucket.level),
                    "ordered": time_view(by),
                }
            )
        return views, last

    def _groups_forecast(
        self, managed: Sequence[Selected], ordered: datetime, now: datetime
    ) -> tuple[list[View], datetime]:
        rollouts = self._rooms.rollouts
        nodes: dict[str | None, set[str]] = {}
        groups = {}
        for name in {one.node for one in managed if one.node is not None}:
            group = None if rollouts is None else rollouts.group_of(name)
            groups[None if group is None else group.name] = group
            nodes.setdefault(None if group is None else group.name, set()).add(name)
        views: list[View] = []
        last = now
        for label in sorted(nodes, key=str):
            by = rolled_out_at(len(nodes[label]), groups[label], ordered, now)
            last = max(last, by)
            views.append({"group": label, "nodes": len(nodes[label]), "finished": time_view(by)})
        return views, last

    async def _incident_row(self, incident: IncidentRecord) -> View:
        counts = await self._store.count_items(incident.incident_id)
        managed = counts[ItemKind.MANAGED]
        stock = counts[ItemKind.STOCK]
        return {
            "incident": incident.incident_id,
            "status": str(incident.status),
            "started": time_view(incident.started_at),
            "deadline": time_view(incident.deadline_at),
            "ended": time_view(incident.ended_at),
            "certificates": sum(managed.values()) + sum(stock.values()),
            "revoked": managed.get(ItemStatus.REVOKED, 0),
            "left": sum(managed.get(one, 0) for one in _LEFT) + managed.get(ItemStatus.REFUSED, 0),
            "left_to_clients": stock.get(ItemStatus.PULLED, 0),
        }

    async def _incident_view(self, incident: IncidentRecord) -> View:
        counts = await self._store.count_items(incident.incident_id)
        left = await self._store.incident_items(
            incident.incident_id, (*_LEFT, ItemStatus.REFUSED), MAX_SHOWN
        )
        return {
            **await self._incident_row(incident),
            "by": incident.started_by,
            "reason": incident.reason,
            "revocation_reason": incident.revocation_reason,
            "selection": dict(incident.selection),
            "is_late": incident.late_at is not None,
            "at_nodes": {str(one): number for one, number in counts[ItemKind.MANAGED].items()},
            "by_their_clients": {
                str(one): number for one, number in counts[ItemKind.STOCK].items()
            },
            "what_is_left": [
                {
                    "certificate": item.certificate_id,
                    "node": item.node,
                    "status": str(item.status),
                    "note": item.note,
                    "again": time_view(item.retry_at),
                }
                for item in left
            ],
        }


def _selected_view(one: Selected) -> View:
    return {
        "certificate": one.certificate_id,
        "names": [identifier.value for identifier in one.identifiers],
        "not_after": time_view(one.not_after),
        "profile": one.profile,
        "upstream": one.upstream,
    }


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise OperationError(str(error)) from error


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OperationError(
            f"'{text[:40]}' is no date", "such as 2026-11-22 or 2026-11-22T10:00:00Z"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _issuer_name(der: bytes) -> str | None:
    try:
        return parse_certificate(der).issuer
    except ChainError:
        return None


def _is_called(name: str | None, text: str) -> bool:
    if name is None:
        return False
    parts = [part.strip().casefold() for part in name.split(",")]
    wanted = text.strip().casefold()
    return name.casefold() == wanted or f"cn={wanted}" in parts
