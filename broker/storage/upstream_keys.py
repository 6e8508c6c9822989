"""The journal of changes of our own account keys at upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import (
    AccountKeyAge,
    KeyChangeStatus,
    KeyRotationFailure,
    UpstreamKeyChange,
)
from broker.storage.part import Part
from broker.storage.rows import (
    UPSTREAM_KEY_CHANGES,
    UPSTREAM_KEY_FAILURES,
    moment_of,
    time_of,
)
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["UpstreamKeyChanges"]

_OPEN: Final = UPSTREAM_KEY_CHANGES.select + " WHERE status = 'begun' ORDER BY begun_at, new_key_id"
_OPEN_ONE: Final = (
    UPSTREAM_KEY_CHANGES.select + " WHERE upstream = ? AND community = ? AND status = 'begun'"
)
_AGES: Final = (
    "SELECT upstream, community, key_id, coalesce((SELECT max(ended_at)"
    " FROM upstream_key_changes AS change WHERE change.new_key_id = account.key_id"
    " AND change.status = 'changed'), registered_at)"
    " FROM upstream_accounts AS account ORDER BY upstream, community"
)
_FAILURES: Final = UPSTREAM_KEY_FAILURES.select + " WHERE upstream = ? AND community = ?"


class UpstreamKeyChanges(Part):
    """The ports UpstreamKeyStore and KeyAgeStore."""

    async def begin_upstream_key_change(self, change: UpstreamKeyChange, event: Event) -> None:
        """Keep a change durably before anything is done for it; raises Conflict."""

        def work(transaction: Transaction) -> None:
            where = f"upstream {change.upstream} for community {change.community}"
            if transaction.first(_OPEN_ONE, change.upstream, change.community) is not None:
                raise Conflict(f"a change of the account key of {where} has not ended")
            held = transaction.first(
                "SELECT 1 FROM upstream_accounts"
                " WHERE upstream = ? AND community = ? AND key_id = ?",
                change.upstream,
                change.community,
                change.old_key_id,
            )
            if held is None:
                raise Conflict(f"the account of {where} has another key than {change.old_key_id}")
            transaction.change(UPSTREAM_KEY_CHANGES.insert, *UPSTREAM_KEY_CHANGES.values(change))
            transaction.record((event,))

        await self._database.write(work)

    async def end_upstream_key_change(
        self, change: UpstreamKeyChange, account: UpstreamAccountRecord | None, event: Event
    ) -> None:
        """Keep how a change ended, with the account as it is by then; raises Conflict."""

        def work(transaction: Transaction) -> None:
            ended = transaction.change(
                "UPDATE upstream_key_changes SET status = ?, ended_at = ?"
                " WHERE new_key_id = ? AND status = ?",
                change.status.value,
                None if change.ended_at is None else time_of(change.ended_at),
                change.new_key_id,
                KeyChangeStatus.BEGUN.value,
            )
            if not ended:
                raise Conflict(f"the change to account key {change.new_key_id} has ended already")
            if account is not None:
                transaction.change(
                    "UPDATE upstream_accounts SET key_id = ?, thumbprint = ?"
                    " WHERE upstream = ? AND community = ? AND account_url = ?",
                    account.key_id,
                    account.thumbprint,
                    account.upstream,
                    account.community,
                    account.account_url,
                )
            transaction.record((event,))

        await self._database.write(work)

    async def open_upstream_key_changes(self) -> Sequence[UpstreamKeyChange]:
        """Return every change that has begun and not ended, oldest first."""

        def work(snapshot: Snapshot) -> Sequence[UpstreamKeyChange]:
            return UPSTREAM_KEY_CHANGES.read_all(snapshot.all(_OPEN))

        return await self._database.read(work)

    async def account_key_ages(self) -> Sequence[AccountKeyAge]:
        """Return which key each account has, since when, and how its rotation failed last."""

        def work(snapshot: Snapshot) -> Sequence[AccountKeyAge]:
            ages = []
            for upstream, community, key_id, since in snapshot.all(_AGES):
                row = snapshot.first(_FAILURES, upstream, community)
                failure = None if row is None else UPSTREAM_KEY_FAILURES.read(row)
                ages.append(
                    AccountKeyAge(
                        upstream=upstream,
                        community=community,
                        key_id=key_id,
                        since=moment_of(since),
                        failure=failure if failure and failure.key_id == key_id else None,
                    )
                )
            return ages

        return await self._database.read(work)

    async def keep_key_rotation_failure(self, failure: KeyRotationFailure) -> None:
        """Keep why a key was not rotated, in place of what was kept of that account before."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "DELETE FROM upstream_key_failures WHERE upstream = ? AND community = ?",
                failure.upstream,
                failure.community,
            )
            transaction.change(UPSTREAM_KEY_FAILURES.insert, *UPSTREAM_KEY_FAILURES.values(failure))

        await self._database.write(work)
