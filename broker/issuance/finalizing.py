"""Finalize up to the claim: the CSR is read, policy is asked again, one caller wins.

Policy may have changed since newOrder, and the stricter of its two versions holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_passing import still_passed
from broker.issuance.approval_resting import Resting, resting_on
from broker.issuance.caa import CHECK as CAA_CHECK
from broker.issuance.caa import CaaAnswer, CaaWatch
from broker.issuance.errors import OverLimit
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.planning import (
    Planner,
    decided_words,
    decision_facts,
)
from broker.issuance.ports import (
    AccountStore,
    Attached,
    Clock,
    FinalizeClaim,
    KeyInspector,
    OrderStore,
    Policies,
)
from broker.issuance.quota_ports import Taking
from broker.issuance.quotas import Quotas, limited, with_upstream
from broker.issuance.records import AccountRecord, Job, JobKind, OrderRecord
from broker.issuance.refusals import Refusals
from broker.issuance.rule_warnings import warning_events
from broker.issuance.stricter import is_open, stricter
from broker.issuance.witness import Witness
from broker.policy.chains import decide_finalize, warn_finalize
from broker.policy.decisions import (
    CapPlan,
    FinalizeFacts,
    NewOrderDecision,
    NewOrderFacts,
)
from broker.policy.document import PolicyDocument
from broker.protocol.csr import ParsedCsr, parse_csr, verify_csr_names
from broker.protocol.identifiers import Identifier
from broker.protocol.transitions import OrderEvent, advance_order

__all__ = ["Finalizing"]

RESOURCE: Final = "finalize"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A finalize that may pass, whichever CA it goes to."""

    account: AccountRecord
    order: OrderRecord
    csr_der: bytes
    spki_sha256: str
    facts: NewOrderFacts
    document: PolicyDocument
    approvals: Resting
    told: Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The CA that an order goes to, and what was decided about that."""

    decision: NewOrderDecision
    plan: CapPlan
    caa: CaaAnswer


class Finalizing:
    """Judges a finalize and claims the order for it."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        accounts: AccountStore,
        refusals: Refusals,
        planner: Planner,
        policies: Policies,
        inspector: KeyInspector,
        clock: Clock,
        caa: CaaWatch | None = None,
        approvals: ApprovalGate | None = None,
        quotas: Quotas | None = None,
        freezes: Freezes | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._witness = witness
        self._freezes = freezes
        self._orders = orders
        self._quotas = quotas
        self._approvals = approvals
        self._accounts = accounts
        self._refusals = refusals
        self._planner = planner
        self._policies = policies
        self._inspector = inspector
        self._clock = clock
        self._caa = caa

    async def claim(
        self,
        account: AccountRecord,
        order: OrderRecord,
        csr_der: bytes,
        origin: Origin = NOWHERE,
    ) -> tuple[OrderRecord, Job]:
        """Return the order as claimed for this CSR, with the job that is to be run for it.

        Raises:
            Problem: The CSR or the order is refused, or its own CA is closed to it and the limits
                of the next leave no room; the order stays READY.
            Conflict: The order is READY no more: read it again.
        """
        csr = verify_csr_names(parse_csr(csr_der), order.identifiers)
        await verify_unfrozen(self._freezes, account, RESOURCE, order_id=order.order_id)
        facts = await self._planner.facts(
            account,
            identifiers=order.identifiers,
            profile=order.profile,
            not_before=order.not_before,
            not_after=order.not_after,
            origin=origin,
        )
        facts = self._planner.settled(facts, order)
        # One version is asked to the end, whatever comes into force meanwhile.
        document = self._policies.current(order.community)
        decision, plan = await self._stricter(account, order, facts, document)
        approvals = await still_passed(
            self._approvals, order, account, decision, facts, planner=self._planner
        )
        told = await self._refuse_findings(account, order, csr, facts, document)
        asked = _Asked(
            account=account,
            order=order,
            csr_der=csr_der,
            spki_sha256=csr.spki_sha256,
            facts=facts,
            document=document,
            approvals=approvals,
            told=told,
        )
        place = _Place(
            decision=decision,
            plan=plan,
            caa=await self._look_at_caa(account, order, plan, document),
        )
        try:
            return await self._claim_for(asked, place)
        except OverLimit as over:
            return await self._claim_for(asked, await self._own_place(asked, plan, over))

    async def _stricter(
        self,
        account: AccountRecord,
        order: OrderRecord,
        facts: NewOrderFacts,
        document: PolicyDocument,
    ) -> tuple[NewOrderDecision, CapPlan]:
        """Return what policy says now, and the plan that holds the tighter cap of now and then."""
        decision, plan = self._held(order, facts, document)
        if plan is None:
            await self._refuse(account, order, decision)
            raise decision.problem()
        return decision, plan

    def _held(
        self, order: OrderRecord, facts: NewOrderFacts, document: PolicyDocument
    ) -> tuple[NewOrderDecision, CapPlan | None]:
        """Return the same, with no plan where it is refused."""
        decision = self._planner.decide(facts, document)
        if decision.is_refused:
            # Its names are proved and its CA's account is being recovered: it waits for that.
            facts = self._planner.awaiting(facts, order.upstream)
            decision = self._planner.decide(facts, document)
        plan = decision.plan
        if decision.is_refused or plan is None:
            return decision, None
        kept = stricter(order, plan)
        is_same = (kept.upstream, kept.upstream_profile) == (plan.upstream, plan.upstream_profile)
        if is_same or is_open(order, facts, document):
            return decision, kept
        # The CA that it was made for is closed to it: another has to hold the cap of then.
        tighter = replace(document, cap=kept.cap, cap_rule=kept.rule)
        decision = self._planner.decide(facts, tighter)
        return decision, None if decision.is_refused else decision.plan

    async def _claim_for(self, asked: _Asked, place: _Place) -> tuple[OrderRecord, Job]:
        """Claim the order for the CA of *place*; raises OverLimit where that leaves no room."""
        order, decision, plan = asked.order, place.decision, place.plan
        claim = self._make_claim(order, asked.csr_der, decision, plan, asked.facts)
        claim = replace(claim, decision=resting_on(claim.decision, asked.approvals))
        taking = await self._retaken(asked.account, order, plan, decision)
        attached = _with(replace(claim.attached, taking=taking), place.caa, asked.told)
        claim = replace(claim, spki_sha256=asked.spki_sha256, attached=attached)
        claimed, _ = await self._orders.claim_finalize(claim)
        if self._witness is not None:
            self._witness.saw_claim(claimed.order_id)
        if self._caa is not None:
            self._caa.begin(place.caa)
        return claimed, claim.attached.jobs[0]

    async def _own_place(self, asked: _Asked, left: CapPlan, over: OverLimit) -> _Place:
        """Return the CA that the order was made for, in place of one whose limits have no room.

        What that one counts was taken when the order was made.  It may be away: then the order
        waits for it, or is moved later, as every order that is finalized already.

        Raises:
            Problem: rateLimited, where its own CA is closed to it.
        """
        if self._quotas is None:  # nobody else has it take anything
            raise over
        account, order = asked.account, asked.order
        own = tuple(one for one in asked.facts.upstreams if one.name == order.upstream)
        facts = replace(asked.facts, upstreams=own)
        decision, plan = self._held(order, facts, asked.document)
        if plan is not None:
            answer = self._caa and await self._caa.answer(account, order, plan.upstream)
            caa = answer or CaaAnswer()
            if not caa.findings:
                passed_over = {left.upstream: limited(over).detail}
                decision = replace(decision, passed_over=passed_over)
                return _Place(decision=decision, plan=plan, caa=caa)
        there = with_upstream(order, left.upstream, left.upstream_profile)
        raise await self._quotas.refusal(account, there, over, is_kept=True) from over

    async def _retaken(
        self,
        account: AccountRecord,
        order: OrderRecord,
        plan: CapPlan,
        decision: NewOrderDecision,
    ) -> Taking | None:
        """Return what the order takes at another CA than it was made for, in place of what it took
        of that one's; None where it stays."""
        if self._quotas is None or plan.upstream == order.upstream:
            return None
        moved = with_upstream(order, plan.upstream, plan.upstream_profile)
        return await self._quotas.moved(account, moved, decision.quotas, is_heard_of=True)

    async def _look_at_caa(
        self, account: AccountRecord, order: OrderRecord, plan: CapPlan, document: PolicyDocument
    ) -> CaaAnswer:
        if self._caa is None:
            return CaaAnswer()
        answer = await self._caa.answer(account, order, plan.upstream)
        if answer.findings:
            refused = NewOrderDecision(
                findings=answer.findings,
                checks=(CAA_CHECK,),
                policy_sha256=document.policy_sha256,
            )
            await self._refuse(account, order, refused)
            raise refused.problem()
        return answer

    async def _refuse_findings(
        self,
        account: AccountRecord,
        order: OrderRecord,
        csr: ParsedCsr,
        asked: NewOrderFacts,
        document: PolicyDocument,
    ) -> Sequence[Event]:
        """Refuse what the CSR has wrong; return events about what rules only warn of."""
        is_account_key = csr.key_thumbprint is not None and await self._accounts.is_account_key(
            csr.key_thumbprint
        )
        facts = FinalizeFacts(
            identifiers=order.identifiers,
            profile=order.profile,
            csr=csr,
            is_account_key=is_account_key,
            weaknesses=tuple(await self._inspector.inspect(csr)),
            eab=asked.eab,
            at=self._clock.now(),
            granted=_granted(order),
            requester=asked.requester,
            is_unchanged_renewal=asked.is_unchanged_renewal,
            key_kinds=decided_words(order.decision, "key_kinds"),
            usages=decided_words(order.decision, "usages"),
        )
        findings = decide_finalize(document, facts)
        if findings:
            refused = NewOrderDecision(
                findings=findings,
                checks=tuple(found.check for found in findings),
                policy_sha256=document.policy_sha256,
            )
            await self._refuse(account, order, refused)
            raise refused.problem()
        return warning_events(
            order,
            warn_finalize(document, facts),
            resource=RESOURCE,
            policy_sha256=document.policy_sha256,
            at=facts.at,
        )

    async def _refuse(
        self, account: AccountRecord, order: OrderRecord, decision: NewOrderDecision
    ) -> None:
        await self._refusals.record(account, decision, resource=RESOURCE, order_id=order.order_id)

    def _make_claim(
        self,
        order: OrderRecord,
        csr_der: bytes,
        decision: NewOrderDecision,
        plan: CapPlan,
        facts: NewOrderFacts,
    ) -> FinalizeClaim:
        now = self._clock.now()
        csr_sha256 = hashlib.sha256(csr_der).hexdigest()
        work = self._planner.plan_work(order, plan, taken_by=order.order_id)
        job = Job(kind=JobKind.FULFIL, subject=order.order_id, due_at=now)
        decided = decision_facts(decision, plan, now, facts)
        event = _event(order, plan, csr_sha256, now)
        return FinalizeClaim(
            order_id=order.order_id,
            expected=order.status,
            status=advance_order(order.status, OrderEvent.FINALIZE_ACCEPTED),
            csr_der=csr_der,
            csr_sha256=csr_sha256,
            at=now,
            decision=decided,
            upstream=plan.upstream,
            upstream_profile=plan.upstream_profile,
            cap_seconds=int(plan.cap.total_seconds()),
            ask_not_after=plan.ask_not_after,
            work_key=work.work.work_key,
            work_since=work.since,
            new_work=work.work,
            attached=Attached(
                events=(replace(event, data={**event.data, "decision": decided}),), jobs=(job,)
            ),
        )


def _with(attached: Attached, caa: CaaAnswer, told: Sequence[Event]) -> Attached:
    events = (*attached.events, *caa.events, *told)
    return replace(attached, events=events, jobs=(*attached.jobs, *caa.jobs))


def _granted(order: OrderRecord) -> frozenset[Identifier]:
    """Return the identifiers that a trusted-requester rule gave at newOrder."""
    granted = order.decision.get("granted")
    names = granted if isinstance(granted, Mapping) else {}
    return frozenset(one for one in order.identifiers if str(one) in names)


def _event(order: OrderRecord, plan: CapPlan, csr_sha256: str, at: datetime) -> Event:
    return Event(
        kind=EventKind.ORDER_FINALIZED,
        at=at,
        actor=Actor(f"account:{order.account_id}"),
        community=order.community,
        account_id=order.account_id,
        order_id=order.order_id,
        upstream=plan.upstream,
        data={"identifiers": [str(one) for one in order.identifiers], "csr": csr_sha256},
    )
