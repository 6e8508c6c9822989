"""How long to wait before the next try: full jitter, growing, bounded.

Two thousand agents that lost the same broker at the same moment must not come back at the same
moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

__all__ = ["Pauses", "draw"]

SHORTEST_SECONDS: Final = 1.0
"""Shortest wait, in seconds: a broker that restarts takes about as long."""

LONGEST_SECONDS: Final = 30.0
"""Longest wait, in seconds: a push may be late by this much after an outage."""


def draw() -> float:
    """Return a number from 0 up to 1, each as likely as another."""
    return int.from_bytes(os.urandom(6), "big") / 2**48


class Pauses:
    """Waits after failures in a row."""

    def __init__(
        self,
        *,
        shortest: float = SHORTEST_SECONDS,
        longest: float = LONGEST_SECONDS,
        draw: Callable[[], float] = draw,
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._draw = draw
        self._failures = 0

    def reset(self) -> None:
        """Begin with short waits again."""
        self._failures = 0

    def next(self, asked: float | None = None) -> float:
        """Return how many seconds to wait; *asked* is what the broker asked for at least."""
        self._failures = min(self._failures + 1, 16)
        ceiling = min(self._longest, self._shortest * float(2 ** (self._failures + 1)))
        drawn = self._shortest + self._draw() * (ceiling - self._shortest)
        return drawn if asked is None else max(drawn, asked + self._draw() * self._shortest)
