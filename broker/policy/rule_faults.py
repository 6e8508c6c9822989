"""What is wrong with rules that are right each on its own: found before they are in force.

Two rules that leave nothing of what they both narrow refuse every order that they both speak of;
whoever means that writes ``refuse``.  A rule that names a profile, an upstream or a day which
cannot be would never do what its author wants.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Final

from broker.policy.addresses import AddressPattern
from broker.policy.decisions import Requester
from broker.policy.document import USAGE_OIDS, PolicyDocument
from broker.policy.names import MailPattern, Pattern, PatternSet, Reach
from broker.policy.rule_index import RuleIndex
from broker.policy.rules import Grade, Rule, Who
from broker.policy.yamlfile import Fault
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["check_days", "check_rules", "check_shared"]

_NARROWED: Final[Mapping[str, Callable[[Rule], frozenset[Any] | None]]] = {
    "keys": lambda rule: rule.keys,
    "usages": lambda rule: rule.usages,
    "challenges": lambda rule: rule.challenges,
    "upstreams": lambda rule: rule.upstreams,
    "attestation": lambda rule: rule.attestation,
}
"""Demands that leave some of a list, by their key."""

MAX_CONTRADICTIONS: Final = 20
"""Most contradictions that are told: one wrong line in a shared rule makes one with each other."""

MAX_PAIRED: Final = 500
"""Most rules of which every pair is held against each other: 125,000 pairs, a tenth of a second."""

MAX_PAIRS: Final = 100_000
"""Most pairs of more rules than that which are held against each other, about half a second.  What
is not looked at is no danger: orders that are left nothing are refused, with the rule."""

_NOBODY: Final = Requester()


def check_rules(document: PolicyDocument) -> Iterator[Fault]:
    """Yield what is wrong with the rules of *document*, its own and those that it shares."""
    rules = document.rules.rules
    if not rules:
        return
    yield from _check_names_of_rules(rules)
    for rule in rules:
        yield from _check_against(document, rule)
    yield from _check_contradictions(rules)
    yield from _check_approvers(rules)


def _fault(rule: Rule, message: str, hint: str | None = None) -> Fault:
    return Fault(rule.ref.source, rule.ref.line, rule.ref.path, message, hint)


def _check_names_of_rules(rules: Sequence[Rule]) -> Iterator[Fault]:
    first: dict[str, Rule] = {}
    for rule in rules:
        known = first.setdefault(rule.name, rule)
        if known is not rule:
            yield _fault(rule, f"a rule is called '{rule.name}' already: {known}")


def _check_against(document: PolicyDocument, rule: Rule) -> Iterator[Fault]:
    """Find what *rule* leaves nothing of, beside the policy that it narrows."""
    if rule.grade is not Grade.ENFORCE or rule.ref.source != document.source:
        return  # A shared rule may suit the other communities.
    for key, offered in _offered(document, rule).items():
        left = _NARROWED[key](rule)
        if left is not None and offered and left.isdisjoint(offered):
            yield _fault(
                rule,
                f"leaves no {key}: {_listed(left)}, of which the community has none there",
                f"it has {_listed(offered)}; to refuse, write 'refuse: …'",
            )
    known = document.upstreams
    for upstream in sorted((rule.upstreams or frozenset()) - known):
        near = difflib.get_close_matches(upstream, known, n=1)
        yield _fault(
            rule,
            f"no profile of community '{document.community}' has an upstream '{upstream}'",
            f"did you mean '{near[0]}'?" if near else f"known here: {_listed(known)}",
        )


def _offered(document: PolicyDocument, rule: Rule) -> Mapping[str, frozenset[str]]:
    """Return what *document* has of each list under the profiles that *rule* speaks of."""
    profiles = [
        profile
        for name, profile in document.profiles.items()
        if rule.profiles is None or name in rule.profiles
    ]
    return {
        "keys": frozenset(document.key_kinds),
        "challenges": frozenset(str(kind) for kind in document.challenges),
        "usages": frozenset(
            str(usage)
            for usage, oid in USAGE_OIDS.items()
            if any(oid in profile.usages for profile in profiles)
        ),
    }


def check_shared(rule: Rule, documents: Sequence[PolicyDocument]) -> Iterator[Fault]:
    """Yield profiles and upstreams of a shared rule that none of its communities has."""
    for what, named, known in (
        ("a profile", rule.profiles, {name for one in documents for name in one.profiles}),
        ("an upstream", rule.upstreams, {name for one in documents for name in one.upstreams}),
    ):
        for name in sorted((named or frozenset()) - known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {_listed(known)}"
            yield _fault(rule, f"none of its communities has {what} '{name}'", hint)


def check_days(rules: Iterable[Rule], earlier: Mapping[str, Rule], today: date) -> Iterator[Fault]:
    """Yield each rule that ends before *today* and did not say so before.

    One that was good when it was written, and is over, is no fault: it does nothing any more.
    """
    for rule in rules:
        known = earlier.get(rule.name)
        is_new = known is None or known.until != rule.until
        if rule.until is not None and rule.until < today and is_new:
            yield _fault(
                rule,
                f"ends on {rule.until}, which is in the past: it would never do anything",
                f"today is {today} in UTC",
            )


# ----------------------------------------------------------------------------------- contradictions


def _check_contradictions(rules: Sequence[Rule]) -> Iterator[Fault]:
    found = 0
    for key, entries_of in _NARROWED.items():
        narrowing = [rule for rule in rules if _is_certain(rule) and entries_of(rule) is not None]
        for one, other in _meetings(narrowing):
            left, right = entries_of(one) or frozenset(), entries_of(other) or frozenset()
            if not left.isdisjoint(right) or not _meet(one, other):
                continue
            found += 1
            if found > MAX_CONTRADICTIONS:
                return
            yield _fault(
                other,
                f"contradicts {one}: of their {key}, {_listed(right)} here and {_listed(left)} "
                "there, nothing is left, so every order that both speak of would be refused",
                "to refuse those, write 'refuse: …'",
            )


def _check_approvers(rules: Sequence[Rule]) -> Iterator[Fault]:
    """Find rules that want more people's approval than they both leave who may give it."""
    asking = [rule for rule in rules if _is_certain(rule) and rule.approval is not None]
    if not any(rule.approval is not None and rule.approval.by is not None for rule in asking):
        return
    found = 0
    for one, other in _meetings(asking):
        first, second = one.approval, other.approval
        if first is None or second is None:
            continue
        named = [demand.by for demand in (first, second) if demand.by is not None]
        left, people = frozenset[str]().union(*named), max(first.people, second.people)
        left = left.intersection(*named)
        if not named or len(left) >= people or not _meet(one, other):
            continue
        found += 1
        if found > MAX_CONTRADICTIONS:
            return
        yield _fault(
            other,
            f"contradicts {one}: of those who may approve, {_who(second.by)} here and"
            f" {_who(first.by)} there, {_listed(left)} is left where {people}"
            f" {'person has' if people == 1 else 'people have'} to, so every order that both speak"
            " of would be refused",
            "to refuse those, write 'refuse: …'",
        )


def _who(by: frozenset[str] | None) -> str:
    return "everybody" if by is None else _listed(by)


def _is_certain(rule: Rule) -> bool:
    """Return whether nothing but what is written in the rule decides what it speaks of."""
    return rule.grade is Grade.ENFORCE and rule.when is None and rule.not_who is None


def _meetings(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Yield pairs of *rules* that may speak of the same order, the first first.

    Of few rules, every pair.  Of many, those that the index finds for what one of them names.
    """
    ordered = sorted(rules, key=lambda rule: rule.place)
    if len(ordered) <= MAX_PAIRED:
        yield from itertools.combinations(ordered, 2)
        return
    # Of one with names, those alone: it meets rules about other requesters' orders of them too.
    index = RuleIndex(replace(one, who=None) if one.names is not None else one for one in ordered)
    by_place = {rule.place: rule for rule in ordered}
    seen: set[frozenset[tuple[str, int, str]]] = set()
    looked_at = 0
    for rule in ordered:
        for profile in rule.profiles or (None,):
            found = index.about(_samples(rule), _NOBODY, profile)
            looked_at += len(found)
            if looked_at > MAX_PAIRS:
                return
            for other in found:
                pair = frozenset((rule.place, other.place))
                if len(pair) > 1 and pair not in seen:
                    seen.add(pair)
                    first, second = sorted(pair)
                    yield by_place[first], by_place[second]


def _meet(one: Rule, other: Rule) -> bool:
    """Return whether there certainly are orders that both speak of."""
    if one.profiles is not None and one.profiles.isdisjoint(other.profiles or one.profiles):
        return False
    if one.until is not None and other.starts is not None and one.until < other.starts:
        return False
    if other.until is not None and one.starts is not None and other.until < one.starts:
        return False
    if one.names is not None and other.names is not None and not _overlap(one.names, other.names):
        return False
    return one.who is None or other.who is None or _share_requesters(one.who, other.who)


def _overlap(one: PatternSet, other: PatternSet) -> bool:
    return any(other.touching(_sample(pattern)) for pattern in one.patterns) or any(
        one.touching(_sample(pattern)) for pattern in other.patterns
    )


def _share_requesters(one: Who, other: Who) -> bool:
    """Return whether there certainly are requesters like both: what one says beyond the other
    leaves some, and both agree in what they both say."""
    if one.any or other.any:
        return False
    said, also = _kinds(one), _kinds(other)
    if not (said.keys() <= also.keys() or also.keys() <= said.keys()):
        return False
    return all(_agree(said[kind], also[kind]) for kind in said.keys() & also.keys())


def _kinds(who: Who) -> dict[str, frozenset[str] | PatternSet]:
    every = {
        "accounts": who.accounts,
        "eab": who.eab,
        "nodes": who.nodes,
        "clusters": who.clusters,
        "namespaces": who.namespaces,
        "service_accounts": who.service_accounts,
        "networks": who.networks,
        "certificates": who.certificates,
        "client_names": who.client_names,
    }
    return {kind: entries for kind, entries in every.items() if entries is not None}


def _agree(one: frozenset[str] | PatternSet, other: frozenset[str] | PatternSet) -> bool:
    if isinstance(one, PatternSet) and isinstance(other, PatternSet):
        return _overlap(one, other)
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return not one.isdisjoint(other)
    return False


def _samples(rule: Rule) -> tuple[Identifier, ...]:
    """Return an identifier for each pattern of *rule*."""
    patterns = () if rule.names is None else rule.names.patterns
    return tuple(Identifier(_type_of(one), _sample(one)) for one in patterns)


def _type_of(pattern: Pattern) -> IdentifierType:
    if isinstance(pattern, AddressPattern):
        return IdentifierType.IP
    return IdentifierType.EMAIL if isinstance(pattern, MailPattern) else IdentifierType.DNS


def _sample(pattern: Pattern) -> str:
    """Return one name or address that *pattern* covers."""
    if isinstance(pattern, AddressPattern):
        return str(pattern.network.network_address)
    if isinstance(pattern, MailPattern):
        return f"{pattern.local or 'x'}@{_sample(pattern.domain)}"
    if pattern.reach is not Reach.EXACT:
        return f"x.{pattern.base or 'x'}"
    return pattern.base


def _listed(entries: Iterable[Any]) -> str:
    return ", ".join(sorted(str(entry) for entry in entries)) or "none"
