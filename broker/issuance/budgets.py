"""What is left of the limits that an order would take from; nothing is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from broker.issuance.errors import OverLimit
from broker.issuance.planning import decision_facts
from broker.issuance.ports import Clock
from broker.issuance.quota_ports import BucketStore, Take
from broker.issuance.quotas import Quotas, limited
from broker.issuance.records import AccountRecord, OrderRecord
from broker.issuance.renewal_budget import bucket_as_of
from broker.policy.buckets import ROUNDING, Bucket
from broker.policy.decisions import CapPlan, NewOrderDecision, NewOrderFacts, QuotaDemand
from broker.policy.units import format_rate
from broker.protocol.resources import OrderStatus

__all__ = ["Budget", "Limits", "order_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What is left of one limit that its order would take from."""

    upstream: str
    quota: str
    limit: str
    used: int
    would_exceed: bool
    detail: str = ""
    """What its client would be told; empty where there is room."""


class Limits:
    """Looks at limits of CAs and quotas of policy."""

    def __init__(self, quotas: Quotas, buckets: BucketStore, clock: Clock) -> None:
        self._quotas = quotas
        self._buckets = buckets
        self._clock = clock

    async def look(
        self, asker: AccountRecord, order: OrderRecord, demands: tuple[QuotaDemand, ...]
    ) -> tuple[Sequence[Budget], OverLimit | None]:
        """Return what is left of everything that *order* would take from, and what stops it."""
        taking = await self._quotas.taking(asker, order, demands)
        budgets: list[Budget] = []
        short: list[OverLimit] = []
        for take in taking.takes:
            bucket = await self._bucket(take)
            over = None
            if not bucket.is_enough(1, floor=take.floor):
                over = OverLimit(
                    f"bucket '{take.bucket}' has {bucket.level:.1f} tokens",
                    bucket=take.bucket,
                    limit=format_rate(take.rate),
                    wait=bucket.wait_for(take.floor + 1),
                    floor=take.floor,
                )
                short += (over,) if take.is_enforced else ()
            budgets.append(
                Budget(
                    upstream=order.upstream,
                    quota=take.bucket.replace("|", " "),
                    limit=format_rate(take.rate),
                    used=math.ceil(take.rate.count - bucket.level - ROUNDING),
                    would_exceed=over is not None,
                    detail="" if over is None else limited(over).detail,
                )
            )
        return budgets, max(short, key=lambda one: one.wait, default=None)

    async def _bucket(self, take: Take) -> Bucket:
        now = self._clock.now()
        kept = await self._buckets.read_bucket(take.bucket)
        if kept is not None:
            return bucket_as_of(kept, now).resized(take.rate)
        full = Bucket.full(take.rate, now)
        return full if take.at_first is None else full.without(take.rate.count - take.at_first)


def order_of(
    asker: AccountRecord, facts: NewOrderFacts, decision: NewOrderDecision, plan: CapPlan
) -> OrderRecord:
    """Return the order that the pod would make; it is in no store."""
    return OrderRecord(
        order_id="nobody",
        account_id=asker.account_id,
        community=asker.community,
        status=OrderStatus.PENDING,
        identifiers=facts.identifiers,
        authorization_ids=(),
        profile=decision.profile or "",
        is_profile_asked=facts.profile is not None,
        not_before=None,
        not_after=None,
        created_at=facts.at,
        expires_at=facts.at,
        decision=decision_facts(decision, plan, facts.at, facts),
        upstream=plan.upstream,
        upstream_profile=plan.upstream_profile,
        cap_seconds=int(plan.cap.total_seconds()),
        ask_not_after=plan.ask_not_after,
    )
