"""How long a mass replacement takes: what CAs let us order, and when nodes may be reloaded.

An estimate for people who have a clock running; it promises nothing.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from broker.policy.buckets import Bucket
from broker.policy.rollout import Group
from broker.policy.windows import next_closing, next_opening

__all__ = ["RELOAD_TIME", "ordered_at", "rolled_out_at"]

RELOAD_TIME: Final = timedelta(minutes=1)
"""What one node is reckoned with from push to seen: ten seconds are usual, and a mail server that
lets its connections run out takes longer."""

MOST_WINDOWS: Final = 400
"""Most windows that an estimate looks ahead over: a year of nights."""


def ordered_at(count: int, bucket: Bucket | None, now: datetime) -> datetime:
    """Return when *count* certificates can have been ordered; at once where no limit is known."""
    if bucket is None:
        return now
    missing = max(count - bucket.filled(now).level, 0.0)
    return now + missing / bucket.rate.count * bucket.rate.period


def rolled_out_at(nodes: int, group: Group | None, ordered: datetime, now: datetime) -> datetime:
    """Return when *nodes* of a group can have been reloaded, its canaries first.

    *ordered* is when the last certificate is there: it waits for its window like every other.
    """
    if nodes == 0:
        return now
    if group is None:
        return ordered + RELOAD_TIME
    turns = 1 + math.ceil(max(nodes - 1, 0) / group.at_once)
    left, at = RELOAD_TIME * turns, now
    for _ in range(MOST_WINDOWS):
        at = next_opening(group.windows, at)
        closes = next_closing(group.windows, at)
        if closes is None or at + left <= closes:
            break
        left -= closes - at
        at = closes
    return max(at + left, next_opening(group.windows, ordered) + RELOAD_TIME)
