"""Certificates that are longer than their cap: replaced by their retirement date, then revoked.

No cap is held by this: whoever does not look at revocation accepts such a certificate to its own
end.  Policy says so for one upstream at a time, and everything shown of it is a retirement date.

A successor counts once it is in use, and it is taken to be in use once its account has fetched it:
nothing else of a client can be seen from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import CertificateStore, Clock, OrderStore
from broker.issuance.records import CertificateRecord, Job, JobKind, OrderRecord
from broker.issuance.renewal_ports import RetirementRecord, RetirementStatus, RetirementStore

__all__ = ["Retirements"]

SUPERSEDED: Final = 4
"""Revocation reason of a certificate that has a successor (RFC 5280 §5.3.1)."""

_OPEN: Final = (RetirementStatus.WAITING, RetirementStatus.OVERDUE)


class Retirements:
    """The retirement workflow."""

    def __init__(
        self,
        *,
        retirements: RetirementStore,
        certificates: CertificateStore,
        orders: OrderStore,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._retirements = retirements
        self._certificates = certificates
        self._orders = orders
        self._dispatcher = dispatcher
        self._clock = clock

    async def note_use(self, successor: CertificateRecord) -> None:
        """Take what *successor* replaces for replaced, since its account has fetched it now."""
        waiting = await self._retirements.awaiting_successor(
            successor.account_id, successor.community, successor.received_at
        )
        if not waiting or successor.revoked_at is not None:
            return
        order = await self._orders.load_order(successor.order_id)
        if order is None:
            return
        for record in waiting:
            if await self._is_succeeded(record, order, successor):
                await self._replace(record, successor)

    async def carry_out(self, job: Job) -> None:
        """Revoke what has to go, or say that its successor is missing: handles RETIRE jobs."""
        record = await self._retirements.find_retirement(job.subject)
        found = await self._certificates.find_certificate(job.subject)
        if record is None or found is None or record.status is RetirementStatus.RETIRED:
            return
        now = self._clock.now()
        if found.revoked_at is not None or found.not_after <= now:
            await self._end(record, found, "it was revoked" if found.revoked_at else "it ended")
            return
        if record.status is RetirementStatus.REPLACED:
            due_at = (record.replaced_at or now) + record.grace
            if due_at > now:
                raise Postponed(due_at, "its successor is in use, and both are good for a while")
            await self._revoke(record, found, "its successor is in use")
            return
        if record.retire_at > now:
            raise Postponed(record.retire_at, "its retirement date is still to come")
        if record.revokes_unreplaced:
            await self._revoke(record, found, "its retirement date has passed")
            return
        await self._call_overdue(record, found)

    async def _is_succeeded(
        self, record: RetirementRecord, order: OrderRecord, successor: CertificateRecord
    ) -> bool:
        """Return whether *successor* takes the place of what is to be retired."""
        if successor.certificate_id == record.certificate_id:
            return False
        if order.replaces is not None:
            found = await self._certificates.find_certificate(record.certificate_id)
            if found is not None and found.cert_id == order.replaces:
                return True
        same_names = set(order.identifiers) == set(record.identifiers)
        return same_names and order.profile == record.profile

    async def _replace(self, record: RetirementRecord, successor: CertificateRecord) -> None:
        now = self._clock.now()
        job = Job(kind=JobKind.RETIRE, subject=record.certificate_id, due_at=now + record.grace)
        replaced = replace(
            record,
            status=RetirementStatus.REPLACED,
            replaced_by=successor.certificate_id,
            replaced_at=now,
        )
        event = self._event(
            EventKind.CERTIFICATE_REPLACED,
            record,
            {"successor": successor.certificate_id, "revoked_at": job.due_at.isoformat()},
        )
        try:
            await self._retirements.change_retirement(
                replaced, expected=_OPEN, events=(event,), jobs=(job,)
            )
        except Conflict:
            return  # another download was first
        # It may be waiting for a later day already: the run finds out what has changed.
        self._dispatcher.kick(job)

    async def _revoke(self, record: RetirementRecord, found: CertificateRecord, why: str) -> None:
        """Ask for the revocation; the job that passes it up is its own, and comes again itself."""
        now = self._clock.now()
        job = Job(kind=JobKind.REVOKE, subject=found.certificate_id, due_at=now)
        event = self._event(
            EventKind.CERTIFICATE_REVOCATION_REQUESTED,
            record,
            {"fingerprint": found.fingerprint, "serial": found.serial, "reason": SUPERSEDED},
        )
        await self._certificates.request_revocation(
            found.certificate_id, reason=SUPERSEDED, at=now, event=event, job=job
        )
        self._dispatcher.kick(job)
        await self._end(record, found, why)

    async def _end(self, record: RetirementRecord, found: CertificateRecord, why: str) -> None:
        event = self._event(
            EventKind.CERTIFICATE_RETIRED, record, {"fingerprint": found.fingerprint, "why": why}
        )
        await self._retirements.change_retirement(
            replace(record, status=RetirementStatus.RETIRED),
            expected=(record.status,),
            events=(event,),
        )

    async def _call_overdue(self, record: RetirementRecord, found: CertificateRecord) -> None:
        """Say once that nothing has replaced it; the certificate's own end comes back to it."""
        if record.status is RetirementStatus.WAITING:
            event = self._event(
                EventKind.RETIREMENT_OVERDUE,
                record,
                {
                    "fingerprint": found.fingerprint,
                    "identifiers": [str(one) for one in record.identifiers[:100]],
                    "retire_at": record.retire_at.isoformat(),
                    "not_after": found.not_after.isoformat(),
                },
            )
            end = Job(kind=JobKind.RETIRE, subject=record.certificate_id, due_at=found.not_after)
            await self._retirements.change_retirement(
                replace(record, status=RetirementStatus.OVERDUE),
                expected=(record.status,),
                events=(event,),
                jobs=(end,),
            )
        raise Postponed(found.not_after, "its retirement date has passed without a successor")

    def _event(self, kind: EventKind, record: RetirementRecord, data: dict[str, object]) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            community=record.community,
            account_id=record.account_id,
            order_id=record.order_id,
            upstream=record.upstream,
            data={"certificate_id": record.certificate_id, **data},
        )
