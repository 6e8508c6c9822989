"""The broker's own TLS certificate from an ACME upstream: an order of its own, like anyone's.

The same plan by policy for its cap, the same durable upstream half, the same release gate.  Two
things differ: the name is the one that configuration gives the broker, so that policy is not asked
whether it may have it; and it is not proved to us, since we are the requester.  The CA's proof is
given as for every order.

One order at a time: what an earlier process began is found by its account and gone on with, so
that a broker that restarts often orders no more than one that stands.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from broker.issuance.accounts import new_id
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken
from broker.issuance.events import Event, EventKind
from broker.issuance.planning import Planner, decision_facts
from broker.issuance.ports import (
    AccountStore,
    Attached,
    CertificateStore,
    Clock,
    EventLog,
    FinalizeClaim,
    OrderStore,
    Policies,
)
from broker.issuance.records import AccountRecord, Job, JobKind, OrderRecord
from broker.issuance.renewal_ports import RenewalStore
from broker.policy.decisions import CapPlan, NewOrderDecision, NewOrderFacts
from broker.policy.document import PolicyDocument
from broker.policy.validity import judge_choices, rule_cap
from broker.protocol.csr import parse_csr
from broker.protocol.identifiers import Identifier
from broker.protocol.jws import jwk_from_public_key
from broker.protocol.resources import AccountStatus, OrderStatus
from broker.protocol.transitions import OrderEvent, advance_order

__all__ = ["OwnCertificates", "OwnOrder"]

LIFETIME: Final = timedelta(days=7)
"""How long an own order may take: a CA that is away for a long weekend gets it done all the same,
and nobody else waits for it."""

FIRST_PAUSE: Final = timedelta(minutes=5)
"""Pause after an order that was refused; it doubles with each that follows."""

LONGEST_PAUSE: Final = timedelta(hours=6)
"""Longest such pause: a CA that counts five failures an hour for a name is never met at it."""

MAX_COUNTED: Final = 10
"""Most refused orders that are counted: five minutes doubled ten times is past the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOrder:
    """Where the broker's own order stands."""

    order_id: str
    spki_sha256: str
    """Of the key that it is for."""
    certificate_id: str | None
    chain_pem: bytes | None
    """The certificate, once it is there."""
    refusal: str | None
    """Why there will be none."""
    retry_at: datetime | None
    """When the next may be made after a refusal."""


class OwnCertificates:
    """Orders for the broker itself, at one upstream."""

    def __init__(
        self,
        *,
        upstream: str,
        community: str,
        names: tuple[Identifier, ...],
        accounts: AccountStore,
        orders: OrderStore,
        certificates: CertificateStore,
        renewals: RenewalStore,
        log: EventLog,
        planner: Planner,
        policies: Policies,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._community = community
        self._names = names
        self._accounts = accounts
        self._orders = orders
        self._certificates = certificates
        self._renewals = renewals
        self._log = log
        self._planner = planner
        self._policies = policies
        self._dispatcher = dispatcher
        self._clock = clock

    async def latest(self) -> OwnOrder | None:
        """Return the newest own order for these names, or None where there is none."""
        account = await self._accounts.find_account(_account_id(self._community))
        if account is None:
            return None
        newest = await self._log.list_orders(
            community=self._community,
            account_id=account.account_id,
            status=None,
            after=None,
            limit=MAX_COUNTED,
        )
        ours = [
            one
            for one in newest
            if one.upstream == self._upstream and one.identifiers == self._names
        ]
        return await self._shown(ours) if ours else None

    async def begin(self, csr_der: bytes) -> None:
        """Order a certificate for the CSR, and have its upstream half begin at once.

        Raises:
            Broken: The community's policy leads to no plan with this upstream.
        """
        account = await self._account()
        facts = await self._planner.facts(
            account, identifiers=self._names, profile=None, not_before=None, not_after=None
        )
        document = self._policies.current(self._community)
        profile, plan = self._plan(document, facts)
        order = self._order(account, document, profile, plan)
        event = self._event(EventKind.ORDER_CREATED, order)
        await self._orders.create_order(order, (), Attached(events=(event,)))
        claim = self._claim(order, plan, csr_der)
        await self._orders.claim_finalize(claim)
        self._dispatcher.kick(claim.attached.jobs[0])

    async def window(self) -> tuple[datetime, datetime] | None:
        """Return when the CA suggests to renew the newest one, None where it says nothing."""
        newest = await self.latest()
        if newest is None or newest.certificate_id is None:
            return None
        found = await self._renewals.find_renewal(newest.certificate_id)
        if found is None or found.window_start is None or found.window_end is None:
            return None
        return found.window_start, found.window_end

    async def settled(self, order_id: str, timeout: timedelta) -> None:
        """Wait until the order has ended, at most for *timeout*."""
        await self._dispatcher.settled(JobKind.FULFIL, order_id, timeout)

    # ----------------------------------------------------------------------------- what is made

    async def _account(self) -> AccountRecord:
        """Return the account that own orders belong to, whose key nobody has."""
        account_id = _account_id(self._community)
        found = await self._accounts.find_account(account_id)
        if found is not None:
            return found
        key = jwk_from_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        account = AccountRecord(
            account_id=account_id,
            community=self._community,
            status=AccountStatus.VALID,
            jwk_json=key.canonical,
            thumbprint=key.thumbprint,
            contacts=(),
            terms_agreed=True,
            eab_key_id=None,
            created_at=self._clock.now(),
        )
        event = Event(
            kind=EventKind.ACCOUNT_CREATED,
            at=account.created_at,
            community=self._community,
            account_id=account_id,
            data={"for": "the broker's own TLS certificate"},
        )
        return await self._accounts.create_account(account, event, eab_key_id=None)

    def _plan(self, document: PolicyDocument, facts: NewOrderFacts) -> tuple[str, CapPlan]:
        """Return the first profile that leads to this upstream, with the plan for its cap.

        Raises:
            Broken: None does; says why.
        """
        why = []
        default = document.default_profile
        for name in sorted(document.profiles, key=lambda one: (one != default, one)):
            profile = document.profiles[name]
            if all(choice.upstream != self._upstream for choice in profile.choices):
                continue
            ruling = rule_cap(document, profile, facts.identifiers)
            for judged in judge_choices(document, profile, facts, ruling):
                if judged.choice.upstream != self._upstream:
                    continue
                if judged.plan is not None:
                    return name, judged.plan
                why.append(judged.sentence)
        reason = "; ".join(why) or "no profile of its community names that upstream"
        raise Broken(f"own certificate cannot be ordered from '{self._upstream}': {reason}")

    def _order(
        self, account: AccountRecord, document: PolicyDocument, profile: str, plan: CapPlan
    ) -> OrderRecord:
        now = self._clock.now()
        decision = NewOrderDecision(
            findings=(),
            checks=(),
            policy_sha256=document.policy_sha256,
            document_sha256=document.sha256,
            profile=profile,
        )
        order = OrderRecord(
            order_id=new_id(),
            account_id=account.account_id,
            community=self._community,
            status=OrderStatus.PENDING,
            identifiers=self._names,
            authorization_ids=(),
            profile=profile,
            is_profile_asked=False,
            not_before=None,
            not_after=None,
            created_at=now,
            expires_at=now + LIFETIME,
            decision=decision_facts(decision, plan, now),
            upstream=plan.upstream,
            upstream_profile=plan.upstream_profile,
            cap_seconds=int(plan.cap.total_seconds()),
            ask_not_after=plan.ask_not_after,
        )
        return replace(order, status=advance_order(order.status, OrderEvent.AUTHORIZED))

    def _claim(self, order: OrderRecord, plan: CapPlan, csr_der: bytes) -> FinalizeClaim:
        now = self._clock.now()
        work = self._planner.plan_work(order, plan, taken_by=order.order_id)
        event = self._event(EventKind.ORDER_FINALIZED, order)
        job = Job(kind=JobKind.FULFIL, subject=order.order_id, due_at=now)
        return FinalizeClaim(
            order_id=order.order_id,
            expected=order.status,
            status=advance_order(order.status, OrderEvent.FINALIZE_ACCEPTED),
            csr_der=csr_der,
            csr_sha256=hashlib.sha256(csr_der).hexdigest(),
            at=now,
            decision=dict(order.decision),
            upstream=order.upstream,
            upstream_profile=order.upstream_profile,
            cap_seconds=order.cap_seconds,
            ask_not_after=order.ask_not_after,
            work_key=work.work.work_key,
            work_since=work.since,
            new_work=work.work,
            attached=Attached(events=(event,), jobs=(job,)),
            spki_sha256=parse_csr(csr_der).spki_sha256,
        )

    def _event(self, kind: EventKind, order: OrderRecord) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data={
                "identifiers": [str(one) for one in self._names],
                "for": "the broker's own TLS certificate",
            },
        )

    # ---------------------------------------------------------------------------- what became

    async def _shown(self, newest: list[OrderRecord]) -> OwnOrder:
        order = newest[0]
        chain = None
        if order.certificate_id is not None:
            found = await self._certificates.find_certificate(order.certificate_id)
            chain = found.chain_pem if found is not None and found.is_released else None
        refusal, retry_at = None, None
        if order.status is OrderStatus.INVALID:
            refusal = str((order.error or {}).get("detail", "without a reason"))
            count = next(
                (at for at, one in enumerate(newest) if one.status is not OrderStatus.INVALID),
                len(newest),
            )
            pause = min(FIRST_PAUSE * 2 ** (count - 1), LONGEST_PAUSE)
            retry_at = order.created_at + pause
        csr = None if order.csr_der is None else parse_csr(order.csr_der)
        return OwnOrder(
            order_id=order.order_id,
            spki_sha256=csr.spki_sha256 if csr is not None else "",
            certificate_id=order.certificate_id,
            chain_pem=chain,
            refusal=refusal,
            retry_at=retry_at,
        )


def _account_id(community: str) -> str:
    """Return the id of the account of own orders: the same at every start, and like any other."""
    return hashlib.sha256(f"the broker itself|{community}".encode()).hexdigest()[:32]
