"""What two versions of a policy have in common, whatever line it stands in.

Most changes touch a few rules of many, and most orders are spoken of by none of those.  Where two
documents differ in rules alone, an order that the same rules speak of is decided alike by both, so
it need not be decided twice to know that.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Final

from broker.policy.decisions import NewOrderFacts, RuleRef
from broker.policy.document import NameRules, PolicyDocument
from broker.policy.names import PatternSet
from broker.policy.rule_index import RuleBook
from broker.policy.rules import Rule
from broker.policy.rulings import rule_on, subject_of

__all__ = ["RuleDifferences", "shape"]

_OF_THE_FILE: Final = frozenset({"source", "sha256", "set_sha256"})
"""Fields that tell where something stands, and what else stands there, but not what it says."""


def shape(value: object) -> Hashable:
    """Return what *value* says, without the places that its parts stand in.

    Two values of the same shape decide alike.  What it does not know is taken as it is, so that a
    field which is added later counts as a difference until it is the same.
    """
    if isinstance(value, RuleRef):
        return None
    if isinstance(value, NameRules):
        return value.texts
    if isinstance(value, PatternSet):
        return tuple(str(one) for one in value.patterns)
    if isinstance(value, RuleBook):
        return ()  # compared order by order
    if is_dataclass(value) and not isinstance(value, type):
        named = [one.name for one in fields(value) if one.name not in _OF_THE_FILE]
        return (type(value), *(shape(getattr(value, name)) for name in named))
    if isinstance(value, Mapping):
        return tuple((shape(key), shape(held)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return tuple(shape(one) for one in value)
    if isinstance(value, set | frozenset):
        return frozenset(shape(one) for one in value)
    if isinstance(value, Hashable):
        return value
    raise TypeError(f"{type(value).__name__} has no shape")


class RuleDifferences:
    """Two documents that say the same but for their rules."""

    def __init__(self, old: PolicyDocument, new: PolicyDocument) -> None:
        self._documents = old, new
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[int, int] = {}
        self._kept: list[Rule] = []

    def is_alike_for(self, facts: NewOrderFacts) -> bool:
        """Return whether the same rules of both speak of the order, and as hard."""
        old, new = (self._spoken(document, facts) for document in self._documents)
        return old == new

    def _spoken(self, document: PolicyDocument, facts: NewOrderFacts) -> frozenset[Hashable]:
        if not len(document.rules):
            return frozenset()
        profile = document.profile(facts.profile)
        name = None if profile is None else profile.name
        ruling = rule_on(document, subject_of(facts, profile=name, eab=facts.eab))
        return frozenset(
            (self._number(hit.rule), hit.identifiers, hit.is_enforced, hit.fault)
            for hit in ruling.hits
        )

    def _number(self, rule: Rule) -> int:
        """Return one number for all rules that say the same."""
        known = self._known.get(id(rule))
        if known is None:
            self._kept.append(rule)  # while it is there no other object has its id
            known = self._numbers.setdefault(shape(rule), len(self._numbers))
            self._known[id(rule)] = known
        return known
