"""Accounts of ours at CAs that were replaced, and what is begun anew when one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Final

from broker.issuance.account_ports import AccountRecovery, FormerAccount, LossCause, Replaced
from broker.issuance.accounts import new_id
from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import (
    CertificateRecord,
    Job,
    JobKind,
    UpstreamAccountRecord,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.upstream_key_ports import KeyChangeStatus
from broker.storage.attached import delete_job, insert_work, upsert_jobs
from broker.storage.part import Part
from broker.storage.rows import CERTIFICATES, UPSTREAM_ACCOUNTS, WORK, RowCodec, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["FormerAccounts", "put_in_place"]

FORMER: Final = RowCodec("former_upstream_accounts", FormerAccount)
RECOVERIES: Final = RowCodec("account_recoveries", AccountRecovery)

_ACCOUNT: Final = UPSTREAM_ACCOUNTS.select + " WHERE upstream = ? AND community = ?"
_OPEN: Final = RECOVERIES.select + " WHERE upstream = ? AND community = ? AND ended_at IS NULL"
_FORMER: Final = (
    FORMER.select + " WHERE (?1 IS NULL OR upstream = ?1) AND (?2 IS NULL OR community = ?2)"
    " ORDER BY until DESC, account_url"
)
_LIVING_WORK: Final = (
    WORK.select + " WHERE upstream = ? AND community = ? AND status NOT IN ('spent', 'dead')"
    " ORDER BY created_at, work_id"
)
_LIVE: Final = (
    "FROM certificates WHERE upstream_account = ? AND not_after > ?"
    " AND is_released = 1 AND revoked_at IS NULL"
)
_KEY_IDS: Final = """
    SELECT key_id, max(at) AS last FROM (
        SELECT key_id, registered_at AS at FROM upstream_accounts
            WHERE upstream = ?1 AND community = ?2
        UNION ALL SELECT new_key_id, begun_at FROM upstream_key_changes
            WHERE upstream = ?1 AND community = ?2
        UNION ALL SELECT old_key_id, begun_at - 1 FROM upstream_key_changes
            WHERE upstream = ?1 AND community = ?2
        UNION ALL SELECT new_key_id, begun_at FROM account_recoveries
            WHERE upstream = ?1 AND community = ?2
        UNION ALL SELECT key_id, until - 1 FROM former_upstream_accounts
            WHERE upstream = ?1 AND community = ?2
    ) GROUP BY key_id ORDER BY last DESC, key_id DESC
"""


class FormerAccounts(Part):
    """The port FormerAccounts."""

    async def key_ids_of_account(self, upstream: str, community: str) -> Sequence[str]:
        """Return every id that any record of ours names for a key of this account, newest first."""

        def work(snapshot: Snapshot) -> Sequence[str]:
            return [str(row[0]) for row in snapshot.all(_KEY_IDS, upstream, community)]

        return await self._database.scan(work)

    async def begin_account_recovery(self, recovery: AccountRecovery, event: Event) -> None:
        """Keep durably which key a new account will have, in place of an earlier intention."""

        def work(transaction: Transaction) -> None:
            _end_recovery(transaction, recovery.upstream, recovery.community, recovery.begun_at)
            transaction.change(RECOVERIES.insert, *RECOVERIES.values(recovery))
            transaction.record((event,))

        await self._database.write(work)

    async def open_account_recovery(self, upstream: str, community: str) -> AccountRecovery | None:
        """Return the recovery that has begun and not ended, or None."""

        def work(snapshot: Snapshot) -> AccountRecovery | None:
            row = snapshot.first(_OPEN, upstream, community)
            return None if row is None else RECOVERIES.read(row)

        return await self._database.read(work)

    async def repin_upstream_account(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Have the same account be spoken for by another key of ours; raises Conflict."""

        def work(transaction: Transaction) -> None:
            changed = transaction.change(
                "UPDATE upstream_accounts SET key_id = ?, thumbprint = ?"
                " WHERE upstream = ? AND community = ? AND account_url = ?",
                account.key_id,
                account.thumbprint,
                account.upstream,
                account.community,
                account.account_url,
            )
            if not changed:
                raise _other_account(account, account.account_url)
            _end_doubts(transaction, account, event.at)
            transaction.record((event,))

        await self._database.write(work)

    async def replace_upstream_account(
        self, account: UpstreamAccountRecord, *, old_url: str, cause: LossCause, event: Event
    ) -> Replaced:
        """Put *account* in the place of the one at *old_url*; see the port."""

        def work(transaction: Transaction) -> Replaced:
            row = transaction.first(_ACCOUNT, account.upstream, account.community)
            if row is None or UPSTREAM_ACCOUNTS.read(row).account_url != old_url:
                raise _other_account(account, old_url)
            # A CA that was set up anew may give it the URL of the old one: it is another.
            replaced = put_in_place(transaction, account, cause=cause, at=event.at, is_other=True)
            _end_doubts(transaction, account, event.at)
            told = {
                **event.data,
                "orders_begun_anew": len(replaced.begun_anew),
                "orders_undecided": len(replaced.undecided),
            }
            transaction.record((replace(event, data=told),))
            return replaced

        return await self._database.write(work)

    async def former_upstream_accounts(
        self, upstream: str | None, community: str | None
    ) -> Sequence[FormerAccount]:
        """Return former accounts, newest first."""
        return await self._database.scan(
            lambda snapshot: FORMER.read_all(snapshot.all(_FORMER, upstream, community))
        )

    async def live_certificates_of(
        self, account_url: str, *, now: datetime, limit: int
    ) -> tuple[int, Sequence[CertificateRecord]]:
        """Return how many released certificates of this account are in force, and those that end
        last."""

        def work(snapshot: Snapshot) -> tuple[int, Sequence[CertificateRecord]]:
            asked = (account_url, time_of(now))
            (count,) = snapshot.all(f"SELECT count(*) {_LIVE}", *asked)[0]
            columns = ", ".join(CERTIFICATES.columns)
            rows = snapshot.all(
                f"SELECT {columns} {_LIVE} ORDER BY not_after DESC LIMIT ?", *asked, limit
            )
            return int(count), CERTIFICATES.read_all(rows)

        return await self._database.scan(work)


def put_in_place(
    transaction: Transaction,
    account: UpstreamAccountRecord,
    *,
    cause: LossCause,
    at: datetime,
    is_other: bool = False,
) -> Replaced:
    """Keep *account* as ours there; one that was there before and is another becomes a former one.

    With it goes what only it could have gone on with: see ``replace_upstream_account``.
    """
    row = transaction.first(_ACCOUNT, account.upstream, account.community)
    before = None if row is None else UPSTREAM_ACCOUNTS.read(row)
    transaction.change(
        "DELETE FROM upstream_accounts WHERE upstream = ? AND community = ?",
        account.upstream,
        account.community,
    )
    transaction.change(UPSTREAM_ACCOUNTS.insert, *UPSTREAM_ACCOUNTS.values(account))
    if before is None or (before.account_url == account.account_url and not is_other):
        return Replaced()
    kept = {one.name: getattr(before, one.name) for one in fields(before)}
    former = FormerAccount(**kept, until=at, cause=cause)
    transaction.change(FORMER.insert, *FORMER.values(former))
    # A CA is told only of certificates that the very account ordered (RFC 9773 §5).
    transaction.change(
        "UPDATE orders SET replaces_upstream = NULL WHERE replaces_upstream = ? AND community = ?"
        " AND status IN ('pending', 'ready', 'processing')",
        account.upstream,
        account.community,
    )
    return _begin_anew(transaction, before, at)


def _begin_anew(transaction: Transaction, before: UpstreamAccountRecord, at: datetime) -> Replaced:
    anew, undecided = [], []
    rows = transaction.all(_LIVING_WORK, before.upstream, before.community)
    for work in WORK.read_all(rows):
        if work.status in (WorkStatus.FINALIZING, WorkStatus.ACCEPTED):
            if work.taken_by is not None:
                undecided.append(work.taken_by)
            _keep_account(transaction, work, before)
            continue
        # The names that nobody has taken are asked for again by whoever comes for them.
        _retire_work(transaction, work)
        if work.taken_by is not None:
            insert_work(transaction, _anew(work, at))
            job = Job(kind=JobKind.FULFIL, subject=work.taken_by, due_at=at)
            upsert_jobs(transaction, (job,))
            anew.append(work.taken_by)
    return Replaced(tuple(anew), tuple(undecided))


def _keep_account(
    transaction: Transaction, work: WorkRecord, before: UpstreamAccountRecord
) -> None:
    """Keep under which account the work was finalized, where an earlier version did not."""
    transaction.change(
        "UPDATE work SET account_url = ? WHERE work_id = ? AND account_url IS NULL",
        before.account_url,
        work.work_id,
    )


def _retire_work(transaction: Transaction, work: WorkRecord) -> None:
    transaction.change(
        "UPDATE work SET status = ? WHERE work_id = ?", WorkStatus.DEAD.value, work.work_id
    )
    delete_job(transaction, JobKind.PREPARE, work.work_id)


def _anew(work: WorkRecord, at: datetime) -> WorkRecord:
    """Return the same wish, of which no CA has heard; it does not count as asked for by finalize,
    so that a CA's order that ends early is followed by another."""
    return replace(
        work,
        work_id=new_id(),
        status=WorkStatus.INTENDED,
        order_url=None,
        is_sent=False,
        account_url=None,
        replaces=None,
        created_at=at,
    )


def _end_doubts(transaction: Transaction, account: UpstreamAccountRecord, at: datetime) -> None:
    """End what was being done about the account's key: which one it has is known now."""
    transaction.change(
        "UPDATE upstream_key_changes SET status = ?, ended_at = ?"
        " WHERE upstream = ? AND community = ? AND status = ?",
        KeyChangeStatus.UNDONE.value,
        time_of(at),
        account.upstream,
        account.community,
        KeyChangeStatus.BEGUN.value,
    )
    _end_recovery(transaction, account.upstream, account.community, at)


def _end_recovery(transaction: Transaction, upstream: str, community: str, at: datetime) -> None:
    transaction.change(
        "UPDATE account_recoveries SET ended_at = ?"
        " WHERE upstream = ? AND community = ? AND ended_at IS NULL",
        time_of(at),
        upstream,
        community,
    )


def _other_account(account: UpstreamAccountRecord, url: str) -> Conflict:
    where = f"upstream '{account.upstream}' for community '{account.community}'"
    return Conflict(f"our account at {where} is not {url} any more")
