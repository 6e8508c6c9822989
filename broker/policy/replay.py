"""The same request asked of two worlds: who would be refused, shortened, or allowed anew.

A world is a set of policies, what is known of the CAs, and a day.  ``policy diff`` compares two
sets of policies on one day, ``policy impact`` one set on two days.  What passes by itself, such as
a suspended upstream, is left out of both worlds: policies are compared, not the weather.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.policy.chains import decide_new_order
from broker.policy.decisions import (
    EabGrant,
    NewOrderDecision,
    NewOrderFacts,
    RuleRef,
    UpstreamFacts,
)
from broker.policy.document import PolicyDocument
from broker.policy.requesters import Requester
from broker.policy.rules import Rule
from broker.policy.sameness import RuleDifferences, shape
from broker.policy.units import format_duration
from broker.protocol.identifiers import Identifier

__all__ = ["Asked", "Effect", "Replay", "World", "WorldChange"]

MAX_REMEMBERED: Final = 20_000
"""Most answers that are remembered, about 2 KiB each: fleets ask alike."""


class Effect(StrEnum):
    """What a request comes to that it did not come to before."""

    REFUSED = "refused"
    ALLOWED = "allowed"
    SHORTENED = "shortened"
    LENGTHENED = "lengthened"
    APPROVAL = "needs-approval"
    FEWER_KEYS = "fewer-keys"
    MOVED = "moved"
    WARNED = "warned"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with all that policy looks at beside the world."""

    community: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    is_start_asked: bool
    lifetime: timedelta | None
    """To the end that the client asked for; None when it asked for none."""
    eab: EabGrant | None
    requester: Requester
    is_unchanged_renewal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a request is asked of."""

    documents: Mapping[str, PolicyDocument]
    """By community."""
    upstreams: Mapping[str, tuple[UpstreamFacts, ...]]
    """Those that serve each community, ready or not."""
    at: datetime


@dataclass(frozen=True, slots=True)
class WorldChange:
    """One thing that is otherwise in the second world."""

    effect: Effect
    sentence: str
    rule: RuleRef | None
    """The rule of the second world that does it; of the first one for what is allowed anew."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is compared of a decision."""

    is_refused: bool
    sentence: str
    rule: RuleRef | None
    cap: timedelta | None = None
    upstream: str | None = None
    people: int = 0
    people_rule: RuleRef | None = None
    approvers: frozenset[str] | None = None
    """Those who may approve; None: everybody who approves, or nobody has to."""
    keys: frozenset[str] = frozenset()
    warnings: tuple[tuple[str, RuleRef | None], ...] = ()


class Replay:
    """Asks requests of two worlds."""

    def __init__(self, old: World, new: World) -> None:
        self._old = old
        self._new = new
        self._known: dict[Asked, tuple[WorldChange, ...]] = {}
        self._differences = _rule_differences(old, new)
        self._sees_renewals = {
            community
            for world in (old, new)
            for community, document in world.documents.items()
            if any(_sees_renewals(rule) for rule in document.rules.rules)
        }

    def changes(self, asked: Asked) -> tuple[WorldChange, ...]:
        """Return what is otherwise for *asked* in the new world; empty: nothing."""
        if asked.is_unchanged_renewal and asked.community not in self._sees_renewals:
            # Nobody looks at it, so the answer to a new order is the answer to its renewal.
            asked = replace(asked, is_unchanged_renewal=False)
        found = self._known.get(asked)
        if found is None:
            found = () if self._is_untouched(asked) else self._compare(asked)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[asked] = found
        return found

    def _is_untouched(self, asked: Asked) -> bool:
        """Return whether both worlds decide alike, told without deciding."""
        differences = self._differences.get(asked.community)
        return differences is not None and differences.is_alike_for(_facts(self._old, asked))

    def _compare(self, asked: Asked) -> tuple[WorldChange, ...]:
        old, new = _ask(self._old, asked), _ask(self._new, asked)
        if old == new:
            return ()
        if new.is_refused:
            if old.is_refused:
                return ()
            return (WorldChange(Effect.REFUSED, new.sentence, new.rule),)
        if old.is_refused:
            return (WorldChange(Effect.ALLOWED, f"was: {old.sentence}", old.rule),)
        return _differences(old, new)


def _rule_differences(old: World, new: World) -> dict[str, RuleDifferences]:
    """Return the communities of which both worlds say the same but for rules."""
    if old.at != new.at:
        return {}
    made: dict[str, RuleDifferences] = {}
    for community, document in old.documents.items():
        other = new.documents.get(community)
        same_facts = old.upstreams.get(community) == new.upstreams.get(community)
        if other is not None and same_facts and shape(document) == shape(other):
            made[community] = RuleDifferences(document, other)
    return made


def _sees_renewals(rule: Rule) -> bool:
    return rule.when is not None or rule.grade is not rule.renewal_grade


def _ask(world: World, asked: Asked) -> _Answer:
    document = world.documents.get(asked.community)
    if document is None:
        sentence = f"community '{asked.community}' has no policy"
        return _Answer(is_refused=True, sentence=sentence, rule=None)
    return _answer_of(decide_new_order(document, _facts(world, asked)))


def _facts(world: World, asked: Asked) -> NewOrderFacts:
    return NewOrderFacts(
        community=asked.community,
        identifiers=asked.identifiers,
        profile=asked.profile,
        not_before=world.at if asked.is_start_asked else None,
        not_after=None if asked.lifetime is None else world.at + asked.lifetime,
        at=world.at,
        account_thumbprint=asked.requester.thumbprint,
        eab=asked.eab,
        # The list of public suffixes is no policy: what it refused is refused by both alike.
        public_suffixes=frozenset(),
        upstreams=world.upstreams.get(asked.community, ()),
        requester=asked.requester,
        is_unchanged_renewal=asked.is_unchanged_renewal,
    )


def _answer_of(decision: NewOrderDecision) -> _Answer:
    plan = decision.plan
    if decision.is_refused or plan is None:
        first = decision.findings[0] if decision.findings else None
        sentence = "policy made no plan" if first is None else first.sentence
        return _Answer(
            is_refused=True, sentence=sentence, rule=None if first is None else first.rule
        )
    approval = decision.approval
    return _Answer(
        is_refused=False,
        sentence="",
        rule=plan.rule,
        cap=plan.cap,
        upstream=plan.upstream,
        people=0 if approval is None else approval.people,
        people_rule=approval.rules[0] if approval is not None and approval.rules else None,
        approvers=None if approval is None else approval.by,
        keys=frozenset(decision.key_kinds),
        warnings=tuple((one.sentence, one.rule) for one in decision.warnings),
    )


def _is_among(some: frozenset[str] | None, people: frozenset[str]) -> bool:
    return some is not None and some <= people


def _people(approvers: frozenset[str] | None) -> str:
    return "everybody who approves" if approvers is None else ", ".join(sorted(approvers))


def _differences(old: _Answer, new: _Answer) -> tuple[WorldChange, ...]:
    made: list[WorldChange] = []
    if old.cap is not None and new.cap is not None and old.cap != new.cap:
        effect = Effect.SHORTENED if new.cap < old.cap else Effect.LENGTHENED
        was, is_ = format_duration(old.cap), format_duration(new.cap)
        made.append(WorldChange(effect, f"at most {is_}, was {was}", new.rule))
    if new.people > old.people:
        who = "a person has" if new.people == 1 else f"{new.people} people have"
        whose = "" if new.approvers is None else f", of {_people(new.approvers)}"
        made.append(WorldChange(Effect.APPROVAL, f"{who} to say yes first{whose}", new.people_rule))
    elif new.approvers is not None and not _is_among(old.approvers, new.approvers):
        sentence = f"only {_people(new.approvers)} may say yes, was {_people(old.approvers)}"
        made.append(WorldChange(Effect.APPROVAL, sentence, new.people_rule))
    if lost := old.keys - new.keys:
        sentence = f"keys no longer taken: {', '.join(sorted(lost))}"
        made.append(WorldChange(Effect.FEWER_KEYS, sentence, None))
    if old.upstream != new.upstream:
        sentence = f"from upstream '{new.upstream}', was '{old.upstream}'"
        made.append(WorldChange(Effect.MOVED, sentence, None))
    told = {_without_place(sentence, rule) for sentence, rule in old.warnings}
    for sentence, rule in new.warnings:
        if _without_place(sentence, rule) not in told:
            made.append(WorldChange(Effect.WARNED, sentence, rule))
    return tuple(made)


def _without_place(sentence: str, rule: RuleRef | None) -> str:
    """Return *sentence* without the line, which moves when a file is edited above it."""
    return sentence if rule is None else sentence.replace(f"{rule.source}:{rule.line}", rule.source)
