"""What rules that only warn would have done, told as an event beside the order that passed.

Whoever turns a rule from ``warn`` to ``enforce`` looks here first whom that would refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import OrderRecord
from broker.policy.decisions import Finding

__all__ = ["warning_events"]

MAX_TOLD: Final = 20
"""Most warnings of one order that are told; the rest is only counted."""


def warning_events(
    order: OrderRecord,
    warnings: Sequence[Finding],
    *,
    resource: str,
    policy_sha256: str,
    at: datetime,
) -> tuple[Event, ...]:
    """Return the event of *warnings*, none where there are none."""
    if not warnings:
        return ()
    left_out = len(warnings) - MAX_TOLD
    return (
        Event(
            kind=EventKind.RULE_WARNED,
            at=at,
            actor=Actor(f"account:{order.account_id}"),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data={
                "resource": resource,
                "policy_sha256": policy_sha256,
                "warnings": [_told(found) for found in warnings[:MAX_TOLD]],
                **({"left_out": left_out} if left_out > 0 else {}),
            },
        ),
    )


def _told(found: Finding) -> dict[str, object]:
    rule = found.rule
    return {
        "check": found.check,
        "sentence": found.sentence,
        "identifier": None if found.identifier is None else str(found.identifier),
        "rule": None if rule is None else f"{rule.source}:{rule.line} {rule.path}",
    }
