"""Which CAs are not to be given new orders now: those that do not answer, or limit us for long.

It is a preference and no rule.  Where policy leaves no other CA, the order is made for the one that
is away, and waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from broker.issuance.ports import Clock, UpstreamStore
from broker.issuance.quota_ports import HoldRecord, StandingStore
from broker.protocol.identifiers import Identifier

__all__ = ["Standing", "subject_of"]

WORTH_LEAVING: Final = timedelta(seconds=30)
"""Shortest wait for which an order goes elsewhere, in seconds: a limit that ends sooner costs the
client less than another CA's challenges."""


class Standing:
    """Knows how CAs stand, from the store, so that all processes over it know the same."""

    def __init__(self, *, store: StandingStore, accounts: UpstreamStore, clock: Clock) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock

    async def away(self, community: str, subject: str) -> Mapping[str, str]:
        """Return the upstreams that an order of *community* had better not go to, each with why.

        *subject* is what the order is about to a CA: its names, or its URL there.
        """
        now = self._clock.now()
        breakers, holds = await self._store.standing(now, subject)
        away = {
            one.upstream: f"does not answer since {one.since:%Y-%m-%dT%H:%M:%SZ}"
            for one in breakers
        }
        for hold in holds:
            if hold.until - now <= WORTH_LEAVING or hold.upstream in away:
                continue
            if await self._is_about(hold, community):
                away[hold.upstream] = f"limits us until {hold.until:%Y-%m-%dT%H:%M:%SZ}"
        return away

    async def _is_about(self, hold: HoldRecord, community: str) -> bool:
        if not hold.account:
            return True
        found = await self._accounts.find_upstream_account(hold.upstream, community)
        return found is not None and found.thumbprint == hold.account


def subject_of(identifiers: Sequence[Identifier]) -> str:
    """Return what a newOrder for these is about, as limits of CAs are kept under."""
    return ",".join(sorted(identifier.value for identifier in identifiers))
