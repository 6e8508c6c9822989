"""Which node may have its new certificate now: canaries, how many at once, who stays apart, when.

Facts in, a decision out: nothing here knows a store or a clock.  The words are those of
docs/adr/0023.  A *wave* is what a group does from its first delivery until none is on its way or
waits.  It is *proven* once a canary of it was seen to serve its certificate; until then nobody
else is touched, so what fails on every host fails on the canaries alone.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.policy.names import PatternSet
from broker.policy.windows import Window, next_opening

__all__ = [
    "Group",
    "GroupFacts",
    "Hindrance",
    "Judgement",
    "Outcome",
    "RolloutPlan",
    "Wave",
    "after_outcome",
    "judge_delivery",
]

PROOF_AGE: Final = timedelta(days=1)
"""How long a wave counts as proven.  Where renewals of a big group overlap for weeks there is never
a moment without any, and what came from the CA yesterday may not be what comes today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Nodes that are reloaded one after the other."""

    name: str
    nodes: PatternSet
    canaries: PatternSet | None
    """None: the first by name of those that take part."""
    at_once: int
    halt_after: int
    windows: tuple[Window, ...] = ()
    answer_within: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """All groups, and all sets of nodes that stay apart whatever their groups."""

    groups: tuple[Group, ...] = ()
    apart: tuple[PatternSet, ...] = ()

    def group_of(self, node: str) -> Group | None:
        """Return the first group that has *node*, None for a node that goes at once."""
        return next((one for one in self.groups if one.nodes.covering(node) is not None), None)

    def group(self, name: str) -> Group | None:
        """Return the group of that name."""
        return next((one for one in self.groups if one.name == name), None)

    def has_rules_for(self, node: str) -> bool:
        """Return whether anything at all keeps *node* waiting."""
        return self.group_of(node) is not None or any(
            one.covering(node) is not None for one in self.apart
        )

    def kept_apart(self, node: str, under_way: Set[str]) -> str | None:
        """Return a node of *under_way* that *node* must not be reloaded beside, or None."""
        sets = [one for one in self.apart if one.covering(node) is not None]
        if not sets:
            return None
        others = sorted(under_way - {node})
        return next(
            (name for name in others for one in sets if one.covering(name) is not None), None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Where the wave of a group stands."""

    begun_at: datetime
    served: frozenset[str] = frozenset()
    """Names of its canaries, or of who stood in for them, that were seen to serve."""
    served_at: datetime | None = None
    """When the last of them was."""
    failures: int = 0
    """Deliveries that failed, were put back, or were not told of in time."""
    halted_at: datetime | None = None
    halted_why: str | None = None

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is pushed until a person resumes it."""
        return self.halted_at is not None

    def proofs(self, now: datetime) -> frozenset[str]:
        """Return the canaries that were seen, as long as that is good."""
        is_good = self.served_at is not None and now - self.served_at < PROOF_AGE
        return self.served if is_good else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """What is true of a group when one of its deliveries is judged."""

    wave: Wave
    under_way: Set[str]
    """Names of its nodes that have been pushed to and have not ended."""
    taking_part: Set[str]
    """Names of its nodes that a delivery is begun for and not pushed yet; without those that have
    been in that state for longer than the group gives them to answer."""
    canaries: Set[str]
    """Those of both that are named as canaries."""


class Hindrance(StrEnum):
    """Why a delivery has to wait."""

    HALTED = "halted"
    WINDOW = "window"
    APART = "apart"
    FULL = "full"
    CANARIES = "canaries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether a delivery may go; a reason for people where it may not."""

    hindrance: Hindrance | None = None
    why: str | None = None
    opens_at: datetime | None = None
    """When its window opens."""

    @property
    def is_clear(self) -> bool:
        """Whether it may be pushed now."""
        return self.hindrance is None


def judge_delivery(
    node: str, group: Group, facts: GroupFacts, *, now: datetime, apart_from: str | None = None
) -> Judgement:
    """Return whether *node* of *group* may be pushed to now.

    A node that is under way already may have a further certificate: it is not reloaded beside
    itself.  *apart_from* is who it must not be reloaded beside.
    """
    if facts.wave.is_halted:
        return Judgement(
            hindrance=Hindrance.HALTED,
            why=f"rollout group '{group.name}' is halted: {facts.wave.halted_why}",
        )
    opens_at = next_opening(group.windows, now)
    if opens_at > now:
        return Judgement(
            hindrance=Hindrance.WINDOW,
            why=f"the window of rollout group '{group.name}' opens {opens_at:%Y-%m-%dT%H:%MZ}",
            opens_at=opens_at,
        )
    if apart_from is not None:
        return Judgement(
            hindrance=Hindrance.APART, why=f"node '{apart_from}' is reloaded, and they stay apart"
        )
    if node in facts.under_way:
        return Judgement()
    waits_for = _waits_for(node, group, facts, now)
    if waits_for is not None:
        return Judgement(
            hindrance=Hindrance.CANARIES,
            why=f"canary '{waits_for}' of rollout group '{group.name}' goes first",
        )
    if len(facts.under_way) >= group.at_once:
        return Judgement(
            hindrance=Hindrance.FULL,
            why=f"{len(facts.under_way)} of at most {group.at_once} nodes of rollout group "
            f"'{group.name}' are being reloaded",
        )
    return Judgement()


def _waits_for(node: str, group: Group, facts: GroupFacts, now: datetime) -> str | None:
    """Return the canary that *node* waits for, or None."""
    if _is_named(node, group):
        return None
    proofs = facts.wave.proofs(now)
    named = facts.canaries - proofs
    if named:
        return min(named)
    if proofs:
        return None
    # No canary takes part: one node stands in, alone.
    first = min(facts.under_way) if facts.under_way else min({*facts.taking_part, node})
    return None if first == node else first


def _is_named(node: str, group: Group) -> bool:
    return group.canaries is not None and group.canaries.covering(node) is not None


class Outcome(StrEnum):
    """How a delivery that had been pushed ended, as far as its wave is concerned."""

    SERVED = "served"
    FAILED = "failed"
    """The node refused it, could not install it, or put the old one back."""
    SILENT = "silent"
    """The node told nothing in time."""
    DROPPED = "dropped"
    """It was superseded or withdrawn: nothing is known by it."""


def after_outcome(node: str, group: Group, wave: Wave, outcome: Outcome, *, now: datetime) -> Wave:
    """Return the wave after a delivery of *node* has ended so.

    A canary that fails halts it, whatever ``halt_after`` says; so does who stood in for one.
    """
    if outcome is Outcome.DROPPED or wave.is_halted:
        return wave
    proofs = wave.proofs(now)
    is_canary = not proofs or (_is_named(node, group) and node not in proofs)
    if outcome is Outcome.SERVED:
        return replace(wave, served=proofs | {node}, served_at=now) if is_canary else wave
    failures = wave.failures + 1
    what = "did not say what became of its certificate" if outcome is Outcome.SILENT else "failed"
    if is_canary:
        why = f"canary '{node}' {what}"
    elif failures >= group.halt_after:
        why = f"{failures} failures, the last: '{node}' {what}"
    else:
        return replace(wave, failures=failures)
    return replace(wave, failures=failures, halted_at=now, halted_why=why)
