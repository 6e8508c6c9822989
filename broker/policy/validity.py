"""The validity cap: which rule sets it, and how it can be held.

Caps only narrow: of the community's, the profile's and those of names, the tightest wins.  Of the
four levers that hold it three are pulled before anything is ordered: ask for an end where that is
honoured, take an upstream profile that is short enough on the day, or refuse.  The fourth, looking
at the certificate that came back, is in ``checks_issued``.  A fifth holds none: where policy says
so for one upstream, a longer certificate is accepted and given a retirement date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from broker.policy.decisions import (
    CapPlan,
    Lever,
    NewOrderFacts,
    Retirement,
    RuleRef,
    UpstreamFacts,
)
from broker.policy.document import Choice, PolicyDocument, Profile, RetireRule
from broker.policy.names import is_private_value
from broker.policy.units import format_duration
from broker.policy.upstream_facts import (
    issued_on,
    lifetime_on,
    longest_on,
    profile_end,
    usages_on,
)
from broker.policy.words import USAGE_OIDS
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = [
    "CapRuling",
    "Judgement",
    "Obstacle",
    "cap_now",
    "is_kept_private",
    "judge_choices",
    "judge_upstream",
    "rule_cap",
]


@dataclass(frozen=True, slots=True)
class CapRuling:
    """The cap that holds, the rule that set it, and every rule that had a say."""

    cap: timedelta
    rule: RuleRef
    considered: tuple[tuple[timedelta, RuleRef], ...]


class Obstacle(StrEnum):
    """Why a choice cannot be taken."""

    NOT_READY = "not-ready"
    SUSPENDED = "suspended"
    FROZEN = "frozen"
    RULE = "rule"
    GRANT = "grant"
    BUDGET = "budget"
    IDENTIFIER_TYPE = "identifier-type"
    CT_LOGGED = "ct-logged"
    PROFILE_ENDED = "profile-ended"
    USAGES = "usages"
    NOT_AFTER = "not-after"
    CAP = "cap"

    @property
    def is_passing(self) -> bool:
        """Return whether it may be gone when the same order is tried again."""
        return self in {Obstacle.NOT_READY, Obstacle.SUSPENDED, Obstacle.FROZEN}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one choice: a plan, or why not."""

    choice: Choice
    plan: CapPlan | None
    obstacle: Obstacle | None
    sentence: str


def rule_cap(
    document: PolicyDocument, profile: Profile, identifiers: Sequence[Identifier]
) -> CapRuling:
    """Return the tightest of all caps that speak of *identifiers* under *profile*.

    A wildcard name is under the cap of every name that it stands for.  Of equal caps the wider
    rule is named: it is the one that would have to change.
    """
    considered = [(document.cap, document.cap_rule)]
    if profile.cap is not None:
        considered.append((profile.cap, profile.cap_rule))
    considered += profile.rule_caps
    touched = {
        rule: document.cap_by_rule[rule]
        for identifier in identifiers
        for rule in document.name_caps.touching(identifier.value)
    }
    considered += [(cap, rule) for rule, cap in touched.items()]
    cap, rule = min(considered, key=lambda entry: entry[0])
    return CapRuling(cap, rule, tuple(considered))


def cap_now(
    document: PolicyDocument,
    *,
    identifiers: Sequence[Identifier],
    profile: str,
    at: datetime,
) -> tuple[timedelta, RuleRef]:
    """Return the cap that *document* sets, and its rule.  *at* is for rules with dates; no rule
    has one yet.

    Raises:
        KeyError: The profile is gone; refuse.
    """
    del at
    ruling = rule_cap(document, document.profiles[profile], identifiers)
    return ruling.cap, ruling.rule


def is_kept_private(document: PolicyDocument, identifier: Identifier) -> bool:
    """Return whether *identifier* must not reach an upstream that logs publicly."""
    if document.allow_private_names:
        return False
    listed, name = document.private_names, identifier.value
    if listed.touching(name):
        return True
    if identifier.type is IdentifierType.EMAIL:
        name = identifier.domain  # An address tells the name that it stands at.
    return is_private_value(name) or bool(listed.touching(name))


def judge_choices(
    document: PolicyDocument, profile: Profile, facts: NewOrderFacts, ruling: CapRuling
) -> tuple[Judgement, ...]:
    """Return what becomes of each choice of *profile*, in order of preference."""
    ready = {upstream.name: upstream for upstream in facts.upstreams}
    kept_private = any(is_kept_private(document, i) for i in facts.identifiers)
    types = frozenset(str(identifier.type) for identifier in facts.identifiers)
    judged: list[Judgement] = []
    for choice in profile.choices:
        upstream = ready.get(choice.upstream)
        barred = _bar(choice, upstream, profile, facts)
        if barred is not None or upstream is None:
            obstacle, why = barred or (Obstacle.NOT_READY, "is not ready")
        elif kept_private and upstream.is_ct_logged:
            obstacle = Obstacle.CT_LOGGED
            why = "logs publicly, and a private name is asked for"
        elif not types <= upstream.identifier_types:
            obstacle = Obstacle.IDENTIFIER_TYPE
            why = f"takes identifiers of type {', '.join(sorted(upstream.identifier_types))} only"
        elif "ip" in types and not _is_for_addresses(upstream, choice):
            obstacle = Obstacle.IDENTIFIER_TYPE
            listed = ", ".join(sorted(upstream.ip_profiles))
            why = f"takes addresses with profile {listed} only"
        elif (dated := _dated_obstacle(upstream, choice, profile, facts.at)) is not None:
            obstacle, why = dated
        else:
            held = judge_upstream(choice, upstream, ruling, at=facts.at, not_after=facts.not_after)
            suspended = (choice.upstream, choice.upstream_profile) in facts.suspended
            if held.plan is None or not suspended:
                judged.append(held)
                continue
            # Only a choice that would hold the cap is worth waiting for.
            obstacle, why = Obstacle.SUSPENDED, "is suspended until an operator resumes it"
        judged.append(Judgement(choice, None, obstacle, f"{choice} {why}"))
    return tuple(judged)


def _bar(
    choice: Choice, upstream: UpstreamFacts | None, profile: Profile, facts: NewOrderFacts
) -> tuple[Obstacle, str] | None:
    """Return who or what keeps an upstream out, whatever is asked for."""
    name = choice.upstream
    kept_out = profile.kept_out.get(name)
    if kept_out is not None:
        return Obstacle.RULE, f"is kept out by {kept_out.path} ({kept_out.source}:{kept_out.line})"
    granted = None if facts.eab is None else facts.eab.upstreams
    if granted is not None and name not in granted:
        return Obstacle.GRANT, "is not among the upstreams that the requester may have"
    if name in facts.frozen:
        return Obstacle.FROZEN, facts.frozen[name]
    if upstream is not None and name in profile.unbudgeted and not upstream.is_builtin:
        why = "is for workloads of clusters under a quota per workload alone, and none holds"
        return Obstacle.BUDGET, why
    return None


def _is_for_addresses(upstream: UpstreamFacts, choice: Choice) -> bool:
    return not upstream.ip_profiles or choice.upstream_profile in upstream.ip_profiles


def _dated_obstacle(
    upstream: UpstreamFacts, choice: Choice, profile: Profile, at: datetime
) -> tuple[Obstacle, str] | None:
    """Return what an upstream no longer has on that day: its profile, or every usage asked for."""
    end = profile_end(upstream, choice.upstream_profile, at)
    if end is not None:
        return Obstacle.PROFILE_ENDED, f"has ended on {end.isoformat()}"
    usages = usages_on(upstream, at)
    if usages is None or not profile.usages or usages & profile.usages:
        return None
    words = {oid: str(usage) for usage, oid in USAGE_OIDS.items()}
    given = ", ".join(sorted(words.get(oid, oid) for oid in usages))
    day = at.astimezone(UTC).date().isoformat()
    return Obstacle.USAGES, f"certifies {given} alone on {day}"


def judge_upstream(
    choice: Choice,
    upstream: UpstreamFacts,
    ruling: CapRuling,
    *,
    at: datetime,
    not_after: datetime | None,
) -> Judgement:
    """Return how *upstream* would hold the cap, or why it cannot.

    *not_after* is the end that the client asked for; then nothing but that exact end will do.
    """
    plan = CapPlan(
        lever=Lever.ASK,
        cap=ruling.cap,
        rule=ruling.rule,
        upstream=upstream.name,
        upstream_profile=choice.upstream_profile,
        ask_not_after=True,
        tolerance=upstream.backdate_tolerance,
        is_ct_logged=upstream.is_ct_logged,
    )
    if not_after is not None:
        why_not = _obstacle_to_asking(upstream, not_after - at, at)
        if why_not is None:
            return Judgement(choice, plan, None, f"{choice} is asked for the notAfter as requested")
        return Judgement(choice, None, Obstacle.NOT_AFTER, f"{choice} {why_not}")
    why_not = _obstacle_to_asking(upstream, ruling.cap, at)
    if why_not is None:
        return Judgement(choice, plan, None, f"{choice} is asked for a notAfter within the cap")
    return _judge_lifetime(choice, upstream, plan, at, why_not)


def _judge_lifetime(
    choice: Choice, upstream: UpstreamFacts, plan: CapPlan, at: datetime, why_not_asked: str
) -> Judgement:
    profile = choice.upstream_profile
    steps = upstream.default_lifetimes if profile is None else upstream.profiles.get(profile, ())
    lifetime = issued_on(upstream, lifetime_on(steps, at), at)
    day = at.astimezone(UTC).date().isoformat()
    cap = format_duration(plan.cap)
    if lifetime is None:
        sentence = f"{choice} {why_not_asked}, and its lifetime on {day} is not known"
        return Judgement(choice, None, Obstacle.CAP, sentence)
    issues = f"{choice} issues {format_duration(lifetime)} on {day}"
    if lifetime > plan.cap + plan.tolerance:
        if choice.retire is not None:
            return _judge_retirement(choice, choice.retire, plan, lifetime, issues)
        return Judgement(choice, None, Obstacle.CAP, f"{issues}, past the {cap} cap")
    held = replace(plan, lever=Lever.PROFILE, ask_not_after=False)
    return Judgement(choice, held, None, f"{issues}, within the {cap} cap")


def _judge_retirement(
    choice: Choice, rule: RetireRule, plan: CapPlan, lifetime: timedelta, issues: str
) -> Judgement:
    """Return the plan that accepts a longer certificate: no cap is held by it, and none named."""
    retirement = Retirement(
        longest=lifetime, grace=rule.grace, revokes_unreplaced=rule.revokes_unreplaced
    )
    retiring = replace(plan, lever=Lever.RETIRE, ask_not_after=False, retirement=retirement)
    after = format_duration(plan.cap)
    return Judgement(choice, retiring, None, f"{issues}, to be retired {after} after receipt")


def _obstacle_to_asking(upstream: UpstreamFacts, lifetime: timedelta, at: datetime) -> str | None:
    if not upstream.honours_not_after:
        return "does not honour notAfter"
    shortest, longest = upstream.min_lifetime, upstream.max_lifetime
    by = ""
    dated = longest_on(upstream, at)
    if dated is not None and (longest is None or dated[0] < longest):
        longest, by = dated[0], f" by {dated[1]}"
    if lifetime < shortest:
        asked, limit = format_duration(lifetime), format_duration(shortest)
        return f"grants at least {limit}, and {asked} would be asked for"
    if longest is not None and lifetime > longest:
        asked, limit = format_duration(lifetime), format_duration(longest)
        return f"grants at most {limit}{by}, and {asked} would be asked for"
    return None
