"""Deliveries as a whole: what nodes report, and the job that carries each one on.

Every step is one transaction, and the job runs the next from what is kept, so that a process may
die anywhere.  The stages are told in ``delivery_stages``, the steps in the modules beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from broker.issuance.asking import Asking
from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, deliver_job, delivery_event
from broker.issuance.delivery_stages import AT_NODE, DeliveryEvent
from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.managed import Stating
from broker.issuance.node_ports import (
    DeliveryStage,
    DeliveryView,
    NodeRecord,
    NodeStatus,
    Receipt,
    Statement,
)
from broker.issuance.ordering import Ordering, order_id_of
from broker.issuance.pushing import Pushing
from broker.issuance.receipts import Receipts
from broker.issuance.records import CertificateRecord, Job
from broker.issuance.releasing import JUDGED_AGAIN, Releasing
from broker.issuance.renewal_times import RenewalTimes, late_at
from broker.issuance.sweeping import Sweep

__all__ = ["Deliveries"]

NOT_SEEN_AFTER: Final = timedelta(minutes=15)
"""It is told when a certificate was not seen so long after it was pushed: a reload takes seconds,
and a node that is away for a moment is back by then."""

NOT_SEEN_SHARE: Final = 20
"""For what lives shortly it is told after this part of the lifetime."""

SHORTEST_LIMIT: Final = timedelta(seconds=30)
"""It is never told sooner than this."""

LONGEST_WAIT: Final = timedelta(days=1)
"""A delivery that waits is looked at this often at the least."""

CATCH_UP_EVERY: Final = timedelta(hours=6)
"""How often all windows are compared with what is planned: it reads every certificate at nodes."""

ORDER_EVENTS: Final = frozenset(
    {
        EventKind.ORDER_READY,
        EventKind.ORDER_REFUSED,
        EventKind.ORDER_EXPIRED,
        EventKind.ORDER_CANCELLED,
        EventKind.CHALLENGE_INVALID,
        EventKind.CERTIFICATE_ISSUED,
        EventKind.CERTIFICATE_WITHHELD,
    }
)
"""After these a delivery goes on."""

CERTIFICATE_EVENTS: Final = frozenset(
    {
        EventKind.RENEWAL_MOVED_EARLIER,
        EventKind.CERTIFICATE_REVOCATION_REQUESTED,
        EventKind.CERTIFICATE_REVOKED,
    }
)
"""After these a certificate may have to be renewed earlier."""

log = structlog.get_logger(__name__)


class Deliveries:
    """Implements ``node_ports.NodeReports``, and handles DELIVER jobs."""

    def __init__(self, rooms: Workrooms) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self.times = RenewalTimes(
            certificates=rooms.store,
            renewals=rooms.store,
            policies=rooms.policies,
            clock=rooms.clock,
            windows=rooms.windows,
        )
        self._ends = DeliveryEnds(rooms, self.times)
        self.asking = Asking(rooms, self._ends)
        self.releasing = Releasing(rooms, self._ends)
        self.pushing = Pushing(rooms, self.releasing)
        self._ordering = Ordering(rooms, self._ends)
        self._receipts = Receipts(rooms, self.asking, self.releasing, self._ends)
        self.sweep = Sweep(rooms, self.asking, self._ends, self.times)
        self._stating = Stating(
            rooms,
            asking=self.asking,
            releasing=self.releasing,
            receipts=self._receipts,
            ends=self._ends,
            times=self.times,
            sweep=self.sweep,
        )
        self._awaited: dict[str, str] = {}
        """Order → the delivery that waits for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._caught_up_at: datetime | None = None

    # ------------------------------------------------------------------------ what nodes report

    async def stated(self, node: NodeRecord, statements: Sequence[Statement]) -> None:
        """See the port."""
        await self._stating.stated(node, statements)

    async def adopted(self, node: NodeRecord, name: str, chain_pem: bytes) -> None:
        """See the port."""
        await self._stating.adopted(node, name, chain_pem)

    async def offered(self, node: NodeRecord, delivery_id: str, csr_der: bytes) -> None:
        """See the port."""
        await self.asking.offered(node, delivery_id, csr_der)

    async def receipted(self, node: NodeRecord, receipts: Sequence[Receipt]) -> None:
        """See the port."""
        await self._receipts.receipted(node, receipts)

    async def unable(
        self, node: NodeRecord, delivery_id: str, reason: str, *, is_final: bool
    ) -> None:
        """See the port."""
        await self.asking.unable(node, delivery_id, reason, is_final=is_final)

    async def take_turn(self) -> None:
        """Begin what is due; now and then look for what was told while nobody listened."""
        now = self._rooms.clock.now()
        if self._caught_up_at is None or self._caught_up_at + CATCH_UP_EVERY <= now:
            self._caught_up_at = now
            await self.sweep.catch_up()
        await self.sweep.run()

    # ---------------------------------------------------------------------------------- the job

    async def advance(self, job: Job) -> None:
        """Carry a delivery on as far as it goes: the handler of DELIVER jobs."""
        while True:
            if self.pushing.has(job.subject):
                raise Postponed(self._rooms.clock.now() + JUDGED_AGAIN, "it is pushed with others")
            view = await self._store.find_delivery(job.subject)
            if view is None:
                return
            if view.delivery.stage.is_end:
                await self._tell_end(view)
                return
            await self._step(view)

    async def _step(self, view: DeliveryView) -> None:
        stage = view.delivery.stage
        if view.node.status is NodeStatus.REVOKED:
            await self._ends.withdraw(view, f"node '{view.node.name}' was revoked")
        elif stage is DeliveryStage.ORDERED:
            order_id = order_id_of(view.delivery.delivery_id)
            # Before it is looked at, so that what is told meanwhile is not passed over.
            self._awaited[order_id] = view.delivery.delivery_id
            await self._ordering.go_on(view)
            self._awaited.pop(order_id, None)
        elif stage is DeliveryStage.ISSUED:
            await self.releasing.go_on(view)
        else:
            await self._wait(view)

    async def _tell_end(self, view: DeliveryView) -> None:
        self._awaited.pop(order_id_of(view.delivery.delivery_id), None)
        if view.delivery.stage is DeliveryStage.SEEN and self._rooms.retirements is not None:
            # Nobody fetches it: a node's is in use once it was seen.
            await self._rooms.retirements.note_use(await self.releasing.certificate(view))
        is_busy = self.pushing.is_busy
        freed = await self._rooms.gate.ended(view, is_asked=not is_busy)
        if is_busy:
            self.pushing.look_again()
        self.pushing.begin([one for one in freed if one != view.delivery.delivery_id])

    async def _wait(self, view: DeliveryView) -> None:
        """Wait for the node or for a person, telling whoever should know that it takes long."""
        now = self._rooms.clock.now()
        looks = [now + LONGEST_WAIT]
        if view.delivery.certificate_id is not None:
            certificate = await self.releasing.certificate(view)
            why = self.releasing.spent(certificate)
            if why is not None:
                await self._ends.fail(view, DeliveryEvent.SPENT, why)
                return
            looks.append(certificate.not_after)
            looks += await self._look_unseen(view, certificate, now)
        looks += await self._look_late(view, now)
        due_at = min(moment for moment in looks if moment > now)
        raise Postponed(due_at, view.delivery.note or f"it is {view.delivery.stage}")

    async def _look_unseen(
        self, view: DeliveryView, certificate: CertificateRecord, now: datetime
    ) -> list[datetime]:
        """Tell once that a pushed certificate was not seen; return when to look, if later."""
        delivery = view.delivery
        if delivery.stage not in AT_NODE or delivery.pushed_at is None or delivery.told_at:
            return []
        lifetime = certificate.not_after - certificate.not_before
        limit = min(NOT_SEEN_AFTER, max(lifetime / NOT_SEEN_SHARE, SHORTEST_LIMIT))
        if delivery.pushed_at + limit > now:
            return [delivery.pushed_at + limit]
        told = replace(delivery, told_at=now)
        seconds = (now - delivery.pushed_at).total_seconds()
        event = delivery_event(EventKind.DELIVERY_NOT_SEEN, view, told, now, seconds=seconds)
        await self._store.change_delivery(told, expected=(delivery.stage,), events=(event,))
        log.error(
            "certificate not seen",
            delivery=delivery.delivery_id,
            node=view.node.name,
            certificate=view.managed.name,
            stage=str(delivery.stage),
            seconds=int(seconds),
        )
        return [now + limit]

    async def _look_late(self, view: DeliveryView, now: datetime) -> list[datetime]:
        """Tell once that the renewal is late; return when to look, if that is to come."""
        managed, events = self._ends.late(view.managed, view.node)
        if events:
            found = await self._store.find_delivery(view.delivery.delivery_id)
            if found is not None:
                await self._store.change_delivery(
                    found.delivery,
                    expected=(view.delivery.stage,),
                    events=events,
                    managed=managed,
                )
        moment = late_at(managed)
        return [moment] if moment is not None and managed.told_at is None and moment > now else []

    # ------------------------------------------------------------------------ what else happens

    def on_events(self, events: Sequence[Event]) -> None:
        """Go on with what waited for one of *events*: called after each commit."""
        for event in events:
            if event.kind in ORDER_EVENTS:
                delivery_id = self._awaited.get(event.order_id or "")
                if delivery_id is not None:
                    job = deliver_job(delivery_id, self._rooms.clock.now())
                    self._rooms.dispatcher.kick(job)
            elif event.kind in CERTIFICATE_EVENTS:
                certificate_id = event.data.get("certificate_id")
                if isinstance(certificate_id, str):
                    self._begin(self._look_again(certificate_id))
            elif event.kind is EventKind.NODE_REVOKED:
                node_id = event.data.get("node_id")
                if isinstance(node_id, str):
                    self._begin(self.abandon(node_id))

    async def abandon(self, node_id: str) -> None:
        """Take back all that is on its way to a node, and renew nothing of it any more."""
        for delivery in await self._store.open_deliveries_of(node_id):
            await self._ends.withdraw_open(delivery.delivery_id, "the node was revoked")
        records = await self._store.managed_of(node_id)
        planned = [replace(one, next_at=None, due_since=None) for one in records]
        await self._store.keep_managed(planned, [])

    async def stop(self) -> None:
        """End what this module began beside the jobs."""
        await self.pushing.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_again(self, certificate_id: str) -> None:
        managed = await self._store.managed_by_certificate(certificate_id)
        if managed is not None:
            await self.sweep.plan_again(managed)

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_tolerated(doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _tolerated(doing: Coroutine[Any, Any, None]) -> None:
    try:
        await doing
    except (Unreachable, Broken, Conflict) as error:
        log.error("not planned anew", reason=error.reason)
