"""How an order meets the gate: at newOrder, at finalize, and before a node is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_resting import Resting, approvals_of_order
from broker.issuance.planning import Planner
from broker.issuance.records import AccountRecord, OrderRecord
from broker.policy.decisions import NewOrderDecision, NewOrderFacts
from broker.protocol.problems import Problem, ProblemType

__all__ = ["passed", "still_passed"]


async def passed(
    gate: ApprovalGate | None,
    account: AccountRecord,
    decision: NewOrderDecision,
    facts: NewOrderFacts,
    planner: Planner,
) -> Resting:
    """Return what `ApprovalGate.require` does; where nobody could approve, nothing passes."""
    if gate is None:
        if decision.approval is None:
            return Resting()
        raise Problem(
            ProblemType.UNAUTHORIZED, "policy wants an approval, and nobody can give one here"
        )
    if not facts.is_unchanged_renewal:
        return await gate.require(account, decision, facts.requester)
    # Also where a rule wants people: another one may exempt renewals of the other names.
    unexempted = planner.decide(replace(facts, is_unchanged_renewal=False))
    line: Sequence[str] = await planner.approvals_behind(account, facts)
    return await gate.require(account, decision, facts.requester, unexempted=unexempted, line=line)


async def still_passed(
    gate: ApprovalGate | None,
    order: OrderRecord,
    account: AccountRecord,
    decision: NewOrderDecision,
    facts: NewOrderFacts,
    *,
    planner: Planner,
) -> Resting:
    """Return what an order rests on at its finalize: what it was made under, and what policy
    wants by now.  Raises Problem where one of these does not stand."""
    if gate is not None:
        await gate.stand(order)
    now = await passed(gate, account, decision, facts, planner)
    return now.beside(approvals_of_order(order))
