"""Mass replacement: select, replace by ordinary deliveries, wait until seen, then revoke.

An incident is a row with an item for each certificate, and a durable job that goes through what
is open, again and again, until nothing is.  Every step reads what is kept and can be repeated, so
it goes on after a kill at any place: a delivery that was begun is found by its incident, a
revocation that was asked for by its certificate.  What a client of its own renews is told to do
so at once and is otherwise not in our hands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from broker.issuance.accounts import new_id
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.incident_ports import (
    IncidentItem,
    IncidentRecord,
    IncidentStatus,
    IncidentStore,
    ItemKind,
    ItemStatus,
    Order,
    Selected,
    Selection,
)
from broker.issuance.node_ports import DeliveryRecord, DeliveryStage, ReplacementStarter
from broker.issuance.ports import CertificateStore, Clock, JobStore
from broker.issuance.records import CertificateRecord, Job, JobKind
from broker.issuance.replaced import ReplacedStore, is_replaced
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["MAX_SELECTED", "IncidentRooms", "Incidents"]

MAX_SELECTED: Final = 100_000
"""Most certificates of one incident: all that a broker of this size has."""

LOOK_EVERY: Final = timedelta(seconds=5)
"""How often an incident under way is gone through: what it waits for takes longer."""

LOOK_AT_CLIENTS: Final = timedelta(minutes=10)
"""How often it is looked whether a client of its own has renewed."""

ASKED_FOR: Final = timedelta(minutes=10)
"""How long a node that was asked for a CSR takes a place: one that is away must not hold up
those that are there."""

FIRST_RETRY: Final = timedelta(minutes=1)
"""Pause before a certificate is tried again that could not be replaced; doubled each time."""

LONGEST_RETRY: Final = timedelta(hours=1)
"""Longest such pause: a day's clock has room for two dozen attempts."""

CLIENTS_A_LOOK: Final = 100
"""Certificates of clients of their own that one look asks about."""

_WORKING: Final = (ItemStatus.GOING, ItemStatus.REPLACED, ItemStatus.REVOKING)
_OPEN: Final = tuple(status for status in ItemStatus if not status.is_end)
_ORDERING: Final = (DeliveryStage.ASKED, DeliveryStage.ORDERED)

log = structlog.get_logger(__name__)


class Rooms(IncidentStore, CertificateStore, JobStore, ReplacedStore, Protocol):
    """The store as incidents see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRooms:
    """What incidents work with."""

    store: Rooms
    starter: ReplacementStarter
    dispatcher: Dispatcher
    clock: Clock
    is_canary: Callable[[str], bool] = lambda _node: False
    """Whether a node goes first in its rollout group."""


class Incidents:
    """The workflow of mass replacements; handles INCIDENT jobs."""

    def __init__(self, rooms: IncidentRooms) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._clock = rooms.clock

    # -------------------------------------------------------------------------------- by people

    async def select(self, selection: Selection) -> Sequence[Selected]:
        """Return the living certificates that are meant."""
        return await self._store.select_certificates(selection, self._clock.now(), MAX_SELECTED)

    async def start(self, order: Order, actor: Actor) -> IncidentRecord:
        """Begin to replace what is selected.

        Raises:
            Problem: Nothing is selected.
        """
        now = self._clock.now()
        found = await self.select(order.selection)
        if not found:
            raise Problem(ProblemType.MALFORMED, "nothing living is selected")
        incident = IncidentRecord(
            incident_id=new_id(),
            status=IncidentStatus.OPEN,
            selection=order.selection.document(),
            started_at=now,
            deadline_at=None if order.deadline is None else now + order.deadline,
            started_by=actor.name,
            reason=actor.reason,
            revocation_reason=order.revocation_reason,
            at_once=order.at_once,
            explanation_url=order.explanation_url,
        )
        ordered = sorted(found, key=self._turn)
        items = [_item(incident, one, place) for place, one in enumerate(ordered)]
        event = self._event(EventKind.INCIDENT_STARTED, incident, actor, certificates=len(items))
        job = self._job(incident, now)
        await self._store.start_incident(incident, items, event, job)
        log.warning("incident started", incident=incident.incident_id, certificates=len(items))
        self._rooms.dispatcher.kick(job)
        return incident

    async def change(
        self, incident_id: str, status: IncidentStatus, actor: Actor
    ) -> IncidentRecord:
        """Pause, resume or abandon; what is on its way to a node goes on in any case.

        Raises:
            Conflict: It is not there, or in no state for that.
        """
        kind, expected = _CHANGES[status]
        incident = await self._store.find_incident(incident_id)
        if incident is None:
            raise Conflict(f"there is no incident '{printable(incident_id, 60)}'")
        now = self._clock.now()
        ended_at = now if status is IncidentStatus.ABANDONED else None
        changed = replace(incident, status=status, ended_at=ended_at)
        jobs = (self._job(incident, now),) if status is IncidentStatus.OPEN else ()
        event = self._event(kind, incident, actor)
        await self._store.change_incident(changed, expected=expected, events=(event,), jobs=jobs)
        for job in jobs:
            self._rooms.dispatcher.kick(job)
        return changed

    # ---------------------------------------------------------------------------------- the job

    async def advance(self, job: Job) -> None:
        """Go through what is open: the handler of INCIDENT jobs."""
        incident = await self._store.find_incident(job.subject)
        if incident is None or incident.status is not IncidentStatus.OPEN:
            return
        now = self._clock.now()
        incident = await self._look_at_clock(incident, now)
        places = await self._go_through(incident, now)
        await self._begin_more(incident, now, incident.at_once - places)
        await self._look_at_clients(incident, now)
        left = await self._store.incident_items(incident.incident_id, _OPEN, MAX_SELECTED)
        if not left:
            await self._end(incident, now)
            return
        raise Postponed(self._next_look(left, now), f"{len(left)} certificates are left")

    async def _go_through(self, incident: IncidentRecord, now: datetime) -> int:
        """Carry on what is under way; return how many are being ordered."""
        places = 0
        items = await self._store.incident_items(incident.incident_id, _WORKING, MAX_SELECTED)
        for item in items:
            carried = await self._carry(incident, item, now)
            if carried is item and item.status is ItemStatus.GOING:
                places += await self._takes_place(item, now)
        return places

    async def _begin_more(self, incident: IncidentRecord, now: datetime, places: int) -> None:
        waiting = await self._store.incident_items(
            incident.incident_id, (ItemStatus.WAITING,), MAX_SELECTED
        )
        for item in waiting:
            if places <= 0:
                return
            if item.retry_at is not None and item.retry_at > now:
                continue
            found = await self._carry(incident, item, now)
            places -= found.status is ItemStatus.GOING

    async def _carry(
        self, incident: IncidentRecord, item: IncidentItem, now: datetime
    ) -> IncidentItem:
        """Do the next step of one certificate, and return it as it is then."""
        certificate = await self._store.find_certificate(item.certificate_id)
        if certificate is None or item.managed_id is None:
            return await self._keep(item, ItemStatus.GONE, "it is not in the store")
        if certificate.revoked_at is not None:
            return await self._keep(item, ItemStatus.REVOKED, None)
        if certificate.not_after <= now:
            return await self._keep(item, ItemStatus.GONE, "it ended by itself")
        if item.status is ItemStatus.REVOKING:
            return await self._await_revocation(item, now)
        if await is_replaced(self._store, item.managed_id, item.certificate_id):
            return await self._revoke(incident, item, certificate, now)
        if item.status is ItemStatus.WAITING:
            return await self._begin(incident, item, item.managed_id)
        going = await self._store.open_delivery(item.managed_id)
        if going is not None and going.incident_id == incident.incident_id:
            return await self._note(item, going)
        if await is_replaced(self._store, item.managed_id, item.certificate_id):
            # It was seen between the two looks, and is no failure that has to be waited after.
            return await self._revoke(incident, item, certificate, now)
        return await self._again(item, now, "its delivery came to nothing")

    async def _begin(
        self, incident: IncidentRecord, item: IncidentItem, managed_id: str
    ) -> IncidentItem:
        now = self._clock.now()
        try:
            await self._rooms.starter.begin(
                managed_id, reason="incident", incident_id=incident.incident_id
            )
        except Problem as problem:
            return await self._again(item, now, problem.detail, pause=problem.retry_after)
        except (Unreachable, Broken, Conflict) as error:
            return await self._again(item, now, error.reason)
        return await self._keep(item, ItemStatus.GOING, None)

    async def _revoke(
        self,
        incident: IncidentRecord,
        item: IncidentItem,
        certificate: CertificateRecord,
        now: datetime,
    ) -> IncidentItem:
        """Ask for the revocation; the job that passes it up is its own."""
        reason = incident.revocation_reason
        job = Job(kind=JobKind.REVOKE, subject=certificate.certificate_id, due_at=now)
        event = Event(
            kind=EventKind.CERTIFICATE_REVOCATION_REQUESTED,
            at=now,
            actor=Actor(incident.started_by, incident.reason),
            community=certificate.community,
            account_id=certificate.account_id,
            order_id=certificate.order_id,
            upstream=certificate.upstream,
            data={
                "certificate_id": certificate.certificate_id,
                "fingerprint": certificate.fingerprint,
                "serial": certificate.serial,
                "reason": reason,
                "incident_id": incident.incident_id,
            },
        )
        try:
            await self._store.request_revocation(
                certificate.certificate_id, reason=reason, at=now, event=event, job=job
            )
        except Conflict:
            return await self._keep(item, ItemStatus.REVOKED, None)
        kept = await self._keep(item, ItemStatus.REVOKING, None)
        self._rooms.dispatcher.kick(job)
        return kept

    async def _await_revocation(self, item: IncidentItem, now: datetime) -> IncidentItem:
        job = await self._store.find_job(JobKind.REVOKE, item.certificate_id)
        if job is not None:
            return item
        # The job is gone: it was done, or the CA said no for good.
        found = await self._store.find_certificate(item.certificate_id)
        if found is not None and found.revoked_at is not None:
            return await self._keep(item, ItemStatus.REVOKED, None)
        log.error("certificate is not revoked", certificate=item.certificate_id, at=str(now))
        return await self._keep(item, ItemStatus.REFUSED, "its CA refused to revoke it")

    async def _look_at_clients(self, incident: IncidentRecord, now: datetime) -> None:
        """See which clients of their own have renewed; a look asks about a few of them."""
        pulled = await self._store.incident_items(
            incident.incident_id, (ItemStatus.PULLED,), MAX_SELECTED
        )
        due = [one for one in pulled if one.retry_at is None or one.retry_at <= now]
        for item in due[:CLIENTS_A_LOOK]:
            found = await self._store.find_certificate(item.certificate_id)
            if found is None or found.revoked_at is not None or found.not_after <= now:
                await self._keep(item, ItemStatus.GONE, "it was revoked or has ended")
            elif await self._store.has_heir(found):
                note = "its client has another; whether it serves that is not seen from here"
                await self._keep(item, ItemStatus.HANDED_OVER, note)
            else:
                await self._store.keep_item(replace(item, retry_at=now + LOOK_AT_CLIENTS))

    async def _look_at_clock(self, incident: IncidentRecord, now: datetime) -> IncidentRecord:
        """Tell once that the deadline has passed with something left."""
        deadline = incident.deadline_at
        if deadline is None or incident.late_at is not None or now < deadline:
            return incident
        late = replace(incident, late_at=now)
        event = self._event(EventKind.INCIDENT_LATE, incident, SYSTEM)
        await self._store.change_incident(late, expected=(IncidentStatus.OPEN,), events=(event,))
        log.error("incident is past its deadline", incident=incident.incident_id)
        return late

    async def _end(self, incident: IncidentRecord, now: datetime) -> None:
        done = replace(incident, status=IncidentStatus.DONE, ended_at=now)
        event = self._event(EventKind.INCIDENT_DONE, incident, SYSTEM)
        await self._store.change_incident(done, expected=(IncidentStatus.OPEN,), events=(event,))
        log.warning("incident is done", incident=incident.incident_id)

    # ------------------------------------------------------------------------------------ within

    async def _takes_place(self, item: IncidentItem, now: datetime) -> bool:
        """Return whether its replacement is being ordered: what is issued and waits for its node
        holds nobody up."""
        going = await self._store.open_delivery(item.managed_id or "")
        return going is not None and going.stage in _ORDERING and now - going.begun_at < ASKED_FOR

    async def _note(self, item: IncidentItem, going: DeliveryRecord) -> IncidentItem:
        """Have the report tell why it takes long."""
        note = f"{going.stage}: {going.note}" if going.note else str(going.stage)
        if note != item.note:
            await self._store.keep_item(replace(item, note=note))
        return item

    async def _keep(self, item: IncidentItem, status: ItemStatus, note: str | None) -> IncidentItem:
        kept = replace(item, status=status, note=note, retry_at=None)
        if kept != item:
            await self._store.keep_item(kept)
        return kept

    async def _again(
        self, item: IncidentItem, now: datetime, why: str, *, pause: timedelta | None = None
    ) -> IncidentItem:
        pause = pause or min(FIRST_RETRY * (1 << min(item.attempts, 16)), LONGEST_RETRY)
        kept = replace(
            item,
            status=ItemStatus.WAITING,
            note=printable(why, 300),
            attempts=item.attempts + 1,
            retry_at=now + pause,
        )
        await self._store.keep_item(kept)
        return kept

    def _turn(self, one: Selected) -> tuple[bool, bool, datetime, str]:
        is_stock = one.managed_id is None
        is_canary = one.node is not None and self._rooms.is_canary(one.node)
        return is_stock, not is_canary, one.not_after, one.certificate_id

    def _next_look(self, left: Sequence[IncidentItem], now: datetime) -> datetime:
        if any(item.status in _WORKING or item.retry_at is None for item in left):
            return now + LOOK_EVERY
        soonest = min(item.retry_at or now for item in left)
        return max(soonest, now + LOOK_EVERY)

    def _job(self, incident: IncidentRecord, now: datetime) -> Job:
        return Job(kind=JobKind.INCIDENT, subject=incident.incident_id, due_at=now)

    def _event(
        self, kind: EventKind, incident: IncidentRecord, actor: Actor, **more: object
    ) -> Event:
        data = {
            "incident_id": incident.incident_id,
            "selection": incident.selection,
            "revocation_reason": incident.revocation_reason,
            **more,
        }
        return Event(kind=kind, at=self._clock.now(), actor=actor, data=data)


def _item(incident: IncidentRecord, one: Selected, place: int) -> IncidentItem:
    is_stock = one.managed_id is None
    return IncidentItem(
        incident_id=incident.incident_id,
        certificate_id=one.certificate_id,
        kind=ItemKind.STOCK if is_stock else ItemKind.MANAGED,
        managed_id=one.managed_id,
        node=one.node,
        status=ItemStatus.PULLED if is_stock else ItemStatus.WAITING,
        note=None,
        attempts=0,
        retry_at=None,
        place=place,
    )


_CHANGES: Final = {
    IncidentStatus.PAUSED: (EventKind.INCIDENT_PAUSED, (IncidentStatus.OPEN,)),
    IncidentStatus.OPEN: (EventKind.INCIDENT_RESUMED, (IncidentStatus.PAUSED,)),
    IncidentStatus.ABANDONED: (
        EventKind.INCIDENT_ABANDONED,
        (IncidentStatus.OPEN, IncidentStatus.PAUSED),
    ),
}
"""What a person can have an incident become, how that is told, and from which states."""
