"""Certificates that came back, and who may have them revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import CertificateRecord, Job, JobKind
from broker.protocol.identifiers import Identifier
from broker.storage.attached import delete_job, upsert_jobs
from broker.storage.part import Part, page_start
from broker.storage.rows import AUTHORIZATIONS, CERTIFICATES, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Certificates"]

_BY_ID: Final = CERTIFICATES.select + " WHERE certificate_id = ?"
_BY_FINGERPRINT: Final = CERTIFICATES.select + " WHERE fingerprint = ?"
_PAGE: Final = (
    CERTIFICATES.select
    + " WHERE (received_at, certificate_id) < (?, ?) AND (?3 IS NULL OR community = ?3)"
    " ORDER BY received_at DESC, certificate_id DESC LIMIT ?4"
)
_PROVED: Final = (
    AUTHORIZATIONS.select
    + " WHERE account_id = ? AND expires_at > ? AND status = 'valid' AND proof = 'challenge'"
)


class Certificates(Part):
    """The port CertificateStore."""

    async def find_certificate(self, certificate_id: str) -> CertificateRecord | None:
        """Return the certificate, or None."""

        def work(snapshot: Snapshot) -> CertificateRecord | None:
            row = snapshot.first(_BY_ID, certificate_id)
            return None if row is None else CERTIFICATES.read(row)

        return await self._database.read(work)

    async def find_certificate_by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """Return the certificate whose DER has this SHA-256, or None."""

        def work(snapshot: Snapshot) -> CertificateRecord | None:
            row = snapshot.first(_BY_FINGERPRINT, fingerprint)
            return None if row is None else CERTIFICATES.read(row)

        return await self._database.read(work)

    async def request_revocation(
        self,
        certificate_id: str,
        *,
        reason: int,
        at: datetime,  # noqa: ARG002 - part of the port; here the event tells when
        event: Event,
        job: Job,
    ) -> None:
        """Note the wish and its reason, and queue *job*; asked again, the newer reason holds.

        Raises:
            Conflict: The certificate is unknown, or revoked already.
        """

        def work(transaction: Transaction) -> None:
            found = _certificate(transaction, certificate_id)
            if found.revoked_at is not None:
                raise Conflict(f"certificate {certificate_id} is revoked already")
            transaction.change(
                "UPDATE certificates SET revocation_reason = ? WHERE certificate_id = ?",
                reason,
                certificate_id,
            )
            upsert_jobs(transaction, (job,))
            transaction.record((event,))

        await self._database.write(work)

    async def mark_revoked(
        self, certificate_id: str, *, reason: int, at: datetime, event: Event
    ) -> None:
        """Mark revoked and delete the REVOKE job; a second call changes nothing.

        Raises:
            Conflict: The certificate is unknown.
        """

        def work(transaction: Transaction) -> None:
            found = _certificate(transaction, certificate_id)
            delete_job(transaction, JobKind.REVOKE, certificate_id)
            if found.revoked_at is not None:
                return
            transaction.change(
                "UPDATE certificates SET revoked_at = ?, revocation_reason = ?"
                " WHERE certificate_id = ?",
                time_of(at),
                reason,
                certificate_id,
            )
            # Its CA is asked no more when to renew it: at once, whatever it says.
            transaction.change(
                "UPDATE renewals SET due_at = NULL WHERE certificate_id = ?", certificate_id
            )
            transaction.record((event,))

        await self._database.write(work)

    async def proved_identifiers(
        self, account_id: str, at: datetime
    ) -> frozenset[tuple[Identifier, bool]]:
        """Return what the account has proved by a challenge and still holds at *at*."""

        def work(snapshot: Snapshot) -> frozenset[tuple[Identifier, bool]]:
            rows = snapshot.all(_PROVED, account_id, time_of(at))
            found = [AUTHORIZATIONS.read(row, challenges=()) for row in rows]
            return frozenset((one.identifier, one.is_wildcard) for one in found)

        return await self._database.scan(work)

    async def list_certificates(
        self, *, community: str | None, after: str | None, limit: int
    ) -> Sequence[CertificateRecord]:
        """Return certificates, newest first, withheld ones too; *after* is the last id before."""

        def work(snapshot: Snapshot) -> list[CertificateRecord]:
            start = page_start(
                snapshot,
                "SELECT received_at, certificate_id FROM certificates WHERE certificate_id = ?",
                after,
            )
            if start is None:
                return []
            return CERTIFICATES.read_all(snapshot.all(_PAGE, *start, community, limit))

        return await self._database.scan(work)

    async def is_fingerprint_known(self, fingerprint: str) -> bool:
        """Return whether a certificate with this fingerprint is kept, released or withheld."""

        def is_known(snapshot: Snapshot) -> bool:
            found = snapshot.first("SELECT 1 FROM certificates WHERE fingerprint = ?", fingerprint)
            return found is not None

        return await self._database.read(is_known)


def _certificate(transaction: Transaction, certificate_id: str) -> CertificateRecord:
    row = transaction.first(_BY_ID, certificate_id)
    if row is None:
        raise Conflict(f"certificate {certificate_id} is unknown")
    return CERTIFICATES.read(row)
