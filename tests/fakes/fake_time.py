"""Timers that go off when a test moves the clock, and never by themselves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.issuance.dispatcher import Timer
from tests.fakes.clock import FakeClock


@dataclass(slots=True, order=True)
class FakeTimer:
    """A call that is due at a time of the fake clock."""

    due_at: datetime
    number: int
    call: Callable[[], None] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """See to it that the call does not come."""
        self.is_cancelled = True


class FakeTime:
    """``dispatcher.CallLater`` and ``fulfilment.Pause`` over one fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._timers: list[FakeTimer] = []
        self._numbers = itertools.count()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Make *call* once the clock has moved on by so many seconds; at once for none."""
        if seconds <= 0:
            return asyncio.get_running_loop().call_soon(call)
        due_at = self.clock.now() + timedelta(seconds=seconds)
        timer = FakeTimer(due_at, next(self._numbers), call)
        heapq.heappush(self._timers, timer)
        return timer

    async def pause(self, seconds: float) -> None:
        """Wait until the clock has moved on by so many seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: waiter.done() or waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()

    @property
    def next_due(self) -> datetime | None:
        """When the next timer goes off, or None when there is none."""
        while self._timers and self._timers[0].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].due_at if self._timers else None

    def go_to_next(self) -> None:
        """Move the clock to the next timer and let it go off."""
        due_at = self.next_due
        assert due_at is not None, "no timer is left"
        if due_at > self.clock.now():
            self.clock.advance(due_at - self.clock.now())
        heapq.heappop(self._timers).call()

    def forget_all(self) -> None:
        """Lose every timer, as the end of a process does."""
        self._timers.clear()
