"""From a request to a decision and an intent: gathers the facts, asks policy, plans the work.

Nothing is written here; ``orders`` and ``authorizations`` put the plan into a transaction.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.accounts import new_id
from broker.issuance.enrollment import Enrollment
from broker.issuance.ports import (
    Attached,
    Clock,
    Policies,
    PublicSuffixes,
    Upstreams,
    UpstreamStore,
)
from broker.issuance.records import (
    AccountRecord,
    Job,
    JobKind,
    OrderRecord,
    WorkRecord,
    WorkStatus,
)
from broker.policy.chains import decide_new_order
from broker.policy.decisions import (
    CapPlan,
    NewOrderDecision,
    NewOrderFacts,
    Retirement,
    RuleRef,
)
from broker.policy.units import format_duration
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["Planner", "WorkPlan", "decided_retirement", "decided_rule", "decision_facts"]

STALE_SHARE: Final = 10
"""Work that was prepared longer ago than a tenth of the cap is not taken: it asked the CA for an
end that was counted from then, and its taker would lose that much lifetime."""


_CAP_RULE: Final = re.compile(r"(.+):([0-9]+) (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPlan:
    """The upstream half of an order, ready to be written."""

    work: WorkRecord
    since: datetime | None
    is_prepared: bool
    """Whether to open it ahead of finalize."""

    def attached(self) -> Attached:
        """Return what rides in the transaction that makes the order ready."""
        if not self.is_prepared:
            return Attached()
        return Attached(work=self.work, jobs=(self.job(),))

    def job(self) -> Job:
        """Return the job that opens the work."""
        return Job(kind=JobKind.PREPARE, subject=self.work.work_id, due_at=self.work.created_at)


class Planner:
    """Gathers facts for policy and turns its decision into records."""

    def __init__(
        self,
        *,
        policies: Policies,
        enrollment: Enrollment,
        upstreams: Upstreams,
        upstream_store: UpstreamStore,
        suffixes: PublicSuffixes,
        clock: Clock,
    ) -> None:
        self._policies = policies
        self._enrollment = enrollment
        self._upstreams = upstreams
        self._upstream_store = upstream_store
        self._suffixes = suffixes
        self._clock = clock

    async def facts(
        self,
        account: AccountRecord,
        *,
        identifiers: tuple[Identifier, ...],
        profile: str | None,
        not_before: datetime | None,
        not_after: datetime | None,
    ) -> NewOrderFacts:
        """Return all that a newOrder decision may look at, as of now."""
        suspended = await self._upstream_store.suspensions()
        return NewOrderFacts(
            community=account.community,
            identifiers=identifiers,
            profile=profile,
            not_before=not_before,
            not_after=not_after,
            at=self._clock.now(),
            account_thumbprint=account.thumbprint,
            eab=await self._enrollment.grant(account),
            public_suffixes=self._public_suffixes(identifiers),
            upstreams=tuple(self._upstreams.facts(account.community)),
            suspended=frozenset((pair.upstream, pair.upstream_profile) for pair in suspended),
        )

    def awaiting(self, facts: NewOrderFacts, upstream: str) -> NewOrderFacts:
        """Return *facts* with *upstream* among those that are ready, if its account is lost: an
        order that was made for it can wait until that is recovered."""
        found = self._upstreams.waiting(upstream, facts.community)
        return facts if found is None else replace(facts, upstreams=(*facts.upstreams, found))

    def decide(self, facts: NewOrderFacts) -> NewOrderDecision:
        """Return what the community's policy in force says."""
        return decide_new_order(self._policies.current(facts.community), facts)

    def is_begun_early(self, order: OrderRecord) -> bool:
        """Return whether there is a CA elsewhere to be asked before finalize."""
        return not self._upstreams.get(order.upstream, order.community).is_local

    def plan_work(
        self, order: OrderRecord, plan: CapPlan, *, taken_by: str | None = None
    ) -> WorkPlan:
        """Return the upstream work for *order* under *plan*, as an intent."""
        now = self._clock.now()
        not_after = order.not_after
        if plan.ask_not_after and not_after is None:
            not_after = now + plan.cap
        is_local = self._upstreams.get(plan.upstream, order.community).is_local
        work = WorkRecord(
            work_id=new_id(),
            upstream=plan.upstream,
            community=order.community,
            work_key=_work_key(order, plan),
            identifiers=tuple(sorted(order.identifiers)),
            upstream_profile=plan.upstream_profile,
            not_after=not_after if plan.ask_not_after else None,
            status=WorkStatus.INTENDED,
            order_url=None,
            taken_by=taken_by,
            is_sent=False,
            created_at=now,
            replaces=_told_replaces(order, plan),
        )
        loses_by_age = plan.ask_not_after and order.not_after is None
        since = now - plan.cap / STALE_SHARE if loses_by_age else None
        return WorkPlan(work=work, since=since, is_prepared=not is_local)

    def _public_suffixes(self, identifiers: Sequence[Identifier]) -> frozenset[str]:
        names = {one.base.value for one in identifiers if one.type is IdentifierType.DNS}
        return frozenset(name for name in names if self._suffixes.is_public_suffix(name))


def _told_replaces(order: OrderRecord, plan: CapPlan) -> str | None:
    """Return the predecessor that the CA is told of: one that our account there ordered."""
    return order.replaces if order.replaces_upstream == plan.upstream else None


def _work_key(order: OrderRecord, plan: CapPlan) -> str:
    """Return what untaken work is shared by: upstream account, names, profile, end and what the
    CA is told it replaces.

    An end that the client named is absolute; one that follows from the cap is named by the cap.
    """
    if not plan.ask_not_after:
        end = "none"
    elif order.not_after is not None:
        end = f"at {order.not_after.isoformat()}"
    else:
        end = f"cap {plan.cap.total_seconds():.0f}"
    parts = [
        plan.upstream,
        order.community,
        plan.upstream_profile or "",
        end,
        _told_replaces(order, plan) or "",
        *sorted(f"{one.type}:{one.value}" for one in order.identifiers),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def decision_facts(decision: NewOrderDecision, plan: CapPlan, at: datetime) -> dict[str, object]:
    """Return the facts of a decision as the order keeps them."""
    return {
        "at": at.isoformat(),
        "policy_sha256": decision.policy_sha256,
        "checks": list(decision.checks),
        "profile": decision.profile,
        "lever": str(plan.lever),
        **_length_facts(plan),
        "cap_rule": f"{plan.rule.source}:{plan.rule.line} {plan.rule.path}",
        "upstream": plan.upstream,
        "upstream_profile": plan.upstream_profile,
        "tolerance_seconds": int(plan.tolerance.total_seconds()),
        "granted": {
            str(identifier): f"{need.granted_by.source}:{need.granted_by.line}"
            for identifier, need in decision.requirements.items()
            if need.granted_by is not None
        },
    }


def _length_facts(plan: CapPlan) -> dict[str, object]:
    """Return the cap, or what stands in its place where none is held."""
    if plan.retirement is None:
        return {"cap": format_duration(plan.cap)}
    return {
        "retires_after": format_duration(plan.cap),
        "retirement": {
            "longest_seconds": int(plan.retirement.longest.total_seconds()),
            "grace_seconds": int(plan.retirement.grace.total_seconds()),
            "revokes_unreplaced": plan.retirement.revokes_unreplaced,
        },
    }


def decided_retirement(decision: Mapping[str, object]) -> Retirement | None:
    """Return how the certificate is to be retired, from the facts that `decision_facts` made."""
    found = decision.get("retirement")
    if not isinstance(found, Mapping):
        return None
    return Retirement(
        longest=timedelta(seconds=int(found["longest_seconds"])),
        grace=timedelta(seconds=int(found["grace_seconds"])),
        revokes_unreplaced=bool(found["revokes_unreplaced"]),
    )


def decided_rule(decision: Mapping[str, object]) -> RuleRef | None:
    """Return the rule that set the cap, from the facts that `decision_facts` made."""
    found = _CAP_RULE.fullmatch(str(decision.get("cap_rule", "")))
    if found is None:
        return None
    source, line, path = found.groups()
    return RuleRef(source, int(line), path)
