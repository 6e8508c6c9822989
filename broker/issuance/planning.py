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
from broker.issuance.freezes import Freezes
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.ports import (
    Attached,
    Clock,
    Policies,
    PublicSuffixes,
    Upstreams,
    UpstreamStore,
)
from broker.issuance.quota_ports import YoungStore
from broker.issuance.records import (
    AccountRecord,
    Job,
    JobKind,
    OrderRecord,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.requesting import (
    EarlierCertificates,
    Predecessors,
    owner_of,
    requester_facts,
    requester_of,
)
from broker.issuance.standing import Standing, subject_of
from broker.policy.chains import decide_new_order
from broker.policy.decisions import (
    CapPlan,
    NewOrderDecision,
    NewOrderFacts,
    Retirement,
    RuleRef,
)
from broker.policy.document import PolicyDocument
from broker.policy.units import format_duration
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = [
    "Planner",
    "WorkPlan",
    "decided_retirement",
    "decided_rule",
    "decided_words",
    "decision_facts",
]

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
        standing: Standing | None = None,
        earlier: EarlierCertificates | None = None,
        freezes: Freezes | None = None,
        young: YoungStore | None = None,
    ) -> None:
        """Gather facts; without *earlier* nothing is a renewal of unchanged names."""
        self._young = young
        self._predecessors = Predecessors(earlier, policies, clock)
        self._freezes = freezes
        self._standing = standing
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
        origin: Origin = NOWHERE,
    ) -> NewOrderFacts:
        """Return all that a newOrder decision may look at, as of now.

        *origin* is where the request came from; of an order that is looked at again, where it
        came from then (``requesting.decided_origin``).
        """
        suspended = await self._upstream_store.suspensions()
        grant = await self._enrollment.grant(account)
        return NewOrderFacts(
            community=account.community,
            identifiers=identifiers,
            profile=profile,
            not_before=not_before,
            not_after=not_after,
            at=self._clock.now(),
            account_thumbprint=account.thumbprint,
            eab=grant,
            public_suffixes=self._public_suffixes(identifiers),
            upstreams=tuple(self._upstreams.facts(account.community)),
            suspended=frozenset((pair.upstream, pair.upstream_profile) for pair in suspended),
            away=await self._away(account.community, identifiers),
            frozen=await self._frozen(account.community),
            requester=requester_of(account, grant, origin, owner_of(account, grant)),
            is_unchanged_renewal=await self._predecessors.is_renewal(account, identifiers, profile),
        )

    async def approvals_behind(self, account: AccountRecord, facts: NewOrderFacts) -> Sequence[str]:
        """Return the approvals that what such an order renews rests on or goes back to."""
        return await self._predecessors.approvals(account, facts.identifiers, facts.profile)

    def awaiting(self, facts: NewOrderFacts, upstream: str) -> NewOrderFacts:
        """Return *facts* with *upstream* among those that are ready, if its account is lost: an
        order that was made for it can wait until that is recovered."""
        found = self._upstreams.waiting(upstream, facts.community)
        return facts if found is None else replace(facts, upstreams=(*facts.upstreams, found))

    def settled(self, facts: NewOrderFacts, order: OrderRecord) -> NewOrderFacts:
        """Return *facts* for an order that was made for a CA because others were away: it stays
        with that one, where work may have begun, though another is back."""
        passed_over = order.decision.get("passed_over")
        if not isinstance(passed_over, Mapping) or order.upstream in facts.away:
            return facts
        return replace(facts, away={**passed_over, **facts.away})

    def decide(
        self, facts: NewOrderFacts, document: PolicyDocument | None = None
    ) -> NewOrderDecision:
        """Return what the community's policy in force says, or *document* where it is given.

        Where some of its upstreams are away policy is asked without them first, so that every
        rule holds for the one that is taken instead.
        """
        document = document or self._policies.current(facts.community)
        decision = decide_new_order(document, facts)
        if decision.plan is None or decision.plan.upstream not in facts.away:
            return decision
        here = tuple(one for one in facts.upstreams if one.name not in facts.away)
        elsewhere = decide_new_order(document, replace(facts, upstreams=here))
        if elsewhere.is_refused:
            return decision
        return replace(elsewhere, passed_over=dict(facts.away))

    async def _frozen(self, community: str) -> Mapping[str, str]:
        return {} if self._freezes is None else await self._freezes.upstreams(community)

    async def _away(self, community: str, identifiers: Sequence[Identifier]) -> Mapping[str, str]:
        if self._standing is None:
            return {}
        return await self._standing.away(community, subject_of(identifiers))

    async def also_away(self, facts: NewOrderFacts, order_url: str) -> NewOrderFacts:
        """Return *facts* with the CAs away as well that limit us about their order at that URL."""
        if self._standing is None:
            return facts
        found = await self._standing.away(facts.community, order_url)
        return replace(facts, away={**found, **facts.away})

    def is_begun_early(self, order: OrderRecord) -> bool:
        """Return whether there is a CA elsewhere to be asked before finalize."""
        return not self._upstreams.get(order.upstream, order.community).is_local

    async def plan_early(self, order: OrderRecord, plan: CapPlan) -> WorkPlan:
        """Return the upstream work for an order that has just become ready.

        It is not begun ahead of finalize where the account may send the CSR of a certificate that
        is young: then the CA need not hear of it at all.
        """
        planned = self.plan_work(order, plan)
        profile = self._policies.current(order.community).profiles.get(order.profile)
        within = None if profile is None else profile.same_csr_within
        if self._young is None or within is None or not planned.is_prepared:
            return planned
        since = self._clock.now() - within
        has_young = await self._young.has_young(order.account_id, order.identifiers, since)
        return replace(planned, is_prepared=not has_young)

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
        names = {one.domain for one in identifiers if one.type is not IdentifierType.IP}
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


def decision_facts(
    decision: NewOrderDecision,
    plan: CapPlan,
    at: datetime,
    facts: NewOrderFacts | None = None,
) -> dict[str, object]:
    """Return the facts of a decision as the order keeps them, with who asked for it."""
    return {
        **({} if facts is None else _asked_facts(facts)),
        **_rule_facts(decision),
        "at": at.isoformat(),
        "policy_sha256": decision.policy_sha256,
        **({"document_sha256": decision.document_sha256} if decision.document_sha256 else {}),
        "checks": list(decision.checks),
        "profile": decision.profile,
        "lever": str(plan.lever),
        **_length_facts(plan),
        "cap_rule": f"{plan.rule.source}:{plan.rule.line} {plan.rule.path}",
        "upstream": plan.upstream,
        "upstream_profile": plan.upstream_profile,
        **({"passed_over": dict(decision.passed_over)} if decision.passed_over else {}),
        "tolerance_seconds": int(plan.tolerance.total_seconds()),
        "granted": {
            str(identifier): f"{need.granted_by.source}:{need.granted_by.line}"
            for identifier, need in decision.requirements.items()
            if need.granted_by is not None
        },
    }


def _asked_facts(facts: NewOrderFacts) -> dict[str, object]:
    """Return who asked, and whether for more of the same."""
    return {
        "requester": requester_facts(facts.requester),
        "is_unchanged_renewal": facts.is_unchanged_renewal,
    }


def _rule_facts(decision: NewOrderDecision) -> dict[str, object]:
    """Return what the certificate may be, which rules applied, and of what they only warned."""
    told: dict[str, object] = {}
    if decision.key_kinds:
        told["key_kinds"] = sorted(decision.key_kinds)
        told["usages"] = sorted(decision.usages)
    if decision.rules:
        told["rules"] = [f"{ref.source}:{ref.line} {ref.path}" for ref in decision.rules]
    if decision.warnings:
        told["warnings"] = [found.sentence for found in decision.warnings]
    if decision.renew_at is not None and decision.rules:
        told["renew_at"] = decision.renew_at
    return told


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


def decided_words(decision: Mapping[str, object], name: str) -> frozenset[str] | None:
    """Return a list of words from the facts of a decision; None, for orders from before."""
    found = decision.get(name)
    return frozenset(str(word) for word in found) if isinstance(found, list) else None


def decided_rule(decision: Mapping[str, object]) -> RuleRef | None:
    """Return the rule that set the cap, from the facts that `decision_facts` made."""
    found = _CAP_RULE.fullmatch(str(decision.get("cap_rule", "")))
    if found is None:
        return None
    source, line, path = found.groups()
    return RuleRef(source, int(line), path)
