"""A bucket of tokens as arithmetic on given times: full at first, filled steadily, never over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.policy.units import Rate

__all__ = ["Bucket", "replayed"]

REPLAY_PERIODS: Final = 2
"""Over how many periods the past is gone through to know a bucket's level: whatever lies further
back has been filled up again since, twice over."""

ROUNDING: Final = 1e-6
"""Share of a token that is lost to rounding, when a bucket is filled in many small steps: whoever
waits as long as told finds the token that was promised."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many tokens there were at a moment.  ``rate`` is as many at once and in a period."""

    rate: Rate
    level: float
    at: datetime

    @classmethod
    def full(cls, rate: Rate, at: datetime) -> Bucket:
        """Return a bucket that nothing was taken from."""
        return cls(rate, float(rate.count), at)

    def filled(self, now: datetime) -> Bucket:
        """Return the bucket as it is at *now*; a clock that went back fills nothing.

        One from more than a period ahead was looked at by a clock that was wrong: it fills from now
        on, where it would give nothing until that time.
        """
        if self.at - now > self.rate.period:
            return replace(self, at=now)
        passed = max(now - self.at, timedelta())
        level = min(self.level + passed / self.rate.period * self.rate.count, self.rate.count)
        return Bucket(self.rate, level, max(now, self.at))

    def without(self, count: float) -> Bucket:
        """Return the bucket with *count* fewer tokens; what others took may leave less than none
        only for as long as nobody looks."""
        return replace(self, level=max(self.level - count, 0.0))

    def with_back(self, count: float) -> Bucket:
        """Return the bucket with *count* more tokens, never more than there can be."""
        return replace(self, level=min(self.level + count, float(self.rate.count)))

    def resized(self, rate: Rate) -> Bucket:
        """Return the bucket under another rate: what was taken stays taken."""
        if rate == self.rate:
            return self
        taken = self.rate.count - self.level
        return Bucket(rate, max(rate.count - taken, 0.0), self.at)

    def is_enough(self, count: float, *, floor: float = 0.0) -> bool:
        """Return whether *count* can be taken so that *floor* is left."""
        return self.level - count >= floor - ROUNDING

    def wait_for(self, level: float) -> timedelta:
        """Return how long it takes until there are *level* tokens."""
        missing = min(level, float(self.rate.count)) - self.level
        return max(missing, 0.0) / self.rate.count * self.rate.period


def replayed(rate: Rate, taken: Iterable[datetime], now: datetime) -> Bucket:
    """Return the bucket that single tokens were taken from at these times, in their order."""
    bucket = Bucket.full(rate, now - rate.period * REPLAY_PERIODS)
    for moment in taken:
        bucket = bucket.filled(moment).without(1)
    return bucket.filled(now)
