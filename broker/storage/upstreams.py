"""Our accounts at the upstreams, and which pairs of upstream and profile stand still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.account_ports import LossCause
from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import Suspension, UpstreamAccountRecord
from broker.storage.former_accounts import put_in_place
from broker.storage.part import Part
from broker.storage.rows import SUSPENSIONS, UPSTREAM_ACCOUNTS
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Upstreams"]

_BY_ID: Final = UPSTREAM_ACCOUNTS.select + " WHERE upstream = ? AND community = ?"
_LIST: Final = UPSTREAM_ACCOUNTS.select + " ORDER BY upstream, community"
_SUSPENSIONS: Final = SUSPENSIONS.select + " ORDER BY since, upstream, upstream_profile"


class Upstreams(Part):
    """The port UpstreamStore."""

    async def save_upstream_account(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Keep or replace the account of (upstream, community); another one than was there before
        has what was under way begun anew."""

        def work(transaction: Transaction) -> None:
            put_in_place(transaction, account, cause=LossCause.REGISTERED_ANEW, at=event.at)
            transaction.record((event,))

        await self._database.write(work)

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None:
        """Return our account, or None."""

        def work(snapshot: Snapshot) -> UpstreamAccountRecord | None:
            row = snapshot.first(_BY_ID, upstream, community)
            return None if row is None else UPSTREAM_ACCOUNTS.read(row)

        return await self._database.read(work)

    async def list_upstream_accounts(self) -> Sequence[UpstreamAccountRecord]:
        """Return all our accounts, by upstream and community."""
        return await self._database.scan(
            lambda snapshot: UPSTREAM_ACCOUNTS.read_all(snapshot.all(_LIST))
        )

    async def suspensions(self) -> Sequence[Suspension]:
        """Return the pairs that stand still, longest first."""
        return await self._database.read(
            lambda snapshot: SUSPENSIONS.read_all(snapshot.all(_SUSPENSIONS))
        )

    async def resume(self, upstream: str, upstream_profile: str | None, event: Event) -> None:
        """Lift a suspension; raises Conflict when there is none."""

        def work(transaction: Transaction) -> None:
            lifted = transaction.change(
                "DELETE FROM suspensions WHERE upstream = ? AND upstream_profile IS ?",
                upstream,
                upstream_profile,
            )
            if not lifted:
                profile = "its default profile" if upstream_profile is None else upstream_profile
                raise Conflict(f"upstream {upstream} is not suspended for {profile}")
            transaction.record((event,))

        await self._database.write(work)
