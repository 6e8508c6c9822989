"""What agents cost, on their hosts and at the broker; `bench/run --only agents`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.agents_channel import Field, Held, Return, make_broker, measure_held, measure_return
from bench.agents_memory import Resident, measure_memory
from bench.agents_push import Served, Wave, measure_one, measure_wave
from bench.agents_sweep import Swept, measure_sweeps
from bench.scenarios import Tell

__all__ = ["EFFORTS", "Agents", "Effort", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    held: Sequence[int]
    """Numbers of agents that are connected and at rest."""
    held_seconds: float
    returning: int
    """Agents that come back after a restart: one of the numbers above."""
    wave: int
    """Nodes that are pushed to at once, their canary not counted."""
    managed: Sequence[int]
    due: int
    rounds: int
    with_peers: bool = True


EFFORTS: Final[Mapping[str, Effort]] = {
    "full": Effort(
        held=(100, 2_000, 10_000),
        held_seconds=60.0,
        returning=2_000,
        wave=2_000,
        managed=(100, 100_000),
        due=100,
        rounds=9,
    ),
    "quick": Effort(
        held=(100, 1_000),
        held_seconds=20.0,
        returning=1_000,
        wave=200,
        managed=(100, 10_000),
        due=100,
        rounds=1,
    ),
    "smoke": Effort(
        held=(10,),
        held_seconds=2.0,
        returning=10,
        wave=10,
        managed=(10,),
        due=10,
        rounds=1,
        with_peers=False,
    ),
}
"""About twenty-five minutes, seven, and four, on two idle cores."""


@dataclass(slots=True)
class Agents:
    """All that came out."""

    resident: list[Resident] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    returned: Return | None = None
    one: list[Served] = field(default_factory=list)
    wave: Wave | None = None
    swept: list[Swept] = field(default_factory=list)


def measure(home: Path, effort: Effort, tell: Tell) -> Agents:
    """Measure everything that *effort* names."""
    made = Agents()
    if effort.with_peers:
        made.resident = measure_memory(home / "memory", tell)
        made.one = measure_one(home / "one", tell)
    with ExitStack() as stack:
        where = Field(home / "channel", stack, make_broker(home / "channel" / "broker"))
        for number in effort.held:
            made.held += measure_held(where, [number], effort.held_seconds, tell)
            if number == effort.returning:
                made.returned = measure_return(where, tell)
    made.wave = measure_wave(home / "wave", effort.wave, tell)
    made.swept = measure_sweeps(home / "sweep", effort.managed, effort.due, effort.rounds, tell)
    return made
