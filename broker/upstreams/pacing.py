"""How long to wait before asking again: a growing delay, a peer's wish, and a deadline.

Waiting itself is handed in, so that whoever tests a wait need not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from broker.issuance.ports import Clock

__all__ = ["Pacing", "Pause", "pause"]

Pause = Callable[[timedelta], Awaitable[None]]
"""Returns after the given time."""


async def pause(duration: timedelta) -> None:
    """Return after *duration*."""
    await asyncio.sleep(duration.total_seconds())


class Pacing:
    """The waits of one loop that asks until something has changed, or until its deadline."""

    def __init__(
        self, clock: Clock, pause: Pause, *, first: timedelta, longest: timedelta, total: timedelta
    ) -> None:
        """Begin now: the first wait is *first*, each next one doubles up to *longest*."""
        self._clock = clock
        self._pause = pause
        self._next = first
        self._longest = longest
        self.total = total
        self.deadline = clock.now() + total

    def has_ended(self) -> bool:
        """Return whether the deadline has come."""
        return self._clock.now() >= self.deadline

    async def wait(self, not_before: datetime | None = None) -> None:
        """Wait for the next delay, longer if *not_before* is later, never past the deadline."""
        now = self._clock.now()
        until = now + self._next
        if not_before is not None:
            until = max(until, not_before)
        self._next = min(self._next * 2, self._longest)
        duration = min(until, self.deadline) - now
        if duration > timedelta(0):
            await self._pause(duration)
