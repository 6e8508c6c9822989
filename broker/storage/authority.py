"""The built-in CA's ledger: what it signed, what it revoked, which CRL comes next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.records import CaCertificateRecord
from broker.storage.part import Part
from broker.storage.rows import CA_CERTIFICATES, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Authority"]

_BY_ORDER: Final = CA_CERTIFICATES.select + " WHERE ca = ? AND order_ref = ?"
_BY_SERIAL: Final = CA_CERTIFICATES.select + " WHERE ca = ? AND serial = ?"
_REVOKED: Final = (
    CA_CERTIFICATES.select
    + " WHERE ca = ? AND issuer_key_id = ? AND not_after > ? AND revoked_at IS NOT NULL"
    " ORDER BY revoked_at, serial"
)


class Authority(Part):
    """The port CaStore."""

    async def record_ca_certificate(self, record: CaCertificateRecord) -> CaCertificateRecord:
        """Keep what was signed, or return what its order has got already.

        Raises:
            Conflict: Another order's certificate has this serial number.
        """

        def work(transaction: Transaction) -> CaCertificateRecord:
            row = transaction.first(_BY_ORDER, record.ca, record.order_ref)
            if row is not None:
                return CA_CERTIFICATES.read(row)
            transaction.change(CA_CERTIFICATES.insert, *CA_CERTIFICATES.values(record))
            return record

        return await self._database.write(work)

    async def find_ca_certificate(self, ca: str, order_ref: str) -> CaCertificateRecord | None:
        """Return the certificate of that order, or None."""
        return await self._find(_BY_ORDER, ca, order_ref)

    async def find_ca_certificate_by_serial(
        self, ca: str, serial: str
    ) -> CaCertificateRecord | None:
        """Return the certificate with that serial number, or None."""
        return await self._find(_BY_SERIAL, ca, serial)

    async def revoke_ca_certificate(
        self, ca: str, serial: str, *, at: datetime, reason: int
    ) -> bool:
        """Mark revoked; False when it was revoked already or is not ours."""

        def is_revoked_now(transaction: Transaction) -> bool:
            changed = transaction.change(
                "UPDATE ca_certificates SET revoked_at = ?, revocation_reason = ?"
                " WHERE ca = ? AND serial = ? AND revoked_at IS NULL",
                time_of(at),
                reason,
                ca,
                serial,
            )
            return changed == 1

        return await self._database.write(is_revoked_now)

    async def revoked_ca_certificates(
        self, ca: str, issuer_key_id: str, now: datetime
    ) -> Sequence[CaCertificateRecord]:
        """Return revoked certificates of that issuer that have not ended, oldest first."""
        return await self._database.scan(
            lambda snapshot: CA_CERTIFICATES.read_all(
                snapshot.all(_REVOKED, ca, issuer_key_id, time_of(now))
            )
        )

    async def next_crl_number(self, ca: str, issuer_key_id: str) -> int:
        """Return the next CRL number, from 1, durably."""

        def work(transaction: Transaction) -> int:
            (row,) = transaction.all(
                "INSERT INTO ca_crl_numbers (ca, issuer_key_id, number) VALUES (?, ?, 1)"
                " ON CONFLICT (ca, issuer_key_id) DO UPDATE SET number = number + 1"
                " RETURNING number",
                ca,
                issuer_key_id,
            )
            return int(row[0])

        return await self._database.write(work)

    async def _find(self, statement: str, ca: str, name: str) -> CaCertificateRecord | None:
        def work(snapshot: Snapshot) -> CaCertificateRecord | None:
            row = snapshot.first(statement, ca, name)
            return None if row is None else CA_CERTIFICATES.read(row)

        return await self._database.read(work)
