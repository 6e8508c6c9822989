"""What follows a withdrawal: certificates that rest on the approval are revoked where policy says.

Orders under it are held by the gate alone: their finalize is refused.  One that is with its CA
already may still become a certificate, so the job looks again until none is.  Each certificate is
asked to be revoked once, by the ordinary job that goes on over a crash or while a CA is away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Protocol

import structlog

from broker.issuance.approval_changes import moved
from broker.issuance.approval_ports import (
    ApprovalRecord,
    ApprovalStatus,
    ApprovalStore,
    WithdrawalStore,
)
from broker.issuance.approval_terms import Terms
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import CertificateStore, Clock, EventLog
from broker.issuance.records import Job, JobKind

__all__ = ["WithdrawalRooms", "Withdrawals"]

PRIVILEGE_WITHDRAWN: Final = 9
"""Reason code of the revocations (RFC 5280 §5.3.1)."""

LOOK_AGAIN: Final = timedelta(seconds=15)
"""How often it is looked whether an order that was with its CA has become a certificate."""

log = structlog.get_logger(__name__)


class WithdrawalRooms(ApprovalStore, WithdrawalStore, CertificateStore, EventLog, Protocol):
    """The store as withdrawals see it."""


class Withdrawals:
    """Handles WITHDRAW jobs."""

    def __init__(self, store: WithdrawalRooms, dispatcher: Dispatcher, clock: Clock) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock

    async def carry_out(self, job: Job) -> None:
        """Have everything revoked that rests on the approval.

        Raises:
            Postponed: Something is left to come.
        """
        approval = await self._store.find_approval(job.subject)
        if approval is None or approval.status is not ApprovalStatus.WITHDRAWN:
            return
        if not Terms.read(approval.terms).revokes:
            return
        # In this order, so that what becomes a certificate between the two is not missed.
        processing = await self._store.processing_under(approval)
        found = await self._store.certificates_under(approval, self._clock.now())
        for certificate_id in found:
            await self._revoke(approval, certificate_id)
        if processing or found:
            note = f"{processing} orders are with their CA"
            raise Postponed(self._clock.now() + (LOOK_AGAIN if processing else timedelta()), note)
        change = moved(approval, EventKind.APPROVAL_CLEARED, at=self._clock.now())
        await self._store.append(change.events[0], durable=False)
        log.warning("withdrawn approval is cleared", approval=approval.approval_id)

    async def _revoke(self, approval: ApprovalRecord, certificate_id: str) -> None:
        certificate = await self._store.find_certificate(certificate_id)
        if certificate is None:
            return
        now = self._clock.now()
        job = Job(kind=JobKind.REVOKE, subject=certificate_id, due_at=now)
        event = Event(
            kind=EventKind.CERTIFICATE_REVOCATION_REQUESTED,
            at=now,
            actor=Actor(f"approval:{approval.approval_id}", approval.reason),
            community=certificate.community,
            account_id=certificate.account_id,
            order_id=certificate.order_id,
            upstream=certificate.upstream,
            data={
                "fingerprint": certificate.fingerprint,
                "serial": certificate.serial,
                "reason": PRIVILEGE_WITHDRAWN,
                "approval_id": approval.approval_id,
            },
        )
        try:
            await self._store.request_revocation(
                certificate_id, reason=PRIVILEGE_WITHDRAWN, at=now, event=event, job=job
            )
        except Conflict:
            return  # somebody revoked it meanwhile
        self._dispatcher.kick(job)
