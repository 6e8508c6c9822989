"""Which certificates of clients were to be renewed by now: looked at by time, told once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.events import Event
from broker.issuance.managed_ports import RenewalLook
from broker.issuance.node_ports import Unmanaged
from broker.issuance.ports import OrderClosing
from broker.issuance.records import CertificateRecord
from broker.storage.part import Part
from broker.storage.rows import CERTIFICATES, RowCodec, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Looks", "keep_look"]

LOOKS: Final = RowCodec("renewal_looks", RenewalLook)
_UNRENEWED_CODEC: Final = RowCodec("unrenewed", Unmanaged)

FIRST_LOOK: Final = 2
"""The first look is taken after this part of the lifetime: when it should be renewed is worked out
then, and no policy that is common wants it sooner."""

_DUE: Final = (
    LOOKS.select + " INDEXED BY renewal_looks_due WHERE look_at <= ?"
    " ORDER BY look_at, certificate_id LIMIT ?"
)
_PUT: Final = (
    LOOKS.insert + " ON CONFLICT (certificate_id) DO UPDATE SET look_at = excluded.look_at,"
    " should_by = excluded.should_by, told_at = excluded.told_at"
)
_HEIR: Final = (
    "SELECT 1 FROM certificates INDEXED BY certificates_same"
    " WHERE account_id = ? AND identifiers = ? AND received_at > ? AND is_released = 1"
    " AND revoked_at IS NULL LIMIT 1"
)
_UNRENEWED: Final = " ".join(
    (
        "SELECT",
        ", ".join(
            f"{'l' if name == 'should_by' else 'c'}.{name}" for name in _UNRENEWED_CODEC.columns
        ),
        "FROM renewal_looks l INDEXED BY renewal_looks_told JOIN certificates c",
        "USING (certificate_id) WHERE l.told_at IS NOT NULL AND l.should_by IS NOT NULL",
        "ORDER BY l.should_by LIMIT ?",
    )
)


class Looks(Part):
    """The port RenewalLooks."""

    async def due_looks(self, now: datetime, limit: int) -> Sequence[RenewalLook]:
        """Return what is to be looked at, longest due first; costs what is due."""
        return await self._database.scan(
            lambda snapshot: LOOKS.read_all(snapshot.all(_DUE, time_of(now), limit))
        )

    async def keep_looks(
        self,
        looks: Sequence[RenewalLook],
        *,
        dropped: Sequence[str],
        events: Sequence[Event],
    ) -> None:
        """Keep *looks* in place of what is there, and forget those that are *dropped*."""

        def work(transaction: Transaction) -> None:
            transaction.change_each(_PUT, [LOOKS.values(look) for look in looks])
            transaction.change_each(
                "DELETE FROM renewal_looks WHERE certificate_id = ?", [(one,) for one in dropped]
            )
            transaction.record(events)

        await self._database.write(work)

    async def hurry_look(self, certificate_id: str, at: datetime) -> None:
        """Look at *at*, if that is sooner than planned; without fsync."""
        await self._database.write(
            lambda transaction: transaction.change(
                "UPDATE renewal_looks SET look_at = ? WHERE certificate_id = ? AND look_at > ?",
                time_of(at),
                certificate_id,
                time_of(at),
            ),
            durable=False,
        )

    async def has_heir(self, certificate: CertificateRecord) -> bool:
        """Return whether its account has a younger released certificate for the same names."""

        def has_one(snapshot: Snapshot) -> bool:
            row = dict(zip(CERTIFICATES.columns, CERTIFICATES.values(certificate), strict=True))
            given = (row[name] for name in ("account_id", "identifiers", "received_at"))
            return snapshot.first(_HEIR, *given) is not None

        return await self._database.scan(has_one)

    async def unrenewed(self, limit: int) -> Sequence[Unmanaged]:
        """Return those that were told of, in the order in which they should have been renewed."""
        return await self._database.scan(
            lambda snapshot: _UNRENEWED_CODEC.read_all(snapshot.all(_UNRENEWED, limit))
        )

    async def count_unrenewed(self) -> int:
        """Return how many were told of."""

        def work(snapshot: Snapshot) -> int:
            row = snapshot.first(
                "SELECT count(*) FROM renewal_looks INDEXED BY renewal_looks_told"
                " WHERE told_at IS NOT NULL"
            )
            return 0 if row is None else int(row[0])

        return await self._database.scan(work)


def keep_look(transaction: Transaction, closing: OrderClosing) -> None:
    """Plan the first look at whether the certificate of *closing* was renewed."""
    certificate = closing.certificate
    if certificate is None or not certificate.is_released:
        return
    half = (certificate.not_after - certificate.not_before) / FIRST_LOOK
    look = RenewalLook(
        certificate_id=certificate.certificate_id, look_at=certificate.not_before + half
    )
    transaction.change(_PUT, *LOOKS.values(look))
