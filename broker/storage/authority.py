"""The built-in CA's ledger: what it is, what it signed, what it revoked, which CRL comes next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import CaCertificateRecord, CaMember, CaRevocation, CaRole
from broker.storage.part import Part
from broker.storage.rows import CA_CERTIFICATES, CA_MEMBERS, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Authority", "AuthorityRegister"]

_BY_ORDER: Final = CA_CERTIFICATES.select + " WHERE ca = ? AND order_ref = ?"
_BY_SERIAL: Final = CA_CERTIFICATES.select + " WHERE ca = ? AND serial = ?"
_REVOKED: Final = (
    "SELECT serial, revoked_at, revocation_reason FROM ca_certificates"
    " WHERE ca = ? AND issuer_key_id = ? AND not_after > ? AND revoked_at IS NOT NULL"
    " ORDER BY revoked_at, serial"
)
_ROLE: Final = "SELECT role FROM ca_members WHERE ca = ? AND key_id = ?"
_IN_FORCE: Final = " WHERE ca = ? AND issuer_key_id = ? AND not_after > ? AND revoked_at IS NULL"
_COUNT: Final = " ".join(("SELECT count(*) FROM", CA_CERTIFICATES.table, _IN_FORCE))
_CLOSED: Final = frozenset({CaRole.RETIRING.value, CaRole.RETIRED.value})


class Authority(Part):
    """The port CaLedger."""

    async def record_ca_certificate(self, record: CaCertificateRecord) -> CaCertificateRecord:
        """Keep what was signed, or return what its order has got already.

        Raises:
            Conflict: Another order's certificate has this serial number, or the issuer has been
                retired.
        """

        def work(transaction: Transaction) -> CaCertificateRecord:
            row = transaction.first(_BY_ORDER, record.ca, record.order_ref)
            if row is not None:
                return CA_CERTIFICATES.read(row)
            member = transaction.first(_ROLE, record.ca, record.issuer_key_id)
            if member is not None and member[0] in _CLOSED:
                raise Conflict(f"issuer '{record.issuer_key_id}' of CA '{record.ca}' is retired")
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
    ) -> Sequence[CaRevocation]:
        """Return revocations by that issuer of what has not ended, oldest first."""

        def work(snapshot: Snapshot) -> list[CaRevocation]:
            return [
                CaRevocation(serial=serial, revoked_at=moment_of(at), revocation_reason=reason)
                for serial, at, reason in snapshot.all(_REVOKED, ca, issuer_key_id, time_of(now))
            ]

        return await self._database.scan(work)

    async def next_crl_number(self, ca: str, issuer_key_id: str, at: datetime) -> int:
        """Return the next CRL number: the seconds since 1970, or the last one and one."""
        seconds = int(at.timestamp())

        def work(transaction: Transaction) -> int:
            (row,) = transaction.all(
                "INSERT INTO ca_crl_numbers (ca, issuer_key_id, number) VALUES (?1, ?2, ?3)"
                " ON CONFLICT (ca, issuer_key_id) DO UPDATE SET number = max(number + 1, ?3)"
                " RETURNING number",
                ca,
                issuer_key_id,
                seconds,
            )
            return int(row[0])

        return await self._database.write(work)

    async def keep_crl(self, ca: str, issuer_key_id: str, crl_der: bytes) -> None:
        """Keep the list instead of the one before."""
        await self._database.write(
            lambda transaction: transaction.change(
                "INSERT INTO ca_revocation_lists (ca, issuer_key_id, crl_der) VALUES (?1, ?2, ?3)"
                " ON CONFLICT (ca, issuer_key_id) DO UPDATE SET crl_der = ?3",
                ca,
                issuer_key_id,
                crl_der,
            )
        )

    async def kept_crl(self, ca: str, issuer_key_id: str) -> bytes | None:
        """Return the list that was kept last, None where there is none."""
        statement = "SELECT crl_der FROM ca_revocation_lists WHERE ca = ? AND issuer_key_id = ?"

        def work(snapshot: Snapshot) -> bytes | None:
            row = snapshot.first(statement, ca, issuer_key_id)
            return None if row is None else bytes(row[0])

        return await self._database.scan(work)

    async def _find(self, statement: str, ca: str, name: str) -> CaCertificateRecord | None:
        def work(snapshot: Snapshot) -> CaCertificateRecord | None:
            row = snapshot.first(statement, ca, name)
            return None if row is None else CA_CERTIFICATES.read(row)

        return await self._database.read(work)


class AuthorityRegister(Part):
    """The port CaRegister."""

    async def ca_members(self, ca: str) -> Sequence[CaMember]:
        """Return root and issuers, in the order in which they came."""
        statement = CA_MEMBERS.select + " WHERE ca = ? ORDER BY position"
        return await self._database.read(
            lambda snapshot: CA_MEMBERS.read_all(snapshot.all(statement, ca))
        )

    async def replace_ca_members(
        self, ca: str, members: Sequence[CaMember], event: Event | None
    ) -> None:
        """Have the CA consist of *members* from now on."""

        def work(transaction: Transaction) -> None:
            transaction.change("DELETE FROM ca_members WHERE ca = ?", ca)
            rows = [CA_MEMBERS.values(member) for member in members]
            transaction.change_each(CA_MEMBERS.insert, rows)
            if event is not None:
                transaction.record((event,))

        await self._database.write(work)

    async def retire_ca_issuer(self, ca: str, key_id: str, *, at: datetime, event: Event) -> None:
        """Make a past issuer retiring; raises Conflict when something depends on it."""

        def work(transaction: Transaction) -> None:
            count = _in_force(transaction, ca, key_id, at)
            if count:
                raise Conflict(f"{count} certificates of issuer '{key_id}' are in force")
            changed = transaction.change(
                "UPDATE ca_members SET role = ?, since = ?"
                " WHERE ca = ? AND key_id = ? AND role = ?",
                CaRole.RETIRING.value,
                time_of(at),
                ca,
                key_id,
                CaRole.PAST.value,
            )
            if not changed:
                raise Conflict(f"'{key_id}' is no past issuer of CA '{ca}'")
            transaction.record((event,))

        await self._database.write(work)

    async def ca_dependents(
        self, ca: str, issuer_key_id: str, now: datetime, limit: int
    ) -> tuple[int, Sequence[CaCertificateRecord]]:
        """Return how many certificates of that issuer are in force, and those that end last."""
        statement = CA_CERTIFICATES.select + _IN_FORCE + " ORDER BY not_after DESC, serial LIMIT ?"

        def work(snapshot: Snapshot) -> tuple[int, Sequence[CaCertificateRecord]]:
            count = _in_force(snapshot, ca, issuer_key_id, now)
            rows = snapshot.all(statement, ca, issuer_key_id, time_of(now), limit)
            return count, CA_CERTIFICATES.read_all(rows)

        return await self._database.scan(work)

    async def last_ca_end(self, ca: str, issuer_key_id: str) -> datetime | None:
        """Return when the last certificate that it ever issued ends, None when it issued none."""

        def work(snapshot: Snapshot) -> datetime | None:
            statement = (
                "SELECT max(not_after) FROM ca_certificates WHERE ca = ? AND issuer_key_id = ?"
            )
            row = snapshot.first(statement, ca, issuer_key_id)
            return None if row is None or row[0] is None else moment_of(row[0])

        return await self._database.scan(work)


def _in_force(snapshot: Snapshot, ca: str, issuer_key_id: str, now: datetime) -> int:
    row = snapshot.first(_COUNT, ca, issuer_key_id, time_of(now))
    return 0 if row is None else int(row[0])
