"""How a delivery ends: seen, failed, taken back; and what that means for its certificate.

An end is one transaction with what it does to the certificate's next attempt.  The job of the
delivery comes once more after it, so that the rollout hears of every end, also over a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from broker.issuance.delivery_rooms import (
    Workrooms,
    deliver_job,
    delivery_event,
    managed_event,
    message_about,
)
from broker.issuance.delivery_stages import OPEN, DeliveryEvent, advance_delivery
from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryView,
    ManagedRecord,
    NodeMessage,
    NodeRecord,
)
from broker.issuance.records import CertificateRecord
from broker.issuance.renewal_times import RenewalTimes, late_at, pause_after

__all__ = ["DeliveryEnds"]

_AT_NODE_ENDS: Final = frozenset(
    {DeliveryEvent.REFUSED, DeliveryEvent.FAILED, DeliveryEvent.RESTORED}
)
"""Ends of which the node knows by itself."""

log = structlog.get_logger(__name__)


class DeliveryEnds:
    """Ends deliveries."""

    def __init__(self, rooms: Workrooms, times: RenewalTimes) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._times = times

    async def seen(
        self,
        view: DeliveryView,
        delivery: DeliveryRecord,
        certificate: CertificateRecord,
        *,
        earlier: Sequence[Event] = (),
    ) -> None:
        """Keep that the server serves it; *delivery* is as it is from now on.

        What is told with it of the way there, *earlier*, is kept with it.

        Raises:
            Conflict: It has changed meanwhile.
        """
        now = self._rooms.clock.now()
        managed = replace(
            view.managed,
            certificate_id=certificate.certificate_id,
            not_after=certificate.not_after,
            attempts=0,
            fault=None,
            served_pem=None,
            due_since=None,
            told_at=None,
        )
        seconds = None if delivery.issued_at is None else (now - delivery.issued_at).total_seconds()
        event = delivery_event(
            EventKind.DELIVERY_SEEN,
            view,
            delivery,
            now,
            fingerprint=certificate.fingerprint,
            seconds=seconds,
        )
        planned = await self._planned(managed, view.node)
        await self._end(view, delivery, (*earlier, event), managed=planned)

    async def fail(self, view: DeliveryView, event: DeliveryEvent, why: str) -> None:
        """End a delivery that came to nothing; the old certificate stays and is tried again."""
        delivery = self._ended(view, event, why)
        now = self._rooms.clock.now()
        managed = replace(view.managed, attempts=view.managed.attempts + 1, fault=why)
        managed = await self.retried(managed, view.node)
        told = delivery_event(EventKind.DELIVERY_FAILED, view, delivery, now, why=why)
        managed, late = self.late(managed, view.node)
        messages = () if event in _AT_NODE_ENDS else (_taken_back(managed, why),)
        log.warning(
            "delivery failed",
            delivery=delivery.delivery_id,
            node=view.node.name,
            certificate=managed.name,
            stage=str(delivery.stage),
            reason=why,
        )
        await self._end(view, delivery, (told, *late), managed=managed, messages=messages)

    async def withdraw(self, view: DeliveryView, why: str, *, actor: Actor = SYSTEM) -> None:
        """Take a delivery back; nothing is tried again until its time or a person says so."""
        delivery = self._ended(view, DeliveryEvent.WITHDRAWN, why)
        event = delivery_event(
            EventKind.DELIVERY_WITHDRAWN, view, delivery, self._rooms.clock.now(),
            actor=actor, why=why,
        )  # fmt: skip
        managed = replace(view.managed, attempts=view.managed.attempts + 1, fault=why)
        managed = await self.retried(managed, view.node)
        await self._end(
            view, delivery, (event,), managed=managed, messages=(_taken_back(managed, why),)
        )

    async def retried(self, managed: ManagedRecord, node: NodeRecord) -> ManagedRecord:
        """Return *managed* with the time of its next attempt, after one that came to nothing."""
        planned = await self._times.planned(managed, node)
        if planned.next_at is None:
            return planned
        pause = pause_after(managed, await self._lifetime(managed))
        return replace(planned, next_at=max(planned.next_at, self._rooms.clock.now() + pause))

    def late(self, managed: ManagedRecord, node: NodeRecord) -> tuple[ManagedRecord, list[Event]]:
        """Return *managed* and the event that it is late, if that is so and was not told."""
        moment, now = late_at(managed), self._rooms.clock.now()
        if moment is None or moment > now or managed.told_at is not None:
            return managed, []
        end = None if managed.not_after is None else managed.not_after.isoformat()
        log.error(
            "renewal is late",
            node=node.name,
            certificate=managed.name,
            not_after=end,
            attempts=managed.attempts,
            reason=managed.fault,
        )
        event = managed_event(
            EventKind.RENEWAL_LATE, managed, node, now,
            not_after=end, attempts=managed.attempts, why=managed.fault,
        )  # fmt: skip
        return replace(managed, told_at=now), [event]

    async def _planned(self, managed: ManagedRecord, node: NodeRecord) -> ManagedRecord:
        return await self._times.planned(managed, node)

    async def _lifetime(self, managed: ManagedRecord) -> timedelta | None:
        if managed.certificate_id is None:
            return None
        found = await self._store.find_certificate(managed.certificate_id)
        return None if found is None else found.not_after - found.not_before

    def _ended(self, view: DeliveryView, event: DeliveryEvent, why: str) -> DeliveryRecord:
        stage = advance_delivery(view.delivery.stage, event)
        return replace(view.delivery, stage=stage, note=why, ended_at=self._rooms.clock.now())

    async def _end(
        self,
        view: DeliveryView,
        delivery: DeliveryRecord,
        events: Sequence[Event],
        *,
        managed: ManagedRecord,
        messages: Sequence[NodeMessage] = (),
    ) -> None:
        job = deliver_job(delivery.delivery_id, self._rooms.clock.now())
        await self._store.change_delivery(
            delivery,
            expected=(view.delivery.stage,),
            events=events,
            managed=managed,
            jobs=(job,),
            messages=messages,
        )
        self._rooms.dispatcher.kick(job)
        if messages:
            self._rooms.connections.wake(delivery.node_id)

    async def withdraw_open(
        self, delivery_id: str, why: str, *, actor: Actor = SYSTEM
    ) -> DeliveryView | None:
        """Take a delivery back if it is open, whatever it does meanwhile; return it as it is."""
        while True:
            view = await self._store.find_delivery(delivery_id)
            if view is None or view.delivery.stage not in OPEN:
                return view
            try:
                await self.withdraw(view, why, actor=actor)
            except Conflict:
                continue


def _taken_back(managed: ManagedRecord, why: str) -> NodeMessage:
    return message_about(managed, "refused", {"reason": why[:300]})
