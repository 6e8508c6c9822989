"""The part of the desk about backups, restored stores, and orders that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import Job, JobKind
from broker.operations.rooms import Desk
from broker.protocol.encoding import format_timestamp
from broker.protocol.resources import OrderStatus
from broker.web.operator import OperationError

__all__ = ["RecoveryDesk"]


class RecoveryDesk(Desk):
    """Commands about backups and restored stores."""

    async def backup_made(self, *, actor: Actor, backup_id: str, made_at: str, size: int) -> Any:
        """Keep that a backup was made; the file was written by the command itself."""
        event = Event(
            kind=EventKind.BACKUP_MADE,
            at=self._rooms.clock.now(),
            actor=actor,
            data={"backup_id": backup_id[:64], "made_at": made_at[:32], "bytes": size},
        )
        await self._store.append(event, durable=True)
        return {"backup_id": backup_id}

    async def reconcile(self, *, actor: Actor, accept_loss: Sequence[str] | None = None) -> Any:
        """Compare a restored store with its CAs; the losses of those named are accepted."""
        recovery = self._rooms.recovery
        if recovery is None or recovery.standstill.restoration is None:
            raise OperationError("nothing has to be reconciled: this broker was not restored")
        known = {entry.name for entry in self._rooms.upstreams.entries()}
        for name in accept_loss or ():
            if name not in known:
                raise OperationError(
                    f"no upstream is called '{name}'", f"there is {', '.join(sorted(known))}"
                )
        return await recovery.reconciliation.run(frozenset(accept_loss or ()), actor)

    def restoration_view(self) -> dict[str, object] | None:
        """Return what stands still and why, None when nothing does."""
        recovery = self._rooms.recovery
        restoration = recovery.standstill.restoration if recovery is not None else None
        if restoration is None:
            return None
        return {
            "backup_at": format_timestamp(restoration.backup_at),
            "restored_at": format_timestamp(restoration.restored_at),
            "reconciled": False,
        }

    async def order_retry(self, *, actor: Actor, order_id: str) -> Any:
        """Have an order that waits for its CA go on now, whatever pause it is in."""
        order = await self._store.load_order(order_id)
        if order is None:
            raise OperationError(f"there is no order '{order_id}'", "see penstock order list")
        job = await self._waiting(order_id, order.status)
        now = self._rooms.clock.now()
        event = Event(
            kind=EventKind.ORDER_HURRIED,
            at=now,
            actor=actor,
            community=order.community,
            account_id=order.account_id,
            order_id=order_id,
            upstream=order.upstream,
            data={"job": str(job.kind), "waited_for": (job.note or "")[:300]},
        )
        await self._store.append(event, durable=True)
        # Due now in its row too: where no broker runs, the next start goes on with it.
        await self._store.postpone_job(job, now, job.note or "hurried by an operator")
        if self._rooms.recovery is not None:
            self._rooms.recovery.dispatcher.kick(
                Job(kind=job.kind, subject=job.subject, due_at=now, attempts=job.attempts + 1)
            )
        return {"order": order_id, "job": str(job.kind), "attempts": job.attempts}

    async def _waiting(self, order_id: str, status: OrderStatus) -> Job:
        job = await self._store.find_job(JobKind.FULFIL, order_id)
        if job is None:
            work = await self._store.work_of_order(order_id)
            if work is not None:
                job = await self._store.find_job(JobKind.PREPARE, work.work_id)
        if job is None:
            raise OperationError(
                f"order '{order_id}' waits for nothing, it is {status}",
                "only an order on its way to a CA can be hurried",
            )
        return job
