"""What a restored store remembers of it, and the upstream orders that were found again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import RestorationRecord, WorkRecord, WorkStatus
from broker.storage.part import Part
from broker.storage.rows import RESTORATIONS, WORK, json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Restorations"]

_OPEN: Final = RESTORATIONS.select + " WHERE reconciled_at IS NULL ORDER BY restored_at LIMIT 1"
_RECOVERED: Final = "(SELECT 1 FROM recovered_work WHERE recovered_work.work_id = work.work_id)"
_LIVING: Final = (
    f"{WORK.select} WHERE status NOT IN ('spent', 'dead')"
    f" AND NOT EXISTS {_RECOVERED} ORDER BY created_at, work_id"
)


class Restorations(Part):
    """The port RestorationStore."""

    async def open_restoration(self) -> RestorationRecord | None:
        """Return the restoration that has not been reconciled, or None."""

        def work(snapshot: Snapshot) -> RestorationRecord | None:
            row = snapshot.first(_OPEN)
            return None if row is None else RESTORATIONS.read(row)

        return await self._database.read(work)

    async def begin_restoration(
        self,
        record: RestorationRecord,
        *,
        crl_numbers: int,
        event: Event,
    ) -> None:
        """Mark the store as restored, and pass over what may have been given away since.

        Every issuer of a built-in CA leaves out *crl_numbers* CRL numbers.  Upstream orders that
        were intended count as asked for.
        """

        def work(transaction: Transaction) -> None:
            transaction.change(RESTORATIONS.insert, *RESTORATIONS.values(record))
            known = transaction.all(
                "SELECT ca, issuer_key_id FROM ca_crl_numbers"
                " UNION SELECT ca, issuer_key_id FROM ca_certificates"
                " UNION SELECT ca, key_id FROM ca_members WHERE key_id IS NOT NULL"
            )
            transaction.change_each(
                "INSERT INTO ca_crl_numbers (ca, issuer_key_id, number) VALUES (?, ?, ?)"
                " ON CONFLICT (ca, issuer_key_id) DO UPDATE SET number = number + excluded.number",
                [(ca, key_id, crl_numbers) for ca, key_id in known],
            )
            transaction.change("UPDATE work SET is_sent = 1 WHERE status = 'intended'")
            # Lists that were signed since may name more.
            transaction.change("DELETE FROM ca_revocation_lists")
            transaction.record((event,))

        await self._database.write(work)

    async def save_report(self, restoration_id: str, report: dict[str, object]) -> None:
        """Keep what an attempt has found."""
        await self._database.write(
            lambda transaction: transaction.change(
                "UPDATE restorations SET report = ? WHERE restoration_id = ?",
                json_of(report),
                restoration_id,
            )
        )

    async def end_restoration(self, restoration_id: str, at: datetime, event: Event) -> None:
        """Note that the store has been reconciled.

        Raises:
            Conflict: It has been already.
        """

        def work(transaction: Transaction) -> None:
            changed = transaction.change(
                "UPDATE restorations SET reconciled_at = ?"
                " WHERE restoration_id = ? AND reconciled_at IS NULL",
                time_of(at),
                restoration_id,
            )
            if not changed:
                raise Conflict(f"restoration {restoration_id} is over already")
            transaction.record((event,))

        await self._database.write(work)

    async def living_work(self) -> Sequence[WorkRecord]:
        """Return every upstream order that is neither spent nor dead nor recovered."""
        return await self._database.scan(lambda snapshot: WORK.read_all(snapshot.all(_LIVING)))

    async def recover_work(
        self, work_id: str, *, order_url: str, spki_sha256: str, fingerprint: str, event: Event
    ) -> None:
        """Note that the order at *order_url* gave a certificate for another key than we know.

        Raises:
            Conflict: The record is taken, spent or dead.
        """

        def work(transaction: Transaction) -> None:
            _point(transaction, work_id, order_url, is_taken=False)
            transaction.change(
                "INSERT INTO recovered_work (work_id, spki_sha256, fingerprint) VALUES (?, ?, ?)",
                work_id,
                spki_sha256,
                fingerprint,
            )
            transaction.record((event,))

        await self._database.write(work)

    async def repoint_work(self, work_id: str, *, order_url: str, event: Event) -> None:
        """Give the taken record the order at *order_url*, which was made after the backup.

        Raises:
            Conflict: The record is not taken any more, spent or dead.
        """

        def work(transaction: Transaction) -> None:
            _point(transaction, work_id, order_url, is_taken=True)
            transaction.record((event,))

        await self._database.write(work)


def _point(transaction: Transaction, work_id: str, order_url: str, *, is_taken: bool) -> None:
    changed = transaction.change(
        "UPDATE work SET order_url = ?, status = ?, is_sent = 0 WHERE work_id = ?"
        " AND status NOT IN ('spent', 'dead') AND (taken_by IS NOT NULL) = ?",
        order_url,
        WorkStatus.OPENED.value,
        work_id,
        int(is_taken),
    )
    if not changed:
        raise Conflict(f"work {work_id} is not as it was read")
