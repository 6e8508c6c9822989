"""Who is under way: which deliveries hold a place in their group, counted as they come and go.

A judgement asks for the nodes of one group, for its canaries, and for those that have to stay
apart from a node.  Each is kept by itself, so that a judgement costs the same whether ten are under
way or ten thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.issuance.rollout_ports import OpenDelivery
from broker.policy.rollout import Group, RolloutPlan

__all__ = ["Begun", "Claims", "Flight", "Party"]

MAX_REMEMBERED: Final = 50_000
"""Most nodes whose group is remembered: a few MiB."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A delivery that has been let go."""

    node: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Party:
    """Nodes of a group that take part in its wave and are not pushed to yet."""

    nodes: frozenset[str] = frozenset()
    canaries: frozenset[str] = frozenset()
    """Those of them that are named as canaries."""

    def without(self, landed: Set[str]) -> Party:
        """Return it without those that have *landed*."""
        if self.nodes.isdisjoint(landed):
            return self
        return Party(self.nodes - landed, self.canaries - landed)


@dataclass(frozen=True, slots=True)
class Begun:
    """Deliveries that are begun and not pushed, as they were read."""

    at: datetime
    deliveries: Sequence[OpenDelivery]
    parties: dict[tuple[str, bool], Party]
    landed: set[str] = field(default_factory=set)
    """Nodes whose delivery has been pushed since and has ended."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node belongs."""

    group: Group | None
    is_canary: bool
    apart: tuple[int, ...]
    """Places in the plan of the sets that it stays apart in."""


class Claims:
    """The places that are taken; `rollouts.Rollouts` changes them under its lock."""

    def __init__(self, plan: RolloutPlan) -> None:
        self._plan = plan
        self._flights: dict[str, Flight] = {}
        self._places: dict[str, _Place] = {}
        self._nodes: dict[str, dict[str, int]] = defaultdict(dict)
        """Group → its nodes that are under way, with how many deliveries each."""
        self._canaries: dict[str, dict[str, int]] = defaultdict(dict)
        """Those of them that are named as canaries."""
        self._apart: dict[int, dict[str, int]] = defaultdict(dict)
        """The same by sets that stay apart."""

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._flights

    def __iter__(self) -> Iterator[tuple[str, Flight]]:
        return iter(self._flights.items())

    def take(self, delivery_id: str, node: str, since: datetime) -> None:
        """Have a delivery of *node* hold its place."""
        self.drop(delivery_id)
        self._flights[delivery_id] = Flight(node, since)
        for counts in self._counts_of(node):
            counts[node] = counts.get(node, 0) + 1

    def drop(self, delivery_id: str) -> Flight | None:
        """Free the place of a delivery and return what held it, None where it had none."""
        flight = self._flights.pop(delivery_id, None)
        if flight is None:
            return None
        for counts in self._counts_of(flight.node):
            counts[flight.node] -= 1
            if not counts[flight.node]:
                del counts[flight.node]
        return flight

    def find(self, delivery_id: str) -> Flight | None:
        """Return what holds the delivery's place, None where it has none."""
        return self._flights.get(delivery_id)

    def nodes_of(self, group: Group) -> Set[str]:
        """Return the names of the group's nodes that are under way: a view, not a copy."""
        return self._nodes[group.name].keys()

    def canaries_of(self, group: Group) -> Set[str]:
        """Return those of them that are named as canaries."""
        return self._canaries[group.name].keys()

    def apart_from(self, node: str) -> str | None:
        """Return who is under way that *node* must not be reloaded beside, or None."""
        sets = self._place(node).apart
        if not sets:
            return None
        beside = {name for one in sets for name in self._apart[one]}
        return self._plan.kept_apart(node, beside)

    # --------------------------------------------------------------------------- what is planned

    def group_of(self, node: str) -> Group | None:
        """Return the node's group, None for a node that goes at once."""
        return self._place(node).group

    def is_canary(self, node: str) -> bool:
        """Return whether *node* is named as a canary of its group."""
        return self._place(node).is_canary

    def has_rules_for(self, node: str) -> bool:
        """Return whether anything at all keeps *node* waiting."""
        place = self._place(node)
        return place.group is not None or bool(place.apart)

    def _place(self, node: str) -> _Place:
        """Return where a node belongs; remembered, since thousands are asked about at each step."""
        known = self._places.get(node)
        if known is None:
            if len(self._places) >= MAX_REMEMBERED:
                self._places.clear()
            group = self._plan.group_of(node)
            named = None if group is None else group.canaries
            is_canary = named is not None and named.covering(node) is not None
            apart = tuple(
                number
                for number, one in enumerate(self._plan.apart)
                if one.covering(node) is not None
            )
            known = self._places[node] = _Place(group, is_canary, apart)
        return known

    def _counts_of(self, node: str) -> list[dict[str, int]]:
        """Return everything that a delivery of *node* is counted in."""
        place = self._place(node)
        found = [self._apart[one] for one in place.apart]
        if place.group is not None:
            found.append(self._nodes[place.group.name])
            if place.is_canary:
                found.append(self._canaries[place.group.name])
        return found
