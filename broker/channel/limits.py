"""How often agents may ask: by address where no node is behind a request, else by node.

Who shows nothing pays before the request is looked at.  Who claims to be a node is looked at, and
pays only if there is none: ten thousand nodes behind one address that come back at once cost that
address nothing, and no stranger there can use up what they need.  An answer that refuses is held
back for a moment, so that a loop which heeds nothing is no tight one.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.channel.door import RETRY_SECONDS, Handler
from broker.channel.shown import has_claim
from broker.issuance.ports import Clock
from broker.protocol.problems import Problem, ProblemType

__all__ = ["AgentLimits", "Doorkeeper", "NoLimits", "Tally"]

HOLD_BACK: Final = timedelta(seconds=1)
"""How long the answer to whoever is over the limit is held back: a loop makes one turn a second on
each connection then."""

MAX_HELD_BACK: Final = 1000
"""Most answers that are held back at once, about 20 KiB each; past it they go out at once."""

_BELIEVED: Final = web.RequestKey("believed", bool)
"""Key of a request behind which a node was found."""


class Tally(Protocol):
    """Token buckets of one limit, by key."""

    def take(self, key: str, now: datetime) -> timedelta:
        """Take a token, or return how long to wait for the next one."""
        ...


class Doorkeeper(Protocol):
    """Told who is behind a request, once that is proven."""

    def believe(self, request: web.Request, node_id: str) -> None:
        """Count the request by its node instead of by its address.

        Raises:
            Problem: rateLimited, the node asks too often.
        """
        ...


class NoLimits:
    """Lets everybody ask as often as they like."""

    def believe(self, request: web.Request, node_id: str) -> None:
        """Do nothing."""


class AgentLimits:
    """Keeps count for the agents' listener, and refuses who asks too often."""

    def __init__(
        self,
        *,
        addresses: Tally,
        nodes: Tally,
        network_of: Callable[[str | None], str],
        clock: Clock,
        on_refused: Callable[[str], None],
        hold_back: timedelta = HOLD_BACK,
    ) -> None:
        """Count by what *network_of* makes of an address; *on_refused* is told ``agents`` or
        ``nodes`` of each refusal."""
        self._addresses = addresses
        self._nodes = nodes
        self._network_of = network_of
        self._clock = clock
        self._on_refused = on_refused
        self._hold_back_for = hold_back
        self._held_back = 0

    @property
    def middleware(self) -> Middleware:
        """Return what counts requests by address, as aiohttp takes it."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await self._count(request, handler)
            except _TooOften:
                await self._hold_back()
                raise

        return count

    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        address = self._network_of(request.remote)
        if not has_claim(request):
            self._take("agents", self._addresses, address)
            return await handler(request)
        try:
            return await handler(request)
        except (Problem, web.HTTPException):
            if not request.get(_BELIEVED):
                self._take("agents", self._addresses, address)
            raise

    def believe(self, request: web.Request, node_id: str) -> None:
        """Count the request by its node instead of by its address.

        Raises:
            Problem: rateLimited, the node asks too often.
        """
        request[_BELIEVED] = True
        self._take("nodes", self._nodes, node_id)

    def _take(self, limit: str, tally: Tally, key: str) -> None:
        wait = tally.take(key, self._clock.now())
        if not wait:
            return
        self._on_refused(limit)
        # Those who were refused together would come back together: each is told another time.
        seconds = math.ceil(wait.total_seconds()) + secrets.randbelow(RETRY_SECONDS + 1)
        raise _TooOften(
            ProblemType.RATE_LIMITED,
            f"too many requests, limit '{limit}' is reached",
            retry_after=timedelta(seconds=seconds),
        )

    async def _hold_back(self) -> None:
        if self._held_back >= MAX_HELD_BACK:
            return
        self._held_back += 1
        try:
            await asyncio.sleep(self._hold_back_for.total_seconds())
        finally:
            self._held_back -= 1


class _TooOften(Problem):
    """A refusal of our own making; what anybody else limits is passed on without delay."""
