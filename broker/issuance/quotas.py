"""Which tokens an order takes: those of the CA's limits, and those of policy's quotas.

They are taken in the transaction that keeps the order.  Where one bucket has too few, no order is
made and nothing is taken: the client is told how long to wait (RFC 8555 §6.6).  An order that goes
to another CA takes there what counts by CA, in the transaction that moves it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.issuance.errors import OverLimit
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock, EventLog, PublicSuffixes
from broker.issuance.quota_ports import BucketKind, BucketStore, GivesBack, Take, Taking
from broker.issuance.records import AccountRecord, OrderRecord
from broker.issuance.renewal_budget import Judged, RenewalBudget, names_key
from broker.issuance.requesting import decided_requester
from broker.policy.decisions import QuotaDemand, QuotaPer
from broker.policy.domains import registered_domains
from broker.policy.units import Rate, format_duration, format_rate
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Quotas", "limited", "with_upstream", "workload_of"]

SHORTEST_WAIT: Final = timedelta(seconds=1)
"""Shortest wait that is named to a client: Retry-After has whole seconds."""


class Quotas:
    """Says what an order takes, and what a client is told that comes too often."""

    def __init__(
        self,
        *,
        store: BucketStore,
        budget: RenewalBudget,
        suffixes: PublicSuffixes,
        log: EventLog,
        clock: Clock,
    ) -> None:
        self._store = store
        self._budget = budget
        self._suffixes = suffixes
        self._log = log
        self._clock = clock

    async def taking(
        self,
        account: AccountRecord,
        order: OrderRecord,
        demands: tuple[QuotaDemand, ...] = (),
    ) -> Taking:
        """Return what *order* takes when it is made."""
        takes = await self._budget.takes(order)
        takes += await self._of_policy(account, order, demands)
        return Taking(order_id=order.order_id, at=self._clock.now(), takes=takes)

    async def moved(
        self,
        account: AccountRecord,
        order: OrderRecord,
        demands: tuple[QuotaDemand, ...],
        *,
        is_heard_of: bool = False,
    ) -> Taking:
        """Return what *order* takes instead when it goes to another CA than it was made for.

        That is all of the CA's own limits, and those quotas of policy that count by CA.  What
        counts the asking was taken when it was made.  *is_heard_of* tells whether the CA that it
        leaves may have been asked ahead of its finalize.
        """
        made = await self.taking(account, order, demands)
        by_ca = tuple(one for one in made.takes if one.gives_back is not GivesBack.NEVER)
        return replace(made, takes=by_ca, is_instead=True, is_heard_of=is_heard_of)

    async def _of_policy(
        self, account: AccountRecord, order: OrderRecord, demands: tuple[QuotaDemand, ...]
    ) -> tuple[Take, ...]:
        takes: list[Take] = []
        judged = Judged(self._store, order)
        names = _counted_under(demands)
        for demand, name in zip(demands, names, strict=True):
            if demand.upstreams is not None and order.upstream not in demand.upstreams:
                continue
            rate = Rate(demand.limit, demand.window)
            floor = demand.limit * demand.kept_for_renewals
            if floor and await judged.is_renewal():
                floor = 0.0
            takes += [
                Take(
                    bucket="|".join(
                        (BucketKind.POLICY, order.community, name, demand.per, subject)
                    ),
                    kind=BucketKind.POLICY,
                    rate=rate,
                    floor=floor,
                    gives_back=GivesBack.MOVED if _is_by_ca(demand) else GivesBack.NEVER,
                    is_enforced=demand.is_enforced,
                    told=None if demand.is_enforced else self._told(order, demand),
                )
                for subject in self._subjects(account, order, demand)
            ]
        return tuple(takes)

    async def refusal(
        self,
        account: AccountRecord,
        order: OrderRecord,
        over: OverLimit,
        *,
        is_kept: bool = False,
    ) -> Problem:
        """Keep that *account* came too often, and return what it is told; *is_kept* tells whether
        there is such an order."""
        problem = limited(over)
        event = Event(
            kind=EventKind.QUOTA_EXCEEDED,
            at=self._clock.now(),
            actor=Actor(f"account:{account.account_id}"),
            community=account.community,
            account_id=account.account_id,
            order_id=order.order_id if is_kept else None,
            upstream=order.upstream,
            data={
                "bucket": over.bucket,
                "identifiers": [str(one) for one in order.identifiers],
                "sentence": problem.detail,
                "policy_sha256": order.decision.get("policy_sha256"),
            },
        )
        await self._log.append(event, durable=False)
        return problem

    def _subjects(
        self, account: AccountRecord, order: OrderRecord, demand: QuotaDemand
    ) -> tuple[str, ...]:
        identifiers = demand.identifiers or order.identifiers
        if demand.per is QuotaPer.REQUESTER:
            return (account.account_id,)
        if demand.per is QuotaPer.EAB:
            # Who has no binding key counts alone, so that a quota cannot be left by having none.
            return (account.eab_key_id or f"account {account.account_id}",)
        if demand.per is QuotaPer.NAMES:
            return (names_key(order.identifiers),)
        if demand.per is QuotaPer.DOMAIN:
            return registered_domains(identifiers, self._suffixes.is_public_suffix)
        if demand.per is QuotaPer.WORKLOAD:
            return (workload_of(order) or f"account {account.account_id}",)
        if demand.per is QuotaPer.UPSTREAM:
            return (order.upstream,)
        return (order.community,)

    def _told(self, order: OrderRecord, demand: QuotaDemand) -> Event:
        """Return what is kept where a quota that is not enforced yet is passed."""
        return Event(
            kind=EventKind.QUOTA_EXCEEDED,
            at=self._clock.now(),
            actor=Actor(f"account:{order.account_id}"),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data={
                "rule": f"{demand.rule.source}:{demand.rule.line} {demand.name}",
                "per": str(demand.per),
                "limit": format_rate(Rate(demand.limit, demand.window)),
                "enforced": False,
                "policy_sha256": order.decision.get("policy_sha256"),
            },
        )


def _is_by_ca(demand: QuotaDemand) -> bool:
    """Return whether it matters to *demand* which CA an order goes to."""
    return demand.upstreams is not None or demand.per is QuotaPer.UPSTREAM


def workload_of(order: OrderRecord) -> str | None:
    """Return the service account of a cluster that *order* is for, None where it is for none."""
    who = decided_requester(order.decision)
    if who.cluster is None or who.namespace is None or who.service_account is None:
        return None
    return f"{who.cluster}/{who.namespace}/{who.service_account}"


def _counted_under(demands: Sequence[QuotaDemand]) -> Sequence[str]:
    """Return the name that each is counted under: its rule's, with ``#2`` and so on where a rule
    counts by the same thing again, so that two rates never share a bucket."""
    seen: Counter[tuple[str, QuotaPer]] = Counter()
    names = []
    for demand in demands:
        seen[demand.name, demand.per] += 1
        number = seen[demand.name, demand.per]
        names.append(demand.name if number == 1 else f"{demand.name}#{number}")
    return names


def limited(over: OverLimit) -> Problem:
    """Return what a client is told that was stopped by *over*."""
    kind, owner, *rest = over.bucket.split("|")
    what = "what is left is kept for renewals" if over.floor else "none is left"
    wait = max(over.wait, SHORTEST_WAIT)
    again = format_duration(timedelta(seconds=round(wait.total_seconds())))
    if kind == BucketKind.CA:
        per, subject = rest[0], rest[-1]
        about = {
            "names": " for exactly these names",
            "domain": f" below '{subject}'",
        }.get(per, "")
        whose = f"orders for upstream '{owner}'{about}"
    else:
        rule, per, subject = rest[0].partition("#")[0], rest[1], rest[-1]
        about = f" below '{subject}'" if per == QuotaPer.DOMAIN else ""
        whose = f"orders under rule '{rule}'{about}"
    return Problem(
        ProblemType.RATE_LIMITED,
        f"{whose} are limited to {over.limit} and {what}, try again in {again}",
        retry_after=wait,
    )


def with_upstream(order: OrderRecord, upstream: str, profile: str | None) -> OrderRecord:
    """Return *order* as it would be at another CA, which is told of no predecessor."""
    return replace(
        order,
        upstream=upstream,
        upstream_profile=profile,
        replaces_upstream=order.replaces_upstream if upstream == order.upstream else None,
    )
