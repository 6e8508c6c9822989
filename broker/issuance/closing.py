"""How an order ends, each way in one transaction with its event, its job and its work.

Four ends: issued, refused by the upstream, withheld by the release gate, and a chain that was
none.  The first releases a certificate; the others tell the client why, without a word of the
upstream's own addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from broker.issuance.accounts import new_id
from broker.issuance.aftermath import renewal_of, retirement_job, retirement_of
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Attached, Clock, EventLog, OrderClosing, OrderStore
from broker.issuance.records import (
    CertificateRecord,
    Job,
    JobKind,
    OrderRecord,
    Suspension,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.release import Received
from broker.issuance.renewal_ports import RetirementRecord
from broker.policy.chains import UPSTREAM_BREACHES
from broker.policy.decisions import Finding
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType, ReportedIdentifier, Subject
from broker.protocol.transitions import OrderEvent, advance_order

__all__ = ["Closing", "told_to_client"]

SUPERSEDED: Final = 4
"""RFC 5280 §5.3.1 reason for a withheld certificate: it was replaced before anybody used it.
keyCompromise would be untrue, and would block the requester's key at the CA."""

_ADDRESS: Final = re.compile(
    r"""(?:[a-z][a-z0-9+.-]*:)?//\S+         # with or without its scheme
      | (?:[a-z0-9_-]+\.)+[a-z0-9-]+(?::\d+)?/\S*   # a host with a path, as people write it
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""An upstream's address in a sentence: more is taken away than has to be, never less."""


class Closing:
    """Ends orders."""

    def __init__(
        self, orders: OrderStore, log: EventLog, dispatcher: Dispatcher, clock: Clock
    ) -> None:
        self._orders = orders
        self._log = log
        self._dispatcher = dispatcher
        self._clock = clock

    async def issued(
        self, order: OrderRecord, work: WorkRecord, received: Received, *, is_local: bool
    ) -> None:
        """Release the certificate and make the order valid."""
        certificate = replace(received.certificate, upstream_account=work.account_url)
        retirement = retirement_of(order, certificate)
        attached = self._attached(
            order,
            EventKind.CERTIFICATE_ISSUED,
            data={
                "policy_sha256": received.policy_sha256,
                **_certificate_facts(certificate),
                **_retirement_facts(retirement),
            },
        )
        events = (*attached.events, *self._told_of_chains(order, received))
        jobs = () if retirement is None else (retirement_job(retirement),)
        await self._close(
            OrderClosing(
                order_id=order.order_id,
                expected=order.status,
                status=advance_order(order.status, OrderEvent.ISSUED),
                certificate=certificate,
                alternates=received.alternates,
                renewal=renewal_of(certificate, is_local=is_local),
                retirement=retirement,
                work_id=work.work_id,
                work_status=WorkStatus.SPENT,
                attached=replace(attached, events=events, jobs=jobs),
            )
        )

    async def answered_again(
        self, order: OrderRecord, work: WorkRecord, certificate: CertificateRecord
    ) -> None:
        """Make the order valid with a certificate that its account has already."""
        facts = _certificate_facts(certificate)
        await self._close(
            OrderClosing(
                order_id=order.order_id,
                expected=order.status,
                status=advance_order(order.status, OrderEvent.ISSUED),
                again=certificate.certificate_id,
                work_id=work.work_id,
                work_status=WorkStatus.DEAD,
                attached=self._attached(order, EventKind.ORDER_ANSWERED_AGAIN, data=facts),
            )
        )

    def _told_of_chains(self, order: OrderRecord, received: Received) -> Sequence[Event]:
        """Return what an operator should know of the chains that came."""
        told = [
            self._event(order, EventKind.ALTERNATE_CHAIN_WITHHELD, {"fault": fault[:500]})
            for fault in received.withheld_chains
        ]
        if received.is_wish_missed:
            told.append(self._event(order, EventKind.PREFERRED_CHAIN_MISSING, {}))
        return told

    async def refused_upstream(
        self, order: OrderRecord, work: WorkRecord, problem: Problem
    ) -> None:
        """Make the order invalid because the upstream said no."""
        told = told_to_client(order.upstream, problem)
        await self._refuse(order, work, told, data={"upstream_problem": problem.raw_type})

    async def refused_here(self, order: OrderRecord, work: WorkRecord, problem: Problem) -> None:
        """Make the order invalid because of something on our side, before its CA was to issue."""
        await self._refuse(order, work, problem, data={})

    async def unusable_chain(self, order: OrderRecord, work: WorkRecord, fault: str) -> None:
        """Make the order invalid because no certificate chain could be had from the upstream."""
        why = _without_addresses(fault)
        told = Problem(
            ProblemType.SERVER_INTERNAL,
            f"upstream {order.upstream!r} sent no usable certificate chain: {why}",
        )
        await self._refuse(order, work, told, data={"fault": fault[:500]})

    async def withheld(self, order: OrderRecord, work: WorkRecord, received: Received) -> None:
        """Keep back a certificate that breaks a rule, have it revoked, suspend where it came from.

        A certificate that was kept before is somebody else's: it is neither kept twice nor
        revoked.
        """
        told = _breach(order, received.findings)
        certificate = received.certificate
        jobs: tuple[Job, ...] = ()
        if not received.is_known:
            now = self._clock.now()
            certificate = replace(
                certificate, revocation_reason=SUPERSEDED, upstream_account=work.account_url
            )
            jobs = (Job(kind=JobKind.REVOKE, subject=certificate.certificate_id, due_at=now),)
        attached = self._attached(
            order,
            EventKind.CERTIFICATE_WITHHELD,
            data={
                "policy_sha256": received.policy_sha256,
                **_certificate_facts(received.certificate),
                "findings": [_finding(found) for found in received.findings],
            },
        )
        suspension = self._suspension(order, received.findings)
        events = attached.events
        if suspension is not None:
            told_of = self._event(order, EventKind.UPSTREAM_SUSPENDED, {"rule": suspension.rule})
            events = (*events, told_of)
        has_closed = await self._close(
            OrderClosing(
                order_id=order.order_id,
                expected=order.status,
                status=advance_order(order.status, OrderEvent.ISSUANCE_REFUSED),
                error=told.to_json(),
                certificate=None if received.is_known else certificate,
                suspension=suspension,
                work_id=work.work_id,
                work_status=WorkStatus.SPENT,
                attached=replace(attached, jobs=jobs, events=events),
            )
        )
        for job in jobs if has_closed else ():
            self._dispatcher.kick(job)

    def _suspension(self, order: OrderRecord, findings: Sequence[Finding]) -> Suspension | None:
        """Return the suspension of where it came from, unless that did nothing wrong.

        Policy may have changed while the upstream was at work.
        """
        breaches = [found.sentence for found in findings if found.check in UPSTREAM_BREACHES]
        if not breaches:
            return None
        return Suspension(
            upstream=order.upstream,
            upstream_profile=order.upstream_profile,
            since=self._clock.now(),
            order_id=order.order_id,
            rule="; ".join(breaches),
        )

    async def note(self, event: Event) -> None:
        """Keep an event that belongs to no change."""
        await self._log.append(event, durable=False)

    async def count_lost(self, work: WorkRecord) -> None:
        """Note that an upstream order may exist whose URL we never learned."""
        event = Event(
            kind=EventKind.UPSTREAM_ORDER_LOST,
            at=self._clock.now(),
            community=work.community,
            order_id=work.taken_by,
            upstream=work.upstream,
            data={"work_id": work.work_id},
        )
        await self._log.append(event, durable=False)

    def replacement(self, order: OrderRecord, work: WorkRecord) -> WorkRecord:
        """Return fresh work for the same request, taken by *order*.

        It is no older than the finalize that it is for, though the clock was put back since then:
        what the CA says of it is an answer to that.
        """
        now = self._clock.now()
        return replace(
            work,
            work_id=new_id(),
            status=WorkStatus.INTENDED,
            order_url=None,
            taken_by=order.order_id,
            is_sent=False,
            created_at=max(now, order.finalized_at or now),
        )

    async def _refuse(
        self,
        order: OrderRecord,
        work: WorkRecord,
        told: Problem,
        *,
        data: dict[str, object],
    ) -> None:
        await self._close(
            OrderClosing(
                order_id=order.order_id,
                expected=order.status,
                status=advance_order(order.status, OrderEvent.ISSUANCE_REFUSED),
                error=told.to_json(),
                work_id=work.work_id,
                work_status=WorkStatus.DEAD,
                attached=self._attached(
                    order,
                    EventKind.ORDER_REFUSED,
                    data={"type": told.token, "detail": told.detail, **data},
                ),
            )
        )

    async def _close(self, closing: OrderClosing) -> bool:
        """Close the order; returns whether it was this call that did."""
        try:
            await self._orders.close_order(closing)
        except Conflict:
            found = await self._orders.load_order(closing.order_id)
            if found is None or found.status is closing.expected:
                # Not the order was in the way but its certificate, which another order had kept
                # a moment before: it is known now, and judged again.
                raise
            # Another run closed it first; what it kept stands.
            return False
        return True

    def _attached(
        self, order: OrderRecord, kind: EventKind, *, data: dict[str, object]
    ) -> Attached:
        return Attached(
            events=(self._event(order, kind, data),),
            done=((JobKind.FULFIL, order.order_id),),
        )

    def _event(self, order: OrderRecord, kind: EventKind, data: dict[str, object]) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data=data,
        )


def told_to_client(upstream: str, problem: Problem) -> Problem:
    """Return what a client may read of an upstream's refusal: no address, no foreign account.

    The upstream's type is passed on where RFC 8555 knows it, so that a client branches on it as
    it would at the CA; ``instance``, links and algorithms are the CA's own and stay behind.
    """
    return Problem(
        problem.type or ProblemType.SERVER_INTERNAL,
        f"upstream {upstream!r} refused: {_without_addresses(problem.detail)}",
        subproblems=[
            Problem(
                one.type or ProblemType.SERVER_INTERNAL,
                _without_addresses(one.detail),
                identifier=_named(one.identifier),
            )
            for one in problem.subproblems
        ],
    )


def _named(identifier: Subject | None) -> ReportedIdentifier | None:
    """Return the identifier that a CA spoke of, which is text of its choosing like the rest."""
    if identifier is None:
        return None
    kind, value = str(identifier.type), identifier.value
    return ReportedIdentifier(_without_addresses(kind), _without_addresses(value))


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("[address]", text)


def _breach(order: OrderRecord, findings: Sequence[Finding]) -> Problem:
    sentences = "; ".join(found.sentence for found in findings)
    return Problem(
        ProblemType.SERVER_INTERNAL,
        f"upstream {order.upstream!r} issued a certificate that may not be released: {sentences}",
    )


def _certificate_facts(certificate: CertificateRecord) -> dict[str, object]:
    return {
        "certificate_id": certificate.certificate_id,
        "fingerprint": certificate.fingerprint,
        "serial": certificate.serial,
        "not_after": certificate.not_after.isoformat(),
        "identifiers": [str(one) for one in _names(certificate.identifiers)],
    }


def _retirement_facts(retirement: RetirementRecord | None) -> dict[str, object]:
    if retirement is None:
        return {}
    return {"retires_at": retirement.retire_at.isoformat()}


def _names(identifiers: Sequence[Identifier]) -> Sequence[Identifier]:
    return identifiers[:100]


def _finding(found: Finding) -> dict[str, object]:
    rule = f"{found.rule.source}:{found.rule.line}" if found.rule else None
    lever = str(found.lever) if found.lever else None
    return {"check": found.check, "sentence": found.sentence, "rule": rule, "lever": lever}
