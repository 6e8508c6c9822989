"""Arithmetic of the benchmark: percentiles, medians of rounds, ratios, and how far from an aim."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Aim", "Cell", "median_cell", "percentile", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One server under one number of clients."""

    scene: str
    concurrency: int
    orders: int
    errors: int
    faults: dict[str, int] = field(default_factory=dict)
    p50_ms: float
    p99_ms: float
    orders_per_second: float
    cpu_ms: float
    """Processor time of the server and its children, in milliseconds an order."""
    behind_cpu_ms: dict[str, float] = field(default_factory=dict)
    """The same of what stands behind it."""
    generator_cpu_ms: float
    resident_mib: float
    requests: float
    """Requests an order, those for nonces and polls included."""
    polls: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of *values* that at least *share* of them do not exceed.

    Raises:
        ValueError: There are none, or *share* is not above 0 and at most 1.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def ratio(ours: float, theirs: float) -> float:
    """Return how many times *theirs* is what *ours* is; 0 where that cannot be told."""
    return theirs / ours if ours > 0 else 0.0


def median_cell(rounds: Sequence[Cell]) -> Cell:
    """Return the round whose processor time is the median, with the errors of all of them.

    A round that somebody else's work on the machine disturbed is not averaged in.

    Raises:
        ValueError: There are none.
    """
    if not rounds:
        raise ValueError("no rounds to take the median of")
    middle = sorted(rounds, key=lambda cell: cell.cpu_ms)[(len(rounds) - 1) // 2]
    faults: dict[str, int] = {}
    for cell in rounds:
        for fault, count in cell.faults.items():
            faults[fault] = faults.get(fault, 0) + count
    return Cell(
        scene=middle.scene,
        concurrency=middle.concurrency,
        orders=middle.orders,
        errors=sum(cell.errors for cell in rounds),
        faults=faults,
        p50_ms=statistics.median(cell.p50_ms for cell in rounds),
        p99_ms=statistics.median(cell.p99_ms for cell in rounds),
        orders_per_second=statistics.median(cell.orders_per_second for cell in rounds),
        cpu_ms=middle.cpu_ms,
        behind_cpu_ms=middle.behind_cpu_ms,
        generator_cpu_ms=middle.generator_cpu_ms,
        resident_mib=middle.resident_mib,
        requests=middle.requests,
        polls=middle.polls,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A bound that was set beforehand, and what was measured."""

    what: str
    bound: float
    measured: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Return whether the figure keeps within the bound."""
        return self.measured <= self.bound

    @property
    def outcome(self) -> str:
        """Return ``met``, or by how much it is missed."""
        if self.is_met:
            return "met"
        return f"missed by {self.measured - self.bound:.1f} {self.unit}".rstrip()
