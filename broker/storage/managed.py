"""Certificates that the broker keeps fresh at nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.node_ports import ManagedRecord
from broker.storage.part import Part
from broker.storage.rows import RowCodec, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["MANAGED", "Managed", "keep_csr", "put_delivered", "read_managed"]

MANAGED: Final = RowCodec("managed", ManagedRecord)

MAX_OF_NODE: Final = 20_000
"""Most certificates of one node that are read at once; a mail host of a thousand organisations
has 5,000."""

_CHANGED: Final = tuple(
    # The CSR is kept by the delivery that asked for it: a statement that was read just before must
    # not take it back.
    name
    for name in MANAGED.columns
    if name not in ("managed_id", "node_id", "csr_der")
)
_PUT: Final = " ".join(
    (
        MANAGED.insert,
        "ON CONFLICT (managed_id) DO UPDATE SET",
        ", ".join(
            # Generations only go up, also where two write what they read at the same time.
            "generation = max(generation, excluded.generation)"
            if name == "generation"
            else f"{name} = excluded.{name}"
            for name in _CHANGED
        ),
    )
)
_STATED: Final = frozenset({"name", "community", "identifiers", "profile", "key_kind", "is_wanted"})
"""What the node alone says; a delivery that was read before it said so must not take it back."""

_DELIVERED: Final = tuple(
    name for name in _CHANGED if name not in _STATED and name not in ("created_at", "generation")
)
_PUT_DELIVERED: Final = " ".join(
    (
        "UPDATE managed SET generation = max(generation, ?),",
        ", ".join(f"{name} = ?" for name in _DELIVERED),
        "WHERE managed_id = ?",
    )
)
_BY_ID: Final = MANAGED.select + " WHERE managed_id = ?"
_OF_NODE: Final = MANAGED.select + " WHERE node_id = ? ORDER BY name LIMIT ?"
# The index is named, since the planner has no statistics to prefer it by.
_DUE: Final = (
    MANAGED.select + " INDEXED BY managed_due"
    " WHERE next_at IS NOT NULL AND next_at <= ? ORDER BY next_at, managed_id LIMIT ?"
)
_BY_CERTIFICATE: Final = MANAGED.select + " WHERE certificate_id = ? LIMIT 1"
_NAMED: Final = " ".join(
    (
        MANAGED.select,
        "WHERE name = ?1 OR EXISTS (SELECT 1 FROM json_each(identifiers)",
        "WHERE json_extract(json_each.value, '$[1]') = ?1) ORDER BY node_id, name LIMIT ?2",
    )
)
_OVERDUE: Final = (
    MANAGED.select + " INDEXED BY managed_overdue"
    " WHERE due_since IS NOT NULL AND due_since <= ? ORDER BY due_since, managed_id LIMIT ?"
)
_BEHIND: Final = " ".join(
    (
        "SELECT",
        ", ".join(f"m.{name}" for name in MANAGED.columns),
        "FROM managed m JOIN renewals r ON r.certificate_id = m.certificate_id",
        "WHERE m.next_at IS NOT NULL AND r.window_end < m.next_at LIMIT ?",
    )
)
_STRANDED: Final = " ".join(
    (
        "SELECT",
        ", ".join(f"m.{name}" for name in MANAGED.columns),
        "FROM managed m JOIN nodes n ON n.node_id = m.node_id",
        "WHERE m.next_at IS NULL AND m.is_wanted = 1 AND n.status <> 'revoked'",
        "AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_open",
        "WHERE d.managed_id = m.managed_id AND d.ended_at IS NULL) LIMIT ?",
    )
)


class Managed(Part):
    """The ports ManagedStore and ManagedLists."""

    async def find_managed(self, managed_id: str) -> ManagedRecord | None:
        """Return the record, or None."""
        return await self._database.read(lambda snapshot: read_managed(snapshot, managed_id))

    async def managed_of(self, node_id: str) -> Sequence[ManagedRecord]:
        """Return all of one node, by name."""
        return await self._database.read(
            lambda snapshot: MANAGED.read_all(snapshot.all(_OF_NODE, node_id, MAX_OF_NODE))
        )

    async def keep_managed(
        self,
        records: Sequence[ManagedRecord],
        events: Sequence[Event],
        *,
        before: Sequence[ManagedRecord] = (),
    ) -> None:
        """Keep them, new or changed, if *before* is still what there is; see the port."""

        def work(transaction: Transaction) -> None:
            for one in before:
                found = read_managed(transaction, one.managed_id)
                # Nobody who writes here changes the CSR.
                if found is None or replace(found, csr_der=one.csr_der) != one:
                    raise Conflict(f"certificate {one.managed_id} has changed meanwhile")
            transaction.change_each(_PUT, [MANAGED.values(record) for record in records])
            transaction.record(events)

        await self._database.write(work)

    async def due_managed(self, now: datetime, limit: int) -> Sequence[ManagedRecord]:
        """Return what is due, longest due first; costs what is due, not what exists."""
        return await self._database.read(
            lambda snapshot: MANAGED.read_all(snapshot.all(_DUE, time_of(now), limit))
        )

    async def managed_by_certificate(self, certificate_id: str) -> ManagedRecord | None:
        """Return where that certificate is, or None."""

        def work(snapshot: Snapshot) -> ManagedRecord | None:
            row = snapshot.first(_BY_CERTIFICATE, certificate_id)
            return None if row is None else MANAGED.read(row)

        return await self._database.read(work)

    async def managed_named(self, text: str, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are called *text* or are for that name or address."""
        return await self._database.scan(
            lambda snapshot: MANAGED.read_all(snapshot.all(_NAMED, text, limit))
        )

    async def managed_overdue(self, now: datetime, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are due or have been due without success, longest first."""

        def work(snapshot: Snapshot) -> list[ManagedRecord]:
            since = MANAGED.read_all(snapshot.all(_OVERDUE, time_of(now), limit))
            due = MANAGED.read_all(snapshot.all(_DUE, time_of(now), limit))
            known = {one.managed_id for one in since}
            return [*since, *(one for one in due if one.managed_id not in known)][:limit]

        return await self._database.scan(work)

    async def managed_stranded(self, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are wanted and that nothing would look at any more."""
        return await self._database.scan(
            lambda snapshot: MANAGED.read_all(snapshot.all(_STRANDED, limit))
        )

    async def managed_behind(self, limit: int) -> Sequence[ManagedRecord]:
        """Return those that would be looked at later than their CA's window ends."""
        return await self._database.scan(
            lambda snapshot: MANAGED.read_all(snapshot.all(_BEHIND, limit))
        )

    async def count_managed(self, now: datetime) -> Mapping[str, int]:
        """Return how many are ``due`` and how many are ``overdue``."""

        def work(snapshot: Snapshot) -> dict[str, int]:
            due = snapshot.first(
                "SELECT count(*) FROM managed INDEXED BY managed_due"
                " WHERE next_at IS NOT NULL AND next_at <= ?",
                time_of(now),
            )
            overdue = snapshot.first(
                "SELECT count(*) FROM managed INDEXED BY managed_overdue"
                " WHERE due_since IS NOT NULL"
            )
            return {"due": due[0] if due else 0, "overdue": overdue[0] if overdue else 0}

        return await self._database.scan(work)


def read_managed(snapshot: Snapshot, managed_id: str) -> ManagedRecord | None:
    """Return the record of that id, or None."""
    row = snapshot.first(_BY_ID, managed_id)
    return None if row is None else MANAGED.read(row)


def keep_csr(transaction: Transaction, managed: ManagedRecord) -> None:
    """Keep the newest CSR of *managed*, which `put_managed` leaves as it is."""
    transaction.change(
        "UPDATE managed SET csr_der = ? WHERE managed_id = ?", managed.csr_der, managed.managed_id
    )


def put_delivered(transaction: Transaction, record: ManagedRecord) -> None:
    """Keep what a delivery has made of *record*, and leave what its node has stated."""
    row = dict(zip(MANAGED.columns, MANAGED.values(record), strict=True))
    given = [row["generation"], *(row[name] for name in _DELIVERED), record.managed_id]
    if not transaction.change(_PUT_DELIVERED, *given):
        transaction.change(_PUT, *MANAGED.values(record))
