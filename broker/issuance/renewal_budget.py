"""How many orders a CA lets our account make, and the share of them that is kept for renewals.

A CA counts all orders of our one account, so a hundred new hosts could use up what the renewals
of tonight need.  Each order takes a token when it is made; new names get none once only the kept
share is left, and are told when to come again.  The bucket is worked out from the orders that are
kept, so a restart forgets nothing.  It is in memory from then on: one broker works on a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from broker.issuance.ports import Clock
from broker.issuance.records import OrderRecord
from broker.policy.buckets import REPLAY_PERIODS, Bucket, replayed
from broker.policy.units import Rate, format_duration, format_rate
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType

__all__ = ["OrderHistory", "OrderLimit", "RenewalBudget"]

SHORTEST_WAIT: Final = timedelta(seconds=1)
"""Shortest wait that is named to a client: Retry-After has whole seconds."""


class OrderHistory(Protocol):
    """Orders as they were made."""

    async def orders_made(
        self, upstream: str, community: str, since: datetime
    ) -> Sequence[datetime]:
        """Return when orders for that upstream were made, the oldest first."""
        ...

    async def has_had(self, account_id: str, identifiers: frozenset[Identifier]) -> bool:
        """Return whether one order of the account brought a certificate for all of these."""
        ...


@dataclass(frozen=True, slots=True)
class OrderLimit:
    """What a CA publishes about orders of one account."""

    rate: Rate
    kept_for_renewals: float
    """Share of the bucket that only renewals may use."""

    @property
    def floor(self) -> float:
        """Return how many tokens new names leave."""
        return self.rate.count * self.kept_for_renewals


class RenewalBudget:
    """Gives out orders."""

    def __init__(
        self, history: OrderHistory, limits: Mapping[str, OrderLimit], clock: Clock
    ) -> None:
        """*limits* are by upstream; one that is not named has none."""
        self._history = history
        self._limits = dict(limits)
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._lock = asyncio.Lock()

    async def take(self, order: OrderRecord) -> None:
        """Take a token for an order that is about to be kept.

        Raises:
            Problem: rateLimited, with how long to wait.
        """
        limit = self._limits.get(order.upstream)
        if limit is None:
            return
        async with self._lock:
            bucket = await self._bucket(limit, order.upstream, order.community)
            floor = limit.floor
            if bucket.level - 1 < floor and await self._is_renewal(order):
                floor = 0.0
            if bucket.level - 1 < floor:
                raise _limited(order.upstream, limit, bucket.wait_for(floor + 1), floor)
            self._buckets[order.upstream, order.community] = bucket.without(1)

    def give_back(self, order: OrderRecord) -> None:
        """Put back the token of an order that was not kept after all."""
        where = order.upstream, order.community
        bucket = self._buckets.get(where)
        if bucket is not None:
            level = min(bucket.level + 1, float(bucket.rate.count))
            self._buckets[where] = Bucket(bucket.rate, level, bucket.at)

    async def level(self, upstream: str, community: str) -> Bucket | None:
        """Return what renewals may use there now; None where no limit is known."""
        limit = self._limits.get(upstream)
        if limit is None:
            return None
        async with self._lock:
            return await self._bucket(limit, upstream, community)

    async def _bucket(self, limit: OrderLimit, upstream: str, community: str) -> Bucket:
        now = self._clock.now()
        known = self._buckets.get((upstream, community))
        if known is None:
            since = now - limit.rate.period * REPLAY_PERIODS
            taken = await self._history.orders_made(upstream, community, since)
            known = replayed(limit.rate, taken, now)
        self._buckets[upstream, community] = known = known.filled(now)
        return known

    async def _is_renewal(self, order: OrderRecord) -> bool:
        """Return whether it replaces a certificate that our account there ordered, or is for names
        that its account has had in one before; the client's word alone is not enough."""
        if order.replaces_upstream is not None:
            return True
        return await self._history.has_had(order.account_id, frozenset(order.identifiers))


def _limited(upstream: str, limit: OrderLimit, wait: timedelta, floor: float) -> Problem:
    what = "what is left is kept for renewals" if floor else "none is left"
    wait = max(wait, SHORTEST_WAIT)
    return Problem(
        ProblemType.RATE_LIMITED,
        f"orders for upstream '{upstream}' are limited to {format_rate(limit.rate)} and {what}, "
        f"try again in {format_duration(timedelta(seconds=round(wait.total_seconds())))}",
        retry_after=wait,
    )
