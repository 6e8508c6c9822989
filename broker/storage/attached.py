"""What rides in the transaction of a change: events, jobs, upstream work.

Shared by every unit that changes an order or its work.  A helper here takes the transaction
first and raises Conflict where the row is not as its caller expected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.ports import Attached
from broker.issuance.records import Job, JobKind, WorkRecord
from broker.storage.buckets import take
from broker.storage.rows import JOBS, WORK
from broker.storage.transaction import Transaction

__all__ = [
    "IS_RECOVERED",
    "RECOVERED_KEY",
    "attach",
    "delete_job",
    "insert_work",
    "refuse",
    "upsert_jobs",
]

# A job that is queued already keeps its count, and comes as early as either wants it.
_UPSERT_JOB: Final = (
    JOBS.insert + " ON CONFLICT (kind, subject) DO UPDATE SET due_at = min(due_at, excluded.due_at)"
)

IS_RECOVERED: Final = "(SELECT 1 FROM recovered_work WHERE recovered_work.work_id = work.work_id)"
"""Rows where the work was finalized after a backup: only the key of its certificate may take it."""

RECOVERED_KEY: Final = (
    "(SELECT spki_sha256 FROM recovered_work WHERE recovered_work.work_id = work.work_id)"
)
"""The key of that certificate."""

_FREE_WORK: Final = " ".join(
    (
        "SELECT 1 FROM work WHERE work_key = ? AND community = ? AND taken_by IS NULL",
        "AND status IN ('intended', 'opened') AND NOT EXISTS",
        IS_RECOVERED,
        "LIMIT 1",
    )
)


def attach(
    transaction: Transaction, attached: Attached, *, without_work: str | None = None
) -> None:
    """Write *attached*: done jobs go first, so that one of the same name may begin anew.

    Its work is kept only if none like it is free already.  The PREPARE job of work that is not
    kept, here or by the caller (*without_work*), is dropped.
    """
    for kind, subject in attached.done:
        delete_job(transaction, kind, subject)
    if attached.taking is not None:
        take(transaction, attached.taking)
    dropped = {without_work}
    work = attached.work
    if work is not None:
        if transaction.first(_FREE_WORK, work.work_key, work.community) is None:
            insert_work(transaction, work)
        else:
            dropped.add(work.work_id)
    upsert_jobs(
        transaction,
        [
            job
            for job in attached.jobs
            if job.kind is not JobKind.PREPARE or job.subject not in dropped
        ],
    )
    transaction.record(attached.events)


def upsert_jobs(transaction: Transaction, jobs: Sequence[Job]) -> None:
    """Queue *jobs*; one that is queued already becomes due no later than asked here."""
    transaction.change_each(_UPSERT_JOB, [JOBS.values(job) for job in jobs])


def delete_job(transaction: Transaction, kind: str, subject: str) -> None:
    """Delete a job row, if it is there."""
    transaction.change("DELETE FROM jobs WHERE kind = ? AND subject = ?", str(kind), subject)


def insert_work(transaction: Transaction, work: WorkRecord) -> None:
    """Keep *work* as it is."""
    transaction.change(WORK.insert, *WORK.values(work))


def refuse(
    what: str, found: tuple[str] | None, expected: Collection[StrEnum] | StrEnum
) -> Conflict:
    """Return the Conflict for a row whose status *found* is not among *expected*."""
    if found is None:
        return Conflict(f"{what} is unknown")
    words = [expected] if isinstance(expected, StrEnum) else sorted(expected)
    return Conflict(f"{what} is {found[0]}, expected {' or '.join(words)}")
