"""Whether the reloads in a server's log are those that deliveries explain, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.soak.deliveries import Delivery

__all__ = ["CLOCK_SECONDS", "Squared", "square"]

CLOCK_SECONDS: Final = 2.0
"""How far a line in a log and a receipt of the same reload may be told apart: the log is read every
tenth of a second, on a machine that may be busy."""

PUT_BACK: Final = ("restored", "failed")
"""Ends after which the old certificate is back, which takes a reload of its own."""


@dataclass(slots=True)
class Squared:
    """What came of it for one host."""

    told: int = 0
    """Reloads that a delivery tells and the log has."""
    again: int = 0
    """Reloads done again after a kill, or to put the old certificate back."""
    faults: list[str] = field(default_factory=list)


def square(
    node: str, lines: Sequence[float], mine: Sequence[Delivery], kills: list[float]
) -> Squared:
    """Square the server's log with the receipts; all times in seconds since 1970.

    *lines* are the reloads in its log, *kills* those of its agent.  A delivery that was reloaded
    has its line, and each line falls into the time of a delivery that was pushed.  There is a
    further one in that time only where the agent was killed since the line before, one for each
    kill, or once where the old certificate was put back.
    """
    made, left, free = Squared(), sorted(lines), sorted(kills)
    for one in mine:
        if one.pushed_at is None:
            continue
        begin, end = one.pushed_at - CLOCK_SECONDS, (one.ended_at or float("inf")) + CLOCK_SECONDS
        found = [at for at in left if begin <= at <= end]
        is_told = one.reloaded_at is not None or one.stage == "seen"
        if is_told and not found:
            made.faults.append(
                f"delivery {one.delivery_id} says that {node} was reloaded, its log does not"
            )
        taken = _explained(found, one, free)
        for at in taken:
            left.remove(at)
        made.told += bool(is_told and taken)
        made.again += max(0, len(taken) - 1)
    made.faults += [f"{node} was reloaded at {at:.1f} and nobody says why" for at in left]
    return made


def _explained(found: Sequence[float], one: Delivery, free: list[float]) -> list[float]:
    """Return the lines of *found* that a delivery explains; takes the kills it needs off *free*."""
    taken = list(found[:1])
    is_put_back = one.stage in PUT_BACK
    for at in found[1:]:
        kill = next((each for each in free if taken[-1] - CLOCK_SECONDS <= each <= at), None)
        if kill is not None:
            free.remove(kill)
        elif is_put_back:
            is_put_back = False
        else:
            continue
        taken.append(at)
    return taken
