"""What happened and what is due: events, jobs, lists of orders, figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.events import Event
from broker.issuance.records import Job, JobKind, OrderRecord, WorkStatus
from broker.protocol.resources import OrderStatus
from broker.storage.attached import delete_job
from broker.storage.part import Part, page_start
from broker.storage.rows import EVENT_SELECT, JOBS, ORDERS, event_of, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Jobs", "Journal"]

MAX_EXPIRIES: Final = 10_000
"""Most ends of certificates that `soonest_expiries` returns, as the port promises."""

_JOB: Final = JOBS.select + " WHERE kind = ? AND subject = ?"
# Jobs of a kind that only a later version knows wait until that is back.
_KINDS: Final = ", ".join(f"'{kind}'" for kind in JobKind)
_DUE: Final = (
    f"{JOBS.select} WHERE due_at <= ? AND +kind IN ({_KINDS})"
    " ORDER BY due_at, kind, subject LIMIT ?"
)
_EVENTS: Final = EVENT_SELECT + " WHERE seq > ? ORDER BY seq LIMIT ?"
_EVENTS_OF_ORDER: Final = EVENT_SELECT + " WHERE seq > ? AND order_id = ? ORDER BY seq LIMIT ?"
_NEWEST: Final = " ORDER BY created_at DESC, order_id DESC LIMIT ?6"
_BELOW: Final = " WHERE (created_at, order_id) < (?1, ?2)"
_FILTERS: Final = (
    " AND (?3 IS NULL OR community = ?3) AND (?4 IS NULL OR account_id = ?4)"
    " AND (?5 IS NULL OR status = ?5)"
)
_PAGE: Final = ORDERS.select + _BELOW + _FILTERS + _NEWEST
# The planner picks an index before it knows the parameters, so what narrows most is said apart.
_PAGE_OF_ACCOUNT: Final = ORDERS.select + _BELOW + " AND account_id = ?4" + _FILTERS + _NEWEST
_PAGE_OF_STATUS: Final = ORDERS.select + _BELOW + " AND status = ?5" + _FILTERS + _NEWEST
# Named, since the planner, which has no statistics, would rather read all that are open.
_EXPIRED: Final = (
    ORDERS.select + " INDEXED BY orders_to_expire"
    " WHERE status IN ('pending', 'ready') AND expires_at <= ? ORDER BY expires_at LIMIT ?"
)


class Jobs(Part):
    """The port JobStore."""

    async def due_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        """Return jobs that are due, soonest first."""
        return await self._database.read(
            lambda snapshot: JOBS.read_all(snapshot.all(_DUE, time_of(now), limit))
        )

    async def find_job(self, kind: JobKind, subject: str) -> Job | None:
        """Return the job as it waits now, with the note of its last attempt, or None."""

        def work(snapshot: Snapshot) -> Job | None:
            row = snapshot.first(_JOB, kind.value, subject)
            return None if row is None else JOBS.read(row)

        return await self._database.read(work)

    async def postpone_job(self, job: Job, due_at: datetime, note: str) -> None:
        """Count an attempt and set the next one, without fsync; a row that is gone stays gone."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "UPDATE jobs SET attempts = attempts + 1, due_at = ?, note = ?"
                " WHERE kind = ? AND subject = ?",
                time_of(due_at),
                note,
                job.kind.value,
                job.subject,
            )

        await self._database.write(work, durable=False)

    async def finish_job(self, job: Job) -> None:
        """Delete the row, without fsync."""
        await self._database.write(
            lambda transaction: delete_job(transaction, job.kind, job.subject), durable=False
        )


class Journal(Part):
    """The port EventLog."""

    async def append(self, event: Event, *, durable: bool) -> None:
        """Append an event that belongs to no change."""
        await self._database.write(
            lambda transaction: transaction.record((event,)), durable=durable
        )

    async def read_events(
        self, *, after: int, limit: int, order_id: str | None
    ) -> Sequence[tuple[int, Event]]:
        """Return (sequence number, event) past *after*, oldest first."""

        def work(snapshot: Snapshot) -> list[tuple[int, Event]]:
            if order_id is None:
                rows = snapshot.all(_EVENTS, after, limit)
            else:
                rows = snapshot.all(_EVENTS_OF_ORDER, after, order_id, limit)
            return [event_of(row) for row in rows]

        return await self._database.scan(work)

    async def list_orders(
        self,
        *,
        community: str | None,
        account_id: str | None,
        status: OrderStatus | None,
        after: str | None,
        limit: int,
    ) -> Sequence[OrderRecord]:
        """Return orders, newest first; *after* is the last order id of the page before."""
        statement = _PAGE
        if account_id is not None:
            statement = _PAGE_OF_ACCOUNT
        elif status is not None:
            statement = _PAGE_OF_STATUS

        def work(snapshot: Snapshot) -> list[OrderRecord]:
            start = page_start(
                snapshot, "SELECT created_at, order_id FROM orders WHERE order_id = ?", after
            )
            if start is None:
                return []
            word = None if status is None else status.value
            rows = snapshot.all(statement, *start, community, account_id, word, limit)
            return ORDERS.read_all(rows)

        return await self._database.scan(work)

    async def expired_orders(self, now: datetime, limit: int) -> Sequence[OrderRecord]:
        """Return PENDING and READY orders whose time has passed, longest ago first."""
        return await self._database.scan(
            lambda snapshot: ORDERS.read_all(snapshot.all(_EXPIRED, time_of(now), limit))
        )

    async def outcome_counts(self) -> dict[str, int]:
        """Return counts for gauges; what does not occur counts 0."""

        def work(snapshot: Snapshot) -> dict[str, int]:
            counts = {f"orders_{one.value}": 0 for one in OrderStatus}
            counts |= {f"work_{one.value}": 0 for one in WorkStatus}
            counts |= {f"jobs_{one.value}": 0 for one in JobKind}
            rows = snapshot.all(
                "SELECT 'orders_' || status, count(*) FROM orders GROUP BY status"
                " UNION ALL SELECT 'work_' || status, count(*) FROM work GROUP BY status"
                " UNION ALL SELECT 'jobs_' || kind, count(*) FROM jobs GROUP BY kind"
            )
            return counts | dict(rows)

        return await self._database.scan(work)

    async def soonest_expiries(self, now: datetime) -> Sequence[datetime]:
        """Return ends of live released certificates, soonest first."""

        def work(snapshot: Snapshot) -> list[datetime]:
            rows = snapshot.all(
                "SELECT not_after FROM certificates"
                " WHERE is_released = 1 AND revoked_at IS NULL AND not_after > ?"
                " ORDER BY not_after LIMIT ?",
                time_of(now),
                MAX_EXPIRIES,
            )
            return [moment_of(end) for (end,) in rows]

        return await self._database.scan(work)
