"""What the rules that speak of an order make of it, all of them together.

Demands are merged so that the strictest of each wins, whichever rule or file it comes from: the
shortest cap, the keys that every rule leaves, the most people.  The policy and the profile that
come out have less in them than those that went in, so every other check works on as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from broker.policy.decisions import (
    ApprovalDemand,
    EabGrant,
    FinalizeFacts,
    IssuedFacts,
    NewOrderFacts,
    OnWithdrawal,
    QuotaDemand,
    QuotaPer,
    Requester,
    RuleRef,
)
from broker.policy.document import USAGE_OIDS, PolicyDocument, Profile
from broker.policy.expressions import ExpressionError
from broker.policy.rules import Grade, Rule
from broker.protocol.identifiers import Identifier

__all__ = [
    "NO_RULING",
    "Hit",
    "Ruling",
    "Subject",
    "narrowed",
    "rule_on",
    "subject_of",
    "unbudgeted",
]

_NOBODY: Final = Requester()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What rules look at: an order, as far as it is known."""

    identifiers: tuple[Identifier, ...]
    profile: str | None
    requester: Requester
    is_unchanged_renewal: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that speaks of an order."""

    rule: Rule
    identifiers: tuple[Identifier, ...]
    """Those of the order's identifiers that it speaks of."""
    is_enforced: bool
    fault: str | None = None
    """Why its expression could not be evaluated; such a rule refuses."""

    @property
    def is_about_names(self) -> bool:
        """Return whether the rule picks names out of the order."""
        rule = self.rule
        return rule.names is not None or (rule.when is not None and rule.when.is_about_one_name)


@dataclass(frozen=True, slots=True)
class Ruling:
    """The rules that speak of an order."""

    hits: tuple[Hit, ...] = ()
    requester: Requester = _NOBODY

    @property
    def enforced(self) -> tuple[Hit, ...]:
        """Return the rules that hold."""
        return tuple(hit for hit in self.hits if hit.is_enforced)

    @property
    def warned(self) -> tuple[Hit, ...]:
        """Return the rules that only tell what they would do."""
        return tuple(hit for hit in self.hits if not hit.is_enforced)

    def enforcing(self, hits: Iterable[Hit]) -> Ruling:
        """Return the ruling that would be if *hits* held as well, and nothing else were told."""
        more = tuple(replace(hit, is_enforced=True) for hit in hits)
        return Ruling((*self.enforced, *more), self.requester)

    @property
    def approval(self) -> ApprovalDemand | None:
        """Return what the rules that hold want of people, merged."""
        return _merged_approval(self.enforced)

    @property
    def quotas(self) -> tuple[QuotaDemand, ...]:
        """Return every quota of every rule."""
        return tuple(
            QuotaDemand(
                per=quota.per,
                limit=quota.rate.count,
                window=quota.rate.period,
                kept_for_renewals=quota.kept_for_renewals,
                upstreams=quota.upstreams,
                is_enforced=hit.is_enforced,
                identifiers=hit.identifiers,
                rule=hit.rule.ref,
                name=hit.rule.name,
            )
            for hit in self.hits
            for quota in hit.rule.quotas
        )


NO_RULING: Final = Ruling()


def subject_of(
    facts: NewOrderFacts | FinalizeFacts | IssuedFacts, *, profile: str | None, eab: EabGrant | None
) -> Subject:
    """Return what rules look at of *facts*; what the binding tells of the requester is added."""
    requester = facts.requester
    if isinstance(facts, NewOrderFacts) and not requester.thumbprint:
        requester = replace(requester, thumbprint=facts.account_thumbprint)
    if eab is not None and eab.node is not None and requester.node is None:
        requester = replace(requester, node=eab.node)
    if eab is not None and eab.node is None and requester.eab_key_id is None:
        requester = replace(requester, eab_key_id=eab.key_id)
    return Subject(
        identifiers=facts.identifiers,
        profile=profile,
        requester=requester,
        is_unchanged_renewal=facts.is_unchanged_renewal,
        at=facts.at if not isinstance(facts, IssuedFacts) else facts.received_at,
    )


def rule_on(document: PolicyDocument, subject: Subject) -> Ruling:
    """Return the rules of *document* that speak of *subject*."""
    if not len(document.rules):
        return Ruling(requester=subject.requester)
    hits: list[Hit] = []
    for rule in document.rules.about(subject.identifiers, subject.requester, subject.profile):
        grade = rule.grade_for(is_unchanged_renewal=subject.is_unchanged_renewal)
        if grade is Grade.EXEMPT or not _speaks(rule, subject):
            continue
        hit = _hit(rule, subject, is_enforced=grade is Grade.ENFORCE)
        if hit is not None:
            hits.append(hit)
    return Ruling(tuple(hits), subject.requester)


def _speaks(rule: Rule, subject: Subject) -> bool:
    if rule.profiles is not None and subject.profile not in rule.profiles:
        return False
    return rule.is_in_force(subject.at) and rule.is_about_requester(subject.requester)


def _hit(rule: Rule, subject: Subject, *, is_enforced: bool) -> Hit | None:
    touched = rule.touched(subject.identifiers)
    if not touched and subject.identifiers:
        return None
    if rule.when is None:
        return Hit(rule, touched, is_enforced)
    variables = variables_of(subject)
    try:
        if not rule.when.is_about_one_name:
            return Hit(rule, touched, is_enforced) if rule.when.is_true(variables) else None
        meant = tuple(one for one in touched if rule.when.is_true({**variables, "name": one.value}))
    except ExpressionError as error:
        return Hit(rule, touched, is_enforced, str(error))
    return Hit(rule, meant, is_enforced) if meant else None


def variables_of(subject: Subject) -> Mapping[str, Any]:
    """Return what an expression may look at (``expressions.VARIABLES``)."""
    requester = subject.requester
    shown = requester.client_certificate
    return {
        "names": [one.value for one in subject.identifiers],
        "profile": subject.profile or "",
        "account": requester.thumbprint,
        "eab": requester.eab_key_id or "",
        "node": requester.node or "",
        "kube_cluster": requester.cluster or "",
        "kube_namespace": requester.namespace or "",
        "kube_service_account": requester.service_account or "",
        "attestation": requester.attestation or "",
        "address": requester.address or "",
        "owner": requester.owner or "",
        "client_fingerprint": "" if shown is None else shown.fingerprint,
        "client_names": [] if shown is None else list(shown.names),
        "is_renewal": subject.is_unchanged_renewal,
        "at": subject.at,
    }


# --------------------------------------------------------------------------------------- narrowing


@dataclass(slots=True)
class _Narrowing:
    """A policy and a profile on the way to having less in them."""

    keys: tuple[str, ...]
    keys_rule: RuleRef
    challenges: tuple[Any, ...]
    challenges_rule: RuleRef
    usages: frozenset[str]
    usages_rule: RuleRef | None
    renew_at: float | None
    caps: list[Any] = field(default_factory=list)
    kept_out: dict[str, RuleRef] = field(default_factory=dict)

    def take(self, rule: Rule, upstreams: Sequence[str]) -> None:
        """Take what *rule* demands."""
        if rule.cap is not None:
            self.caps.append((rule.cap, rule.ref))
        if rule.keys is not None and not rule.keys.issuperset(self.keys):
            self.keys = tuple(kind for kind in self.keys if kind in rule.keys)
            self.keys_rule = rule.ref
        if rule.challenges is not None and not rule.challenges.issuperset(self.challenges):
            self.challenges = tuple(c for c in self.challenges if str(c) in rule.challenges)
            self.challenges_rule = rule.ref
        if rule.usages is not None:
            remaining = self.usages & {USAGE_OIDS[usage] for usage in rule.usages}
            if remaining != self.usages:
                self.usages, self.usages_rule = remaining, rule.ref
        if rule.renew_at is not None:
            known = self.renew_at
            self.renew_at = rule.renew_at if known is None else min(known, rule.renew_at)
        if rule.upstreams is not None:
            for upstream in upstreams:
                if upstream not in rule.upstreams:
                    self.kept_out.setdefault(upstream, rule.ref)


def narrowed(
    document: PolicyDocument, profile: Profile | None, ruling: Ruling
) -> tuple[PolicyDocument, Profile | None]:
    """Return *document* and *profile* with what the rules that hold leave of them."""
    rules = [hit.rule for hit in ruling.hits if hit.is_enforced and hit.fault is None]
    if profile is None or not any(_is_narrowing(rule) for rule in rules):
        return document, profile
    made = _Narrowing(
        keys=document.key_kinds,
        keys_rule=document.keys_rule,
        challenges=document.challenges,
        challenges_rule=document.challenges_rule,
        usages=profile.usages,
        usages_rule=profile.usages_rule,
        renew_at=profile.renew_at,
    )
    upstreams = [choice.upstream for choice in profile.choices]
    for rule in rules:
        made.take(rule, upstreams)
    if made.keys != document.key_kinds or made.challenges != document.challenges:
        document = replace(
            document,
            key_kinds=made.keys,
            keys_rule=made.keys_rule,
            challenges=made.challenges,
            challenges_rule=made.challenges_rule,
        )
    return document, replace(
        profile,
        usages=made.usages,
        usages_rule=made.usages_rule,
        renew_at=made.renew_at,
        rule_caps=tuple(made.caps),
        kept_out=made.kept_out,
    )


def unbudgeted(profile: Profile, ruling: Ruling) -> frozenset[str]:
    """Return the upstreams of *profile* for which no quota per workload is enforced."""
    counted = [
        quota.upstreams
        for quota in ruling.quotas
        if quota.per is QuotaPer.WORKLOAD and quota.is_enforced
    ]
    if None in counted:
        return frozenset()
    budgeted = frozenset(name for listed in counted if listed is not None for name in listed)
    return frozenset(choice.upstream for choice in profile.choices) - budgeted


def _is_narrowing(rule: Rule) -> bool:
    demands = (
        rule.cap, rule.keys, rule.usages, rule.challenges, rule.upstreams, rule.renew_at
    )  # fmt: skip
    return any(demand is not None for demand in demands)


# ---------------------------------------------------------------------------------------- approval


def _merged_approval(hits: Sequence[Hit]) -> ApprovalDemand | None:
    found = [(hit, hit.rule.approval) for hit in hits if hit.rule.approval is not None]
    demands = [demand for _, demand in found if demand is not None]
    if not demands:
        return None
    reproofs = [demand.reproof for demand in demands if demand.reproof is not None]
    named = [demand.by for demand in demands if demand.by is not None]
    revokes = any(demand.on_withdrawal is OnWithdrawal.REVOKE for demand in demands)
    return ApprovalDemand(
        people=max(demand.people for demand in demands),
        answer_within=min(demand.answer_within for demand in demands),
        holds=min(demand.holds for demand in demands),
        reproof=min(reproofs, default=None),
        on_withdrawal=OnWithdrawal.REVOKE if revokes else OnWithdrawal.KEEP,
        evidence=tuple(sorted({kind for demand in demands for kind in demand.evidence})),
        by=frozenset.intersection(*named) if named else None,
        identifiers=tuple(dict.fromkeys(one for hit, _ in found for one in hit.identifiers)),
        rules=tuple(hit.rule.ref for hit, _ in found),
        because=tuple(hit.rule.because for hit, _ in found),
    )
