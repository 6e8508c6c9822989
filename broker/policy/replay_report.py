"""What many replayed requests come to: by effect, by rule, by requester.

A person who reviews a change wants to hear who is touched and by which line, not a hundred thousand
rows: requests are counted in groups, with a few names of each for an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from broker.policy.decisions import RuleRef
from broker.policy.replay import Asked, Effect, WorldChange

__all__ = ["Group", "ReplayKind", "ReplayReport", "requester_text"]

MAX_EXAMPLES: Final = 5
"""Most names that a group shows for an example."""

MAX_GROUPS: Final = 2_000
"""Most groups that are told apart; what is touched beyond that is counted with its effect alone."""


class ReplayKind(StrEnum):
    """What was replayed."""

    ORDER = "order"
    CERTIFICATE = "certificate"
    REFUSAL = "refusal"


@dataclass(slots=True)
class Group:
    """Requests of one requester that one rule touches alike."""

    effect: Effect
    community: str
    requester: str
    rule: RuleRef | None
    sentence: str
    """What was said of the first of them."""
    orders: int = 0
    renewals: int = 0
    """Those of the orders that renewed a certificate of the same names."""
    certificates: int = 0
    refusals: int = 0
    first_end: datetime | None = None
    """When the first of the certificates ends: until then its renewal has to work."""
    names: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)

    def add(self, kind: ReplayKind, asked: Asked, reference: str, until: datetime | None) -> None:
        """Count one request."""
        if kind is ReplayKind.ORDER:
            self.orders += 1
            self.renewals += asked.is_unchanged_renewal
        elif kind is ReplayKind.CERTIFICATE:
            self.certificates += 1
        else:
            self.refusals += 1
        if until is not None:
            self.first_end = until if self.first_end is None else min(until, self.first_end)
        if len(self.references) < MAX_EXAMPLES:
            self.references.append(reference)
        for identifier in asked.identifiers:
            if len(self.names) >= MAX_EXAMPLES:
                break
            if identifier.value not in self.names:
                self.names.append(identifier.value)

    @property
    def touched(self) -> int:
        """Return how many requests are in it."""
        return self.orders + self.certificates + self.refusals


class ReplayReport:
    """Counts what is touched."""

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], Group] = {}
        self.replayed = dict.fromkeys(ReplayKind, 0)
        """How many requests were replayed."""
        self.touched = dict.fromkeys(ReplayKind, 0)
        """How many of them come to something else."""
        self.closed = 0
        """Requests of accounts that have been closed since."""
        self.by_effect: dict[Effect, dict[ReplayKind, int]] = {}

    def count(self, kind: ReplayKind, replayed: int) -> None:
        """Count requests that were replayed, touched or not."""
        self.replayed[kind] += replayed

    def add(
        self,
        kind: ReplayKind,
        asked: Asked,
        changes: Sequence[WorldChange],
        *,
        reference: str,
        until: datetime | None = None,
    ) -> None:
        """Count one request that comes to something else; `count` has counted it as replayed."""
        if not changes:
            return
        self.touched[kind] += 1
        who = requester_text(asked)
        for change in changes:
            counts = self.by_effect.setdefault(change.effect, dict.fromkeys(ReplayKind, 0))
            counts[kind] += 1
            group = self._group(asked.community, who, change)
            group.add(kind, asked, reference, until)

    def _group(self, community: str, who: str, change: WorldChange) -> Group:
        key: tuple[object, ...] = (change.effect, community, who, change.rule)
        if change.rule is None:
            key = (*key, change.sentence)
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key, who = (change.effect,), "others"
        found = self._groups.get(key)
        if found is None:
            found = Group(change.effect, community, who, change.rule, change.sentence)
            self._groups[key] = found
        return found

    def groups(self) -> Iterable[Group]:
        """Return the groups: by effect as Effect lists them, the largest first."""
        order = {effect: place for place, effect in enumerate(Effect)}
        return sorted(
            self._groups.values(), key=lambda one: (order[one.effect], -one.touched, one.requester)
        )

    def has(self, *effects: Effect) -> bool:
        """Return whether any request is touched in one of these ways."""
        return any(effect in self.by_effect for effect in effects)


def requester_text(asked: Asked) -> str:
    """Return who asked, for people: the node or binding key before the account."""
    if asked.eab is not None:
        who = asked.eab.holder
    else:
        who = f"account {asked.requester.account_id or asked.requester.thumbprint or 'unknown'}"
    return f"{who} of {asked.requester.owner}" if asked.requester.owner else who
