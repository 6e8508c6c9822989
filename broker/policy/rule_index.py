"""Rules, found by what an order names: a look-up for each label, and never a scan.

A rule is found by its patterns of names, or by what it says of the requester or the profile; only
what says nothing of the kind is asked about every order.  What is found here may speak of an order;
whether it does is told by the rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from broker.policy.decisions import Requester
from broker.policy.names import Pattern, PatternSet
from broker.policy.rules import Rule, Who
from broker.protocol.identifiers import Identifier

__all__ = ["NO_RULES", "RuleBook", "RuleIndex"]


class Way(StrEnum):
    """What a rule is found by."""

    NAMES = "names"
    ACCOUNTS = "accounts"
    EAB = "eab"
    CLUSTERS = "clusters"
    NAMESPACES = "namespaces"
    SERVICE_ACCOUNTS = "service-accounts"
    NODES = "nodes"
    PROFILES = "profiles"


_Entries = Callable[[Who], frozenset[str] | None]
_Value = Callable[[Requester], str | None]

_BY_REQUESTER: Final[Mapping[Way, tuple[_Entries, _Value]]] = {
    Way.ACCOUNTS: (lambda who: who.accounts, lambda requester: requester.thumbprint),
    Way.EAB: (lambda who: who.eab, lambda requester: requester.eab_key_id),
    Way.CLUSTERS: (lambda who: who.clusters, lambda requester: requester.cluster),
    Way.NAMESPACES: (lambda who: who.namespaces, lambda requester: requester.namespace),
    Way.SERVICE_ACCOUNTS: (
        lambda who: who.service_accounts,
        lambda requester: f"{requester.namespace}/{requester.service_account}",
    ),
}
"""What a requester is looked up by.  Networks are none of it: who was not seen may be in any."""


class _Patterns:
    """Patterns of many rules, asked which rules have one that speaks of a name."""

    __slots__ = ("_owners", "_patterns")

    def __init__(self, entries: Sequence[tuple[Pattern, int]]) -> None:
        self._patterns = PatternSet([pattern for pattern, _ in entries])
        self._owners = [owner for _, owner in entries]

    def touching(self, name: str) -> Iterable[int]:
        return {self._owners[place] for place in self._patterns.touching(name)}


def _ways(rule: Rule) -> Iterator[tuple[Way, Sequence[Hashable]]]:
    """Yield each way in which *rule* may be found, with what it would be found by."""
    if rule.names is not None:
        yield Way.NAMES, rule.names.patterns
    if rule.who is not None:
        for way, (entries_of, _) in _BY_REQUESTER.items():
            entries = entries_of(rule.who)
            if entries is not None:
                yield way, tuple(entries)
        if rule.who.nodes is not None:
            yield Way.NODES, rule.who.nodes.patterns
    if rule.profiles is not None:
        yield Way.PROFILES, tuple(rule.profiles)


class RuleIndex:
    """Some rules, in an order that no file decides.

    Each is found in one way: the one that it shares with the fewest others, so that neither a
    thousand departments of one zone nor a thousand zones of one department are walked through.
    """

    __slots__ = ("_always", "_named", "_nodes", "_places", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.place))
        crowds = Counter(
            (way, entry) for rule in self.rules for way, entries in _ways(rule) for entry in entries
        )
        self._places: dict[tuple[Way, Hashable], list[int]] = {}
        self._always: list[int] = []
        patterns: dict[Way, list[tuple[Pattern, int]]] = {Way.NAMES: [], Way.NODES: []}
        for number, rule in enumerate(self.rules):
            ways = list(_ways(rule))
            if not ways:
                self._always.append(number)
                continue
            way, entries = min(ways, key=lambda one: max(crowds[one[0], e] for e in one[1]))
            for entry in entries:
                if way in patterns:
                    patterns[way].append((entry, number))  # type: ignore[arg-type]  # of patterns
                else:
                    self._places.setdefault((way, entry), []).append(number)
        self._named = _Patterns(patterns[Way.NAMES])
        self._nodes = _Patterns(patterns[Way.NODES])

    def __len__(self) -> int:
        return len(self.rules)

    def about(
        self, identifiers: Sequence[Identifier], requester: Requester, profile: str | None
    ) -> tuple[Rule, ...]:
        """Return every rule that may speak of such an order, sorted."""
        if not self.rules:
            return ()
        found = set(self._always)
        for identifier in identifiers:
            found.update(self._named.touching(identifier.value))
        for way, (_, value_of) in _BY_REQUESTER.items():
            value = value_of(requester)
            if value is not None:
                found.update(self._places.get((way, value), ()))
        if requester.node is not None:
            found.update(self._nodes.touching(requester.node))
        if profile is not None:
            found.update(self._places.get((Way.PROFILES, profile), ()))
        return tuple(self.rules[number] for number in sorted(found))


class RuleBook:
    """All rules of a community: its own, and those that it shares with others.

    What is shared by all is indexed once, however many communities there are.
    """

    __slots__ = ("indexes",)

    def __init__(self, indexes: Iterable[RuleIndex] = ()) -> None:
        self.indexes = tuple(index for index in indexes if len(index))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return every rule, sorted."""
        every = (rule for index in self.indexes for rule in index.rules)
        return tuple(sorted(every, key=lambda rule: rule.place))

    def __len__(self) -> int:
        return sum(len(index) for index in self.indexes)

    def about(
        self, identifiers: Sequence[Identifier], requester: Requester, profile: str | None
    ) -> tuple[Rule, ...]:
        """Return every rule that may speak of such an order, sorted."""
        if len(self.indexes) == 1:
            return self.indexes[0].about(identifiers, requester, profile)
        found = (
            rule for index in self.indexes for rule in index.about(identifiers, requester, profile)
        )
        return tuple(sorted(found, key=lambda rule: rule.place))


NO_RULES: Final = RuleBook()
"""The rules of a policy without any."""
