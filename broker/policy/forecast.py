"""Which rules stop working on a known day, told before that day.

CAs and root programmes announce what they will change, and rules may end by date: so what a policy
will come to is known beforehand.  Each rule is judged the day before such a day and the day after;
what differs is foreseen.  Orders are not looked at: ``replay`` does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from broker.policy.decisions import NewOrderFacts, RuleRef, UpstreamFacts
from broker.policy.document import PolicyDocument, Profile
from broker.policy.rules import Grade, Rule
from broker.policy.units import format_duration
from broker.policy.upstream_facts import issued_on, lifetime_on, usages_on
from broker.policy.validity import CapRuling, Judgement, judge_choices
from broker.policy.words import USAGE_OIDS

__all__ = ["FORESIGHT", "Foreseen", "ForeseenKind", "days_of_change", "foresee"]

FORESIGHT: Final = timedelta(days=180)
"""How far ahead a rule that will stop working is warned of: two renewals of a 90-day certificate,
and time for whoever has to find another CA."""

_MARGIN: Final = timedelta(days=2)
"""How far from a day of change its both sides are judged: facts about lifetimes count a day early
and a day late, since a CA switches at an hour of its own."""


class ForeseenKind(StrEnum):
    """What comes on a day.

    STOPS: no upstream of the profile can be ordered from any more, so its orders are refused.
    PASSED_OVER: one upstream of it cannot, and another one is taken.  LOSES: certificates come
    without a usage.  SHORTER: they live less long.  RULE_ENDS, RULE_BEGINS: a rule's own dates.
    """

    STOPS = "stops"
    PASSED_OVER = "passed-over"
    LOSES = "loses"
    SHORTER = "shorter"
    RULE_ENDS = "rule-ends"
    RULE_BEGINS = "rule-begins"

    @property
    def is_warned_of(self) -> bool:
        """Return whether somebody has to do something about it."""
        return self in {self.STOPS, self.PASSED_OVER, self.LOSES, self.RULE_ENDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """One thing that a known day brings."""

    on: date
    kind: ForeseenKind
    community: str
    profile: str | None
    """None for what is no profile's."""
    sentence: str
    rule: RuleRef
    upstream: str | None = None

    def __str__(self) -> str:
        place = f"{self.rule.source}:{self.rule.line}"
        return f"{self.on.isoformat()}: {self.sentence} ({place}, community '{self.community}')"


def days_of_change(
    document: PolicyDocument, upstreams: Sequence[UpstreamFacts], *, after: date, until: date
) -> tuple[date, ...]:
    """Return the days past *after*, up to *until*, on which anything is known to change."""
    days: set[date] = set()
    for facts in upstreams:
        if facts.name not in document.upstreams:
            continue
        days.update(change.valid_from for change in facts.changes)
        days.update(facts.profile_ends.values())
        for steps in (facts.default_lifetimes, *facts.profiles.values()):
            days.update(step.valid_from for step in steps)
    return tuple(sorted(day for day in days if after < day <= until))


def foresee(
    document: PolicyDocument, upstreams: Sequence[UpstreamFacts], *, after: date, until: date
) -> tuple[Foreseen, ...]:
    """Return what comes to *document* past *after*, up to *until*, the soonest first.

    *upstreams* are all that serve the community, ready or not.
    """
    found: dict[tuple[object, ...], Foreseen] = {}
    for day in days_of_change(document, upstreams, after=after, until=until):
        for one in _of_day(document, upstreams, day):
            # Days that lie close together are seen twice; the first is the one.
            found.setdefault((one.kind, one.rule, one.upstream, one.sentence), one)
    for one in _of_rules(document, after=after, until=until):
        found.setdefault((one.kind, one.rule, one.on), one)
    return tuple(sorted(found.values(), key=lambda one: (one.on, one.rule.source, one.rule.line)))


def _of_day(
    document: PolicyDocument, upstreams: Sequence[UpstreamFacts], day: date
) -> Iterator[Foreseen]:
    noon = datetime.combine(day, time(12), UTC)
    facts = {facts.name: facts for facts in upstreams}
    for profile in document.profiles.values():
        for ruling in _rulings(document, profile):
            before = _judged(document, profile, upstreams, ruling, noon - _MARGIN)
            later = _judged(document, profile, upstreams, ruling, noon + _MARGIN)
            pairs = list(zip(before, later, strict=True))
            yield from _differences(document, profile, day, ruling, pairs)
        yield from _lost_usages(document, profile, facts, day)
        yield from _shorter(document, profile, facts, day)


def _rulings(document: PolicyDocument, profile: Profile) -> Iterator[CapRuling]:
    """Yield the cap of the profile, and each tighter one that a rule sets for some names."""
    cap, rule = document.cap, document.cap_rule
    if profile.cap is not None and profile.cap < cap:
        cap, rule = profile.cap, profile.cap_rule
    yield CapRuling(cap, rule, ((cap, rule),))
    told = {cap}
    tighter_ones = [
        *document.cap_by_rule.items(),
        *((rule.ref, rule.cap) for rule in document.rules.rules if _caps(rule, profile)),
    ]
    for one, tighter in tighter_ones:
        if tighter is not None and tighter < cap and tighter not in told:
            told.add(tighter)
            yield CapRuling(tighter, one, ((tighter, one),))


def _caps(rule: Rule, profile: Profile) -> bool:
    is_about = rule.profiles is None or profile.name in rule.profiles
    return rule.cap is not None and rule.grade is Grade.ENFORCE and is_about


def _judged(
    document: PolicyDocument,
    profile: Profile,
    upstreams: Sequence[UpstreamFacts],
    ruling: CapRuling,
    at: datetime,
) -> tuple[Judgement, ...]:
    facts = NewOrderFacts(
        community=document.community,
        identifiers=(),
        profile=profile.name,
        not_before=None,
        not_after=None,
        at=at,
        account_thumbprint="",
        eab=None,
        public_suffixes=frozenset(),
        upstreams=tuple(upstreams),
    )
    return judge_choices(document, profile, facts, ruling)


def _differences(
    document: PolicyDocument,
    profile: Profile,
    day: date,
    ruling: CapRuling,
    pairs: Sequence[tuple[Judgement, Judgement]],
) -> Iterator[Foreseen]:
    """Yield the choices that could be taken before and cannot later."""
    left = any(later.plan is not None for _, later in pairs)
    scope = "" if ruling.rule in (document.cap_rule, profile.cap_rule) else (
        f" under the {format_duration(ruling.cap)} cap of {ruling.rule.source}:{ruling.rule.line}"
    )  # fmt: skip
    for was, is_ in pairs:
        if was.plan is None or is_.plan is not None:
            continue
        outcome = "another upstream is taken" if left else "orders will be refused"
        yield Foreseen(
            on=day,
            kind=ForeseenKind.PASSED_OVER if left else ForeseenKind.STOPS,
            community=document.community,
            profile=profile.name,
            sentence=f"profile '{profile.name}'{scope} stops working with {is_.choice}: "
            f"{_without_choice(is_)}; {outcome}",
            rule=is_.choice.rule,
            upstream=is_.choice.upstream,
        )


def _without_choice(judgement: Judgement) -> str:
    return judgement.sentence.removeprefix(f"{judgement.choice} ")


def _lost_usages(
    document: PolicyDocument, profile: Profile, facts: Mapping[str, UpstreamFacts], day: date
) -> Iterator[Foreseen]:
    """Yield usages that certificates of a choice no longer come with, while others stay."""
    noon = datetime.combine(day, time(12), UTC)
    words = {oid: str(usage) for usage, oid in USAGE_OIDS.items()}
    for choice in profile.choices:
        upstream = facts.get(choice.upstream)
        if upstream is None:
            continue
        was, is_ = usages_on(upstream, noon - _MARGIN), usages_on(upstream, noon + _MARGIN)
        if is_ is None or not (profile.usages & is_):
            continue  # not known, or told as a choice that cannot be taken
        lost = (profile.usages if was is None else profile.usages & was) - is_
        for oid in sorted(lost):
            by = next(
                (c.by for c in upstream.changes if c.valid_from == day and c.usages), "the CA"
            )
            yield Foreseen(
                on=day,
                kind=ForeseenKind.LOSES,
                community=document.community,
                profile=profile.name,
                sentence=f"certificates of profile '{profile.name}' from {choice} come without "
                f"{words.get(oid, oid)}, by {by}",
                rule=choice.rule,
                upstream=choice.upstream,
            )


def _shorter(
    document: PolicyDocument, profile: Profile, facts: Mapping[str, UpstreamFacts], day: date
) -> Iterator[Foreseen]:
    """Yield choices whose certificates live less long, where the CA says how long that is."""
    noon = datetime.combine(day, time(12), UTC)
    for choice in profile.choices:
        upstream = facts.get(choice.upstream)
        if upstream is None:
            continue
        was = _lifetime(upstream, choice.upstream_profile, noon - _MARGIN)
        is_ = _lifetime(upstream, choice.upstream_profile, noon + _MARGIN)
        if was is not None and is_ is not None and is_ < was:
            yield Foreseen(
                on=day,
                kind=ForeseenKind.SHORTER,
                community=document.community,
                profile=profile.name,
                sentence=f"{choice} issues {format_duration(is_)} in place of "
                f"{format_duration(was)}",
                rule=choice.rule,
                upstream=choice.upstream,
            )


def _lifetime(facts: UpstreamFacts, profile: str | None, at: datetime) -> timedelta | None:
    steps = facts.default_lifetimes if profile is None else facts.profiles.get(profile, ())
    return issued_on(facts, lifetime_on(steps, at), at)


def _of_rules(document: PolicyDocument, *, after: date, until: date) -> Iterator[Foreseen]:
    """Yield rules that begin or end by their own dates."""
    for rule in document.rules.rules:
        warns = " to warn" if rule.grade is Grade.WARN else ""
        for day, kind, what in (
            (rule.starts, ForeseenKind.RULE_BEGINS, f"begins{warns}"),
            (_day_after(rule.until), ForeseenKind.RULE_ENDS, "holds no more"),
        ):
            if day is not None and after < day <= until:
                yield Foreseen(
                    on=day,
                    kind=kind,
                    community=document.community,
                    profile=None,
                    sentence=f"rule '{rule.name}' {what}: {rule.because}",
                    rule=rule.ref,
                )


def _day_after(day: date | None) -> date | None:
    return None if day is None else day + timedelta(days=1)
