"""What a CA lets us order, and the share of it that is kept for renewals.

A CA counts all orders of our one account, so a hundred new hosts could use up what the renewals
of tonight need; and it counts certificates for the same names, or below the same registered
domain, whoever ordered them.  An order takes a token of each when it is made; new names get none
once only the kept share is left, and are told when to come again.  The buckets lie in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.ports import Clock, PublicSuffixes
from broker.issuance.quota_ports import (
    BucketKind,
    BucketRecord,
    BucketStore,
    GivesBack,
    OrderHistory,
    Take,
)
from broker.issuance.records import OrderRecord
from broker.policy.buckets import REPLAY_PERIODS, Bucket, replayed
from broker.policy.domains import registered_domains
from broker.policy.published_limits import Exemption, LimitPer, PublishedLimit, limits_on
from broker.policy.units import Rate
from broker.protocol.identifiers import Identifier

__all__ = ["RenewalBudget", "bucket_as_of", "names_key"]

SEPARATOR: Final = "|"
"""Between the parts of a bucket's name: no name of the configuration and no host name has it."""

NAMED_CHARS: Final = 200
"""Longest list of names that stands in a bucket's name as it is, in characters; of a longer one
the digest does."""


KnownLimits = Callable[[str], Sequence[PublishedLimit]]
"""Tells the limits of an upstream, whatever their day; empty: none is known."""


class RenewalBudget:
    """Knows the limits of CAs."""

    def __init__(
        self,
        store: BucketStore,
        limits: KnownLimits,
        clock: Clock,
        suffixes: PublicSuffixes,
    ) -> None:
        """*limits* are asked for each order: facts may have been read anew."""
        self._store = store
        self._limits = limits
        self._clock = clock
        self._suffixes = suffixes

    def limits(self, upstream: str) -> Sequence[PublishedLimit]:
        """Return the limits that are in force there now."""
        return limits_on(self._limits(upstream), self._clock.now())

    async def takes(self, order: OrderRecord) -> tuple[Take, ...]:
        """Return the tokens of the CA's limits that *order* needs, of all of its upstream."""
        found: list[Take] = []
        judged = Judged(self._store, order)
        for limit in self.limits(order.upstream):
            if limit.rate is None or await judged.is_exempt(limit):
                continue
            floor = limit.floor
            if floor and await judged.is_renewal():
                floor = 0.0
            found += [
                Take(
                    bucket=name,
                    kind=BucketKind.CA,
                    rate=limit.rate,
                    floor=floor,
                    at_first=await self._at_first(limit, name, order),
                    gives_back=GivesBack.UNSENT
                    if limit.per is LimitPer.ACCOUNT
                    else GivesBack.UNISSUED,
                )
                for name in self._buckets(limit.per, order)
            ]
        return tuple(found)

    async def level(self, upstream: str, community: str) -> Bucket | None:
        """Return what renewals may use of our account there now; None where no limit is known."""
        for limit in self.limits(upstream):
            if limit.per is LimitPer.ACCOUNT and limit.rate is not None:
                name = account_bucket(upstream, community)
                kept = await self._store.read_bucket(name)
                now = self._clock.now()
                if kept is None and limit.exempt:
                    return Bucket.full(limit.rate, now)
                if kept is None:
                    return await self._replayed(limit.rate, upstream, community)
                return bucket_as_of(kept, now).resized(limit.rate)
        return None

    def _buckets(self, per: LimitPer, order: OrderRecord) -> Sequence[str]:
        """Return the buckets that an order takes from under a limit of one kind.

        CAs count certificates for the same names over all accounts, so all communities share
        those buckets.
        """
        upstream = order.upstream
        if per is LimitPer.ACCOUNT:
            return (account_bucket(upstream, order.community),)
        if per is LimitPer.NAMES:
            return (_joined(BucketKind.CA, upstream, per, names_key(order.identifiers)),)
        domains = registered_domains(order.identifiers, self._suffixes.is_public_suffix)
        return [_joined(BucketKind.CA, upstream, per, domain) for domain in domains]

    async def _at_first(self, limit: PublishedLimit, name: str, order: OrderRecord) -> float | None:
        """Return the level of a bucket that is not kept: what the kept orders make of it.

        Where the CA does not count some of them, nobody knows which of the kept ones it counted.
        """
        if limit.per is not LimitPer.ACCOUNT or limit.rate is None or limit.exempt:
            return None
        if await self._store.read_bucket(name) is not None:
            return None
        return (await self._replayed(limit.rate, order.upstream, order.community)).level

    async def _replayed(self, rate: Rate, upstream: str, community: str) -> Bucket:
        now = self._clock.now()
        since = now - rate.period * REPLAY_PERIODS
        return replayed(rate, await self._store.orders_made(upstream, community, since), now)


class Judged:
    """Whether one order is a renewal, found out when it is first asked."""

    def __init__(self, history: OrderHistory, order: OrderRecord) -> None:
        self._history = history
        self._order = order
        self._has_had: bool | None = None
        self._has_had_there: bool | None = None

    async def is_renewal(self) -> bool:
        """Return whether it replaces a certificate that our account there ordered, or is for names
        that its account has had in one before; the client's word alone is not enough."""
        if self._order.replaces_upstream is not None:
            return True
        if self._has_had is None:
            order = self._order
            self._has_had = await self._history.has_had(
                order.account_id, frozenset(order.identifiers)
            )
        return self._has_had

    async def is_exempt(self, limit: PublishedLimit) -> bool:
        """Return whether the CA does not count it under *limit*."""
        order = self._order
        if Exemption.REPLACEMENTS in limit.exempt and order.replaces_upstream == order.upstream:
            return True
        if Exemption.SAME_NAMES not in limit.exempt:
            return False
        if self._has_had_there is None:
            self._has_had_there = await self._history.has_had_there(
                order.account_id, order.upstream, frozenset(order.identifiers)
            )
        return self._has_had_there


def account_bucket(upstream: str, community: str) -> str:
    """Return the name of the bucket of our account at a CA."""
    return _joined(BucketKind.CA, upstream, LimitPer.ACCOUNT, community)


def names_key(identifiers: Sequence[Identifier]) -> str:
    """Return what an exact set of identifiers is counted under: itself, or its digest."""
    text = ",".join(sorted({one.value for one in identifiers}))
    return text if len(text) <= NAMED_CHARS else hashlib.sha256(text.encode()).hexdigest()


def bucket_as_of(record: BucketRecord, now: datetime) -> Bucket:
    """Return a kept bucket as it is at *now*."""
    rate = Rate(record.count, timedelta(microseconds=record.period_microseconds))
    return Bucket(rate, record.level, record.at).filled(now)


def _joined(*parts: str) -> str:
    return SEPARATOR.join(parts)
