"""Accounts that were adopted, and the certificates that came with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.adoption_ports import AdoptedCertificate
from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import UpstreamKeyChange
from broker.storage.part import Part
from broker.storage.rows import ADOPTED_CERTIFICATES, UPSTREAM_KEY_CHANGES
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Adoptions"]

_LED_TO: Final = (
    UPSTREAM_KEY_CHANGES.select
    + " WHERE new_key_id = ? AND status = 'changed' ORDER BY begun_at DESC LIMIT 1"
)
_ON_RECORD: Final = (
    "SELECT key_id FROM upstream_accounts"
    " UNION SELECT key_id FROM former_upstream_accounts"
    " UNION SELECT old_key_id FROM upstream_key_changes WHERE status IN ('begun', 'changed')"
    " ORDER BY 1"
)
_ADOPTED: Final = ADOPTED_CERTIFICATES.select + " WHERE community = ? AND cert_id = ?"
_KEEP: Final = ADOPTED_CERTIFICATES.insert.replace("INSERT", "INSERT OR REPLACE", 1)


class Adoptions(Part):
    """The port AdoptionStore."""

    async def undo_adoption(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Forget an account that was adopted; raises Conflict when it is not the one on record."""

        def work(transaction: Transaction) -> None:
            forgotten = transaction.change(
                "DELETE FROM upstream_accounts"
                " WHERE upstream = ? AND community = ? AND account_url = ? AND key_id = ?",
                account.upstream,
                account.community,
                account.account_url,
                account.key_id,
            )
            if not forgotten:
                raise Conflict(f"account {account.account_url} is not ours by {account.key_id}")
            transaction.record((event,))

        await self._database.write(work)

    async def keys_on_record(self) -> Sequence[str]:
        """Return the ids of the keys that accounts have, had before they were replaced, or had
        before a change that happened or may yet have happened."""
        return await self._database.scan(
            lambda snapshot: [str(row[0]) for row in snapshot.all(_ON_RECORD)]
        )

    async def change_that_led_to(self, key_id: str) -> UpstreamKeyChange | None:
        """Return the change by which an account got this key, None where it was made with it."""

        def work(snapshot: Snapshot) -> UpstreamKeyChange | None:
            row = snapshot.first(_LED_TO, key_id)
            return None if row is None else UPSTREAM_KEY_CHANGES.read(row)

        return await self._database.read(work)

    async def keep_adopted_certificates(
        self, certificates: Sequence[AdoptedCertificate], event: Event
    ) -> None:
        """Keep what came with an account, in place of what was kept of the same certificates."""

        def work(transaction: Transaction) -> None:
            rows = [ADOPTED_CERTIFICATES.values(one) for one in certificates]
            transaction.change_each(_KEEP, rows)
            transaction.record((event,))

        await self._database.write(work)

    async def adopted_certificates(
        self, community: str, cert_id: str
    ) -> Sequence[AdoptedCertificate]:
        """Return those of this CertID, at whichever upstream."""

        def work(snapshot: Snapshot) -> Sequence[AdoptedCertificate]:
            return ADOPTED_CERTIFICATES.read_all(snapshot.all(_ADOPTED, community, cert_id))

        return await self._database.read(work)
