"""The stricter of two versions of policy: that of newOrder, and that of now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.issuance.planning import decided_retirement, decided_rule
from broker.issuance.records import OrderRecord
from broker.policy.chains import explain_name
from broker.policy.decisions import CapPlan, Lever, NewOrderFacts
from broker.policy.document import PolicyDocument
from broker.policy.validity import Obstacle

__all__ = ["is_open", "stricter"]

_OF_LENGTH: Final = frozenset({None, Obstacle.CAP, Obstacle.NOT_AFTER})
"""What a looser cap than the order's may have against a CA that holds the order's."""


def stricter(order: OrderRecord, plan: CapPlan) -> CapPlan:
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


def is_open(order: OrderRecord, facts: NewOrderFacts, document: PolicyDocument) -> bool:
    """Return whether nothing but lengths speaks against the CA that *order* was made for."""
    chosen = order.upstream, order.upstream_profile
    return any(
        (one.choice.upstream, one.choice.upstream_profile) == chosen and one.obstacle in _OF_LENGTH
        for one in explain_name(document, facts).choices
    )
