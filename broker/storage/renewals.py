"""Renewal windows, retirements and other chains: what is kept beside a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from broker.issuance.errors import AlreadyReplaced
from broker.issuance.events import Event
from broker.issuance.ports import OrderClosing
from broker.issuance.records import CertificateRecord, Job
from broker.issuance.renewal_ports import (
    RenewalRecord,
    RenewalView,
    RetirementRecord,
    RetirementStatus,
)
from broker.storage.attached import refuse, upsert_jobs
from broker.storage.part import Part
from broker.storage.renewal_looks import keep_look
from broker.storage.rows import CERTIFICATES, RowCodec, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Chains", "Renewals", "Retirements", "keep_renewal", "verify_free"]

RENEWALS: Final = RowCodec("renewals", RenewalRecord)
RETIREMENTS: Final = RowCodec("retirements", RetirementRecord)
_VIEWS: Final = RowCodec("renewal_views", RenewalView)

_VIEW_COLUMNS: Final = {
    "profile": "o.profile",
    "window_start": "r.window_start",
    "window_end": "r.window_end",
    "explanation_url": "r.explanation_url",
    "due_at": "r.due_at",
    "retire_at": "t.retire_at",
    "pulled_at": "p.pulled_at",
    "pulled_url": "p.pulled_url",
    "renew_at": "json_extract(o.decision, '$.renew_at')",
}
"""Columns of a `RenewalView` that lie elsewhere than with the certificate."""

_VIEW: Final = " ".join(
    (
        "SELECT",
        ", ".join(_VIEW_COLUMNS.get(name, f"c.{name}") for name in _VIEWS.columns),
        "FROM certificates c JOIN orders o USING (order_id)",
        "LEFT JOIN renewals r ON r.certificate_id = c.certificate_id",
        "LEFT JOIN retirements t ON t.certificate_id = c.certificate_id",
        "LEFT JOIN pulled_renewals p ON p.certificate_id = c.certificate_id",
        "WHERE c.cert_id = ? AND c.community = ? AND c.is_released = 1 LIMIT 4",
    )
)
_CERTIFICATE: Final = CERTIFICATES.select + " WHERE certificate_id = ?"
_BY_ID: Final = RENEWALS.select + " WHERE certificate_id = ?"
# The index is named, since the planner has no statistics to prefer it by.
_DUE: Final = (
    RENEWALS.select
    + " INDEXED BY renewals_due WHERE due_at IS NOT NULL AND due_at <= ? ORDER BY due_at LIMIT ?"
)
_KEEP: Final = (
    "UPDATE renewals SET due_at = ?, failures = ?, window_start = ?, window_end = ?,"
    " explanation_url = ?, asked_at = ? WHERE certificate_id = ? AND due_at IS NOT NULL"
)
_REPLACED: Final = (
    "UPDATE renewals SET due_at = NULL WHERE certificate_id IN"
    " (SELECT c.certificate_id FROM orders o JOIN certificates c ON c.cert_id = o.replaces"
    " WHERE c.account_id = ? AND o.order_id = ?)"
)
_RETIREMENT: Final = RETIREMENTS.select + " WHERE certificate_id = ?"
_AWAITING: Final = (
    RETIREMENTS.select + " INDEXED BY retirements_open"
    " WHERE account_id = ? AND community = ? AND received_at < ?"
    " AND status IN ('waiting', 'overdue') ORDER BY received_at LIMIT 1000"
)
_UNRETIRED: Final = (
    RETIREMENTS.select + " WHERE status <> 'retired' ORDER BY retire_at, certificate_id LIMIT ?"
)
_OF_STATUS: Final = (
    RETIREMENTS.select + " WHERE status = ? ORDER BY retire_at, certificate_id LIMIT ?"
)


class Renewals(Part):
    """The port RenewalStore."""

    async def renewal_views(self, community: str, cert_id: str) -> Sequence[RenewalView]:
        """Return the released certificates of the community with this CertID; see the port."""
        return await self._database.read(
            lambda snapshot: _VIEWS.read_all(snapshot.all(_VIEW, cert_id, community))
        )

    async def find_renewal(self, certificate_id: str) -> RenewalRecord | None:
        """Return what the CA last said, or None where it is not asked at all."""

        def work(snapshot: Snapshot) -> RenewalRecord | None:
            row = snapshot.first(_BY_ID, certificate_id)
            return None if row is None else RENEWALS.read(row)

        return await self._database.read(work)

    async def due_renewals(self, now: datetime, limit: int) -> Sequence[RenewalRecord]:
        """Return what the CAs are to be asked about, longest due first."""
        return await self._database.scan(
            lambda snapshot: RENEWALS.read_all(snapshot.all(_DUE, time_of(now), limit))
        )

    async def keep_renewals(
        self, records: Sequence[RenewalRecord], events: Sequence[Event]
    ) -> None:
        """Keep what came of asking, without fsync; see the port."""

        def work(transaction: Transaction) -> None:
            transaction.change_each(_KEEP, [_kept(record) for record in records])
            transaction.record(events)

        await self._database.write(work, durable=False)

    async def successor_of(self, account_id: str, cert_id: str) -> str | None:
        """Return the id of the account's order that replaces this certificate, or None."""

        def work(snapshot: Snapshot) -> str | None:
            row = snapshot.first(
                "SELECT order_id FROM orders INDEXED BY orders_replacing"
                " WHERE replaces = ? AND account_id = ? AND status <> 'invalid'",
                cert_id,
                account_id,
            )
            return None if row is None else str(row[0])

        return await self._database.read(work)


class Retirements(Part):
    """The port RetirementStore."""

    async def find_retirement(self, certificate_id: str) -> RetirementRecord | None:
        """Return the retirement of a certificate, or None where it has none."""

        def work(snapshot: Snapshot) -> RetirementRecord | None:
            row = snapshot.first(_RETIREMENT, certificate_id)
            return None if row is None else RETIREMENTS.read(row)

        return await self._database.read(work)

    async def awaiting_successor(
        self, account_id: str, community: str, before: datetime
    ) -> Sequence[RetirementRecord]:
        """Return the account's WAITING and OVERDUE ones that were received before *before*."""
        return await self._database.read(
            lambda snapshot: RETIREMENTS.read_all(
                snapshot.all(_AWAITING, account_id, community, time_of(before))
            )
        )

    async def change_retirement(
        self,
        record: RetirementRecord,
        *,
        expected: Sequence[RetirementStatus],
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep *record* in place of what is there; see the port."""

        def work(transaction: Transaction) -> None:
            what = f"retirement of certificate {record.certificate_id}"
            row = transaction.first(_RETIREMENT, record.certificate_id)
            if row is None:
                raise refuse(what, None, expected)
            found = RETIREMENTS.read(row)
            if found.status not in expected:
                raise refuse(what, (found.status.value,), expected)
            transaction.change(
                "UPDATE retirements SET status = ?, replaced_by = ?, replaced_at = ?"
                " WHERE certificate_id = ?",
                record.status.value,
                record.replaced_by,
                None if record.replaced_at is None else time_of(record.replaced_at),
                record.certificate_id,
            )
            upsert_jobs(transaction, jobs)
            transaction.record(events)

        await self._database.write(work)

    async def list_retirements(
        self, status: RetirementStatus | None, limit: int
    ) -> Sequence[RetirementRecord]:
        """Return them, the soonest retirement date first; None: all that are not RETIRED."""

        def work(snapshot: Snapshot) -> list[RetirementRecord]:
            if status is None:
                return RETIREMENTS.read_all(snapshot.all(_UNRETIRED, limit))
            return RETIREMENTS.read_all(snapshot.all(_OF_STATUS, status.value, limit))

        return await self._database.scan(work)

    async def retirement_dates(self, certificate_ids: Sequence[str]) -> Mapping[str, datetime]:
        """Return the retirement date of each of these certificates that has one."""

        def work(snapshot: Snapshot) -> dict[str, datetime]:
            rows = (
                snapshot.first(
                    "SELECT certificate_id, retire_at FROM retirements WHERE certificate_id = ?",
                    certificate_id,
                )
                for certificate_id in certificate_ids
            )
            return {row[0]: moment_of(row[1]) for row in rows if row is not None}

        return await self._database.scan(work)

    async def count_retirements(self) -> dict[str, int]:
        """Return how many there are, by status; what does not occur counts 0."""

        def work(snapshot: Snapshot) -> dict[str, int]:
            rows = snapshot.all(
                "SELECT status, count(*) FROM retirements INDEXED BY retirements_by_status"
                " GROUP BY status"
            )
            return {one.value: 0 for one in RetirementStatus} | dict(rows)

        return await self._database.scan(work)


class Chains(Part):
    """The port ChainStore."""

    async def find_with_chains(
        self, certificate_id: str
    ) -> tuple[CertificateRecord, Sequence[bytes]] | None:
        """Return the certificate with every other chain of it, or None; see the port."""

        def work(snapshot: Snapshot) -> tuple[CertificateRecord, Sequence[bytes]] | None:
            row = snapshot.first(_CERTIFICATE, certificate_id)
            if row is None:
                return None
            rows = snapshot.all(
                "SELECT chain_pem FROM alternate_chains WHERE certificate_id = ? ORDER BY position",
                certificate_id,
            )
            return CERTIFICATES.read(row), [chain_pem for (chain_pem,) in rows]

        return await self._database.read(work)


def keep_renewal(transaction: Transaction, closing: OrderClosing) -> None:
    """Keep what belongs to the end of an order beside its certificate.

    A certificate that the order replaces has a successor now: its CA is asked about it no more
    (RFC 9773 §4.3).
    """
    certificate = closing.certificate
    if certificate is None:
        return
    keep_look(transaction, closing)
    transaction.change_each(
        "INSERT INTO alternate_chains (certificate_id, position, chain_pem) VALUES (?, ?, ?)",
        [
            (certificate.certificate_id, number, pem)
            for number, pem in enumerate(closing.alternates, start=1)
        ],
    )
    if closing.renewal is not None:
        transaction.change(RENEWALS.insert, *RENEWALS.values(closing.renewal))
    if closing.retirement is not None:
        transaction.change(RETIREMENTS.insert, *RETIREMENTS.values(closing.retirement))
    if certificate.is_released:
        transaction.change(_REPLACED, certificate.account_id, certificate.order_id)


def _kept(record: RenewalRecord) -> tuple[Any, ...]:
    row = dict(zip(RENEWALS.columns, RENEWALS.values(record), strict=True))
    names = ("due_at", "failures", "window_start", "window_end", "explanation_url", "asked_at")
    return tuple(row[name] for name in (*names, "certificate_id"))


def verify_free(transaction: Transaction, account_id: str, replaces: str | None) -> None:
    """See that no living order of the account replaces this certificate already.

    Raises:
        AlreadyReplaced: One does (RFC 9773 §5).
    """
    if replaces is None:
        return
    found = transaction.first(
        "SELECT order_id FROM orders INDEXED BY orders_replacing"
        " WHERE replaces = ? AND account_id = ? AND status <> 'invalid'",
        replaces,
        account_id,
    )
    if found is not None:
        raise AlreadyReplaced(f"order {found[0]} replaces certificate {replaces} already")
