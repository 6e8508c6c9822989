"""How an order meets the gate: at newOrder, at finalize, and before a node is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from broker.issuance.approval_gate import ApprovalGate, approvals_of_order
from broker.issuance.planning import Planner
from broker.issuance.records import AccountRecord, OrderRecord
from broker.policy.decisions import NewOrderDecision, NewOrderFacts
from broker.protocol.problems import Problem, ProblemType

__all__ = ["passed", "resting_on", "still_passed"]


def resting_on(decision: Mapping[str, object], approvals: Sequence[str]) -> dict[str, object]:
    """Return the facts of a decision with the approvals that the order rests on."""
    return {**decision, "approvals": list(approvals)} if approvals else dict(decision)


async def passed(
    gate: ApprovalGate | None,
    account: AccountRecord,
    decision: NewOrderDecision,
    facts: NewOrderFacts,
    planner: Planner,
) -> tuple[str, ...]:
    """Return what `ApprovalGate.require` does; where nobody could approve, nothing passes."""
    if gate is None:
        if decision.approval is None:
            return ()
        raise Problem(
            ProblemType.UNAUTHORIZED, "policy wants an approval, and nobody can give one here"
        )
    unexempted = None
    if decision.approval is None and facts.is_unchanged_renewal:
        unexempted = planner.decide(replace(facts, is_unchanged_renewal=False))
    return await gate.require(account, decision, facts.requester, unexempted=unexempted)


async def still_passed(
    gate: ApprovalGate | None,
    order: OrderRecord,
    account: AccountRecord,
    decision: NewOrderDecision,
    facts: NewOrderFacts,
    *,
    planner: Planner,
) -> tuple[str, ...]:
    """Return what an order rests on at its finalize: what it was made under, and what policy
    wants by now.  Raises Problem where one of these does not stand."""
    if gate is not None:
        await gate.stand(order)
    now = await passed(gate, account, decision, facts, planner)
    return tuple(dict.fromkeys((*approvals_of_order(order), *now)))
