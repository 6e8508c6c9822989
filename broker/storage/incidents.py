"""Mass replacements, their certificates, and the clients that are told to renew at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from broker.issuance.events import Event
from broker.issuance.incident_ports import (
    IncidentItem,
    IncidentRecord,
    IncidentStatus,
    ItemKind,
    ItemStatus,
    Selected,
    Selection,
)
from broker.issuance.records import Job
from broker.storage.attached import refuse, upsert_jobs
from broker.storage.part import Part
from broker.storage.rows import RowCodec, json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Incidents"]

INCIDENTS: Final = RowCodec("incidents", IncidentRecord)
ITEMS: Final = RowCodec("incident_items", IncidentItem)
_SELECTED: Final = RowCodec("selected", Selected)

_PUT_ITEM: Final = ITEMS.insert.replace("INSERT", "INSERT OR REPLACE", 1)
_COLUMNS: Final = {
    "profile": "o.profile",
    "managed_id": "coalesce(d.managed_id, m.managed_id)",
    "node": "n.name",
}
_SELECT: Final = " ".join(
    (
        "SELECT",
        ", ".join(_COLUMNS.get(name, f"c.{name}") for name in _SELECTED.columns),
        "FROM certificates c JOIN orders o ON o.order_id = c.order_id",
        "LEFT JOIN deliveries d ON d.order_id = c.order_id",
        "LEFT JOIN managed m ON m.certificate_id = c.certificate_id",
        "LEFT JOIN nodes n ON n.account_id = c.account_id",
        "WHERE c.is_released = 1 AND c.revoked_at IS NULL AND c.not_after > ?1",
        "AND (?2 IS NULL OR substr(c.cert_id, 1, instr(c.cert_id, '.') - 1)",
        "IN (SELECT value FROM json_each(?2)))",
        "AND (?3 IS NULL OR c.spki_sha256 = ?3) AND (?4 IS NULL OR n.name = ?4)",
        "AND (?5 IS NULL OR o.profile = ?5) AND (?6 IS NULL OR c.upstream = ?6)",
        "AND (?7 IS NULL OR c.community = ?7) AND (?8 IS NULL OR c.received_at >= ?8)",
        "AND (?9 IS NULL OR c.received_at < ?9)",
        "ORDER BY c.not_after, c.certificate_id LIMIT ?10",
    )
)
_SAMPLES: Final = (
    "SELECT substr(cert_id, 1, instr(cert_id, '.') - 1) AS issuer, max(leaf_der)"
    " FROM certificates WHERE cert_id IS NOT NULL GROUP BY issuer LIMIT 1000"
)
_OF_STATUS: Final = " ".join(
    (
        ITEMS.select,
        "WHERE incident_id = ? AND status IN (SELECT value FROM json_each(?))",
        "ORDER BY place, certificate_id LIMIT ?",
    )
)


class Incidents(Part):
    """The port IncidentStore."""

    async def select_certificates(
        self, selection: Selection, now: datetime, limit: int
    ) -> Sequence[Selected]:
        """Return the released certificates that are neither ended nor revoked."""
        given: tuple[Any, ...] = (
            time_of(now),
            json_of(list(selection.issuers)) if selection.issuers else None,
            selection.spki_sha256,
            selection.node,
            selection.profile,
            selection.upstream,
            selection.community,
            None if selection.issued_after is None else time_of(selection.issued_after),
            None if selection.issued_before is None else time_of(selection.issued_before),
            limit,
        )
        return await self._database.scan(
            lambda snapshot: _SELECTED.read_all(snapshot.all(_SELECT, *given))
        )

    async def issuer_samples(self) -> Mapping[str, bytes]:
        """Return a certificate of each issuing CA, by its key identifier."""
        return await self._database.scan(lambda snapshot: dict(snapshot.all(_SAMPLES)))

    async def start_incident(
        self, incident: IncidentRecord, items: Sequence[IncidentItem], event: Event, job: Job
    ) -> None:
        """Keep it with all its items; see the port."""

        def work(transaction: Transaction) -> None:
            transaction.change(INCIDENTS.insert, *INCIDENTS.values(incident))
            transaction.change_each(ITEMS.insert, [ITEMS.values(item) for item in items])
            pulled = time_of(incident.started_at)
            transaction.change_each(
                "INSERT OR REPLACE INTO pulled_renewals"
                " (certificate_id, incident_id, pulled_at, pulled_url) VALUES (?, ?, ?, ?)",
                [
                    (item.certificate_id, item.incident_id, pulled, incident.explanation_url)
                    for item in items
                    if item.status is ItemStatus.PULLED
                ],
            )
            upsert_jobs(transaction, (job,))
            transaction.record((event,))

        await self._database.write(work)

    async def change_incident(
        self,
        incident: IncidentRecord,
        *,
        expected: Sequence[IncidentStatus],
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep it in place of what is there; see the port."""

        def work(transaction: Transaction) -> None:
            found = transaction.first(
                "SELECT status FROM incidents WHERE incident_id = ?", incident.incident_id
            )
            if found is None or found[0] not in expected:
                raise refuse(f"incident {incident.incident_id}", found, tuple(expected))
            row = dict(zip(INCIDENTS.columns, INCIDENTS.values(incident), strict=True))
            transaction.change(
                "UPDATE incidents SET status = ?, late_at = ?, ended_at = ? WHERE incident_id = ?",
                *(row[name] for name in ("status", "late_at", "ended_at", "incident_id")),
            )
            if incident.status is IncidentStatus.ABANDONED:
                transaction.change(
                    "DELETE FROM pulled_renewals WHERE incident_id = ?", incident.incident_id
                )
            upsert_jobs(transaction, jobs)
            transaction.record(events)

        await self._database.write(work)

    async def keep_item(self, item: IncidentItem) -> None:
        """Keep *item* in place of what is there."""
        await self._database.write(
            lambda transaction: transaction.change(_PUT_ITEM, *ITEMS.values(item))
        )

    async def find_incident(self, incident_id: str) -> IncidentRecord | None:
        """Return the incident, or None."""

        def work(snapshot: Snapshot) -> IncidentRecord | None:
            row = snapshot.first(INCIDENTS.select + " WHERE incident_id = ?", incident_id)
            return None if row is None else INCIDENTS.read(row)

        return await self._database.read(work)

    async def list_incidents(self, limit: int) -> Sequence[IncidentRecord]:
        """Return them, the newest first."""
        statement = INCIDENTS.select + " ORDER BY started_at DESC, incident_id LIMIT ?"
        return await self._database.read(
            lambda snapshot: INCIDENTS.read_all(snapshot.all(statement, limit))
        )

    async def incident_items(
        self, incident_id: str, statuses: Sequence[ItemStatus], limit: int
    ) -> Sequence[IncidentItem]:
        """Return those in these states, in their turn."""
        words = json_of([one.value for one in statuses])
        return await self._database.scan(
            lambda snapshot: ITEMS.read_all(snapshot.all(_OF_STATUS, incident_id, words, limit))
        )

    async def count_items(self, incident_id: str) -> Mapping[ItemKind, Mapping[ItemStatus, int]]:
        """Return how many there are of each kind in each state."""

        def work(snapshot: Snapshot) -> Mapping[ItemKind, Mapping[ItemStatus, int]]:
            rows = snapshot.all(
                "SELECT kind, status, count(*) FROM incident_items WHERE incident_id = ?"
                " GROUP BY kind, status",
                incident_id,
            )
            counts: dict[ItemKind, dict[ItemStatus, int]] = {kind: {} for kind in ItemKind}
            for kind, status, number in rows:
                counts[ItemKind(kind)][ItemStatus(status)] = number
            return counts

        return await self._database.scan(work)
