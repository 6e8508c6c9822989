"""Finalize up to the claim: the CSR is read, policy is asked again, one caller wins.

Policy may have changed since newOrder, and the stricter of its two versions holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_passing import still_passed
from broker.issuance.approval_resting import resting_on
from broker.issuance.caa import CHECK as CAA_CHECK
from broker.issuance.caa import CaaAnswer, CaaWatch
from broker.issuance.errors import OverLimit
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.planning import (
    Planner,
    decided_retirement,
    decided_rule,
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
from broker.issuance.quotas import Quotas, with_upstream
from broker.issuance.records import AccountRecord, Job, JobKind, OrderRecord
from broker.issuance.refusals import Refusals
from broker.issuance.rule_warnings import warning_events
from broker.issuance.witness import Witness
from broker.policy.chains import decide_finalize, explain_name, warn_finalize
from broker.policy.decisions import (
    CapPlan,
    FinalizeFacts,
    Lever,
    NewOrderDecision,
    NewOrderFacts,
)
from broker.policy.document import PolicyDocument
from broker.policy.validity import Obstacle
from broker.protocol.csr import ParsedCsr, parse_csr, verify_csr_names
from broker.protocol.identifiers import Identifier
from broker.protocol.transitions import OrderEvent, advance_order

__all__ = ["Finalizing"]

RESOURCE: Final = "finalize"

_OF_LENGTH: Final = frozenset({None, Obstacle.CAP, Obstacle.NOT_AFTER})
"""What a looser cap than the order's may have against a CA that holds the order's."""


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
            Problem: The CSR or the order is refused, or it would go to another CA whose limits
                leave no room; the order stays READY.
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
        caa = await self._look_at_caa(account, order, plan, document)
        claim = self._make_claim(order, csr_der, decision, plan, facts)
        claim = replace(claim, decision=resting_on(claim.decision, approvals))
        taking = await self._retaken(account, order, plan, decision)
        attached = _with(replace(claim.attached, taking=taking), caa, told)
        claim = replace(claim, spki_sha256=csr.spki_sha256, attached=attached)
        claimed = await self._claimed(account, order, claim)
        if self._caa is not None:
            self._caa.begin(caa)
        return claimed, claim.attached.jobs[0]

    async def _stricter(
        self,
        account: AccountRecord,
        order: OrderRecord,
        facts: NewOrderFacts,
        document: PolicyDocument,
    ) -> tuple[NewOrderDecision, CapPlan]:
        """Return what policy says now, and the plan that holds the tighter cap of now and then."""
        decision = self._planner.decide(facts, document)
        if decision.is_refused:
            # Its names are proved and its CA's account is being recovered: it waits for that.
            facts = self._planner.awaiting(facts, order.upstream)
            decision = self._planner.decide(facts, document)
        plan = await self._planned(account, order, decision)
        kept = _stricter(order, plan)
        is_same = (kept.upstream, kept.upstream_profile) == (plan.upstream, plan.upstream_profile)
        if is_same or _is_open(order, facts, document):
            return decision, kept
        # The CA that it was made for is closed to it: another has to hold the cap of then.
        tighter = replace(document, cap=kept.cap, cap_rule=kept.rule)
        decision = self._planner.decide(facts, tighter)
        return decision, await self._planned(account, order, decision)

    async def _planned(
        self, account: AccountRecord, order: OrderRecord, decision: NewOrderDecision
    ) -> CapPlan:
        if decision.is_refused or decision.plan is None:
            await self._refuse(account, order, decision)
            raise decision.problem()
        return decision.plan

    async def _claimed(
        self, account: AccountRecord, order: OrderRecord, claim: FinalizeClaim
    ) -> OrderRecord:
        try:
            claimed, _ = await self._orders.claim_finalize(claim)
        except OverLimit as over:
            if self._quotas is None:  # nobody else has it take anything
                raise
            there = with_upstream(order, claim.upstream, claim.upstream_profile)
            raise await self._quotas.refusal(account, there, over, is_kept=True) from over
        if self._witness is not None:
            self._witness.saw_claim(claimed.order_id)
        return claimed

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
                policy_sha256=document.sha256,
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
                policy_sha256=document.sha256,
            )
            await self._refuse(account, order, refused)
            raise refused.problem()
        return warning_events(
            order,
            warn_finalize(document, facts),
            resource=RESOURCE,
            policy_sha256=document.sha256,
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


def _stricter(order: OrderRecord, plan: CapPlan) -> CapPlan:
    """Return *plan*, or the one that the order was made under where that holds a tighter cap.

    The cap never grows between newOrder and finalize.  What a looser cap would choose may well
    be too long for the tighter one, so the choice stays with the cap that it was made for.
    """
    if plan.cap.total_seconds() <= order.cap_seconds:
        return plan
    retirement = decided_retirement(order.decision)
    if retirement is not None and plan.retirement is None:
        # No cap was held before; the one that would be held now is the stricter of the two.
        return plan
    tolerance = order.decision.get("tolerance_seconds")
    return replace(
        plan,
        lever=Lever(str(order.decision.get("lever", plan.lever))),
        cap=timedelta(seconds=order.cap_seconds),
        rule=decided_rule(order.decision) or plan.rule,
        upstream=order.upstream,
        upstream_profile=order.upstream_profile,
        ask_not_after=order.ask_not_after,
        tolerance=timedelta(seconds=tolerance if isinstance(tolerance, int) else 0),
        retirement=retirement,
    )


def _is_open(order: OrderRecord, facts: NewOrderFacts, document: PolicyDocument) -> bool:
    """Return whether nothing but lengths speaks against the CA that *order* was made for."""
    chosen = order.upstream, order.upstream_profile
    return any(
        (one.choice.upstream, one.choice.upstream_profile) == chosen and one.obstacle in _OF_LENGTH
        for one in explain_name(document, facts).choices
    )


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
