"""Token buckets in memory, one for each key, as many as there is room for and no more.

A bucket is one number: the time at which it will be full again (the generic cell rate algorithm),
so a bucket that is full needs no memory at all.  No library: those at hand keep every key for ever
or count in windows that let twice the rate through, and none takes the time as an argument.

When there is no room for another key, keys that are new share one bucket: a limiter that is full
opens to nobody, and shuts out nobody for good.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from broker.policy.units import Rate

__all__ = ["MAX_KEYS", "Buckets"]

MAX_KEYS: Final = 100_000
"""Most buckets that are not full, of one kind: 20 MiB with their keys."""

SWEEP: Final = 8
"""Old buckets looked at when one more is needed, so that no call takes long."""

MOST_OWED: Final = 1
"""Most that a bucket can owe, in whole buckets, where what is beyond is charged: whoever came in by
the hundred waits so long."""

NOTHING: Final = timedelta()
"""No wait at all, in any unit: there is a token."""


class Buckets:
    """The buckets of one limit; ``None`` for the rate means that there is none.

    Only those that *can_owe* are charged.  What they owe looks like a clock that was set back.
    """

    def __init__(
        self, rate: Rate | None, *, max_keys: int = MAX_KEYS, can_owe: bool = False
    ) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._step = rate.period / rate.count if rate is not None else NOTHING
        owed = MOST_OWED if can_owe else 0
        self._longest = rate.period * (1 + owed) if rate is not None else NOTHING
        self._full_at: OrderedDict[str, datetime] = OrderedDict()
        self._shared: datetime | None = None

    def __len__(self) -> int:
        """Return how many buckets take up memory."""
        return len(self._full_at)

    def take(self, key: str, now: datetime) -> timedelta:
        """Take a token, or return how long to wait for the next one; nothing is taken then."""
        if key not in self._full_at:
            self._forget_full(now)
        wait = self.wait(key, now)
        if wait or self._rate is None:
            return wait
        self._add(key, now)
        return NOTHING

    def charge(self, key: str, now: datetime) -> None:
        """Take a token whether there is one or not; what is owed is paid before the next is given.

        For who was let in by `wait` beside others, before any of them was counted.
        """
        if self._rate is None:
            return
        if key not in self._full_at:
            self._forget_full(now)
        self._add(key, now)

    def wait(self, key: str, now: datetime) -> timedelta:
        """Return how long it takes until there is a token; zero when there is one."""
        if self._rate is None:
            return NOTHING
        full_at = self._look(key, now)
        if full_at is None:
            return NOTHING
        return max(full_at - now - self._rate.period + self._step, NOTHING)

    def give_back(self, key: str) -> None:
        """Put a token back that was taken for nothing."""
        full_at = self._full_at.get(key)
        if full_at is not None:
            self._full_at[key] = full_at - self._step

    def _look(self, key: str, now: datetime) -> datetime | None:
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._max_keys:
            full_at = self._shared
        if full_at is None or self._rate is None or full_at - now <= self._longest:
            return full_at
        # The clock was set back: whoever waits goes on from a bucket that is just empty.  By less
        # than what could be owed it cannot be told, and is waited for as if it were.
        self._keep(key, now + self._rate.period)
        return now + self._rate.period

    def _add(self, key: str, now: datetime) -> None:
        before = self._look(key, now)
        full_at = max(before, now) + self._step if before else now + self._step
        self._keep(key, min(full_at, now + self._longest))

    def _keep(self, key: str, full_at: datetime) -> None:
        if key not in self._full_at and len(self._full_at) >= self._max_keys:
            self._shared = full_at
            return
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)

    def _forget_full(self, now: datetime) -> None:
        """Let go of some buckets that are full again, those that were used longest ago first."""
        for _ in range(min(SWEEP, len(self._full_at))):
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now:
                return
            del self._full_at[key]
