"""How often clients may ask: by address while nobody knows them, by account from then on.

What is counted by address is what no account has signed, refused signatures included; a request
that an account signed costs its address nothing.  An account over its limit is refused before its
signature is verified, so that a client in a tight loop costs little; its answer is held back for a
moment, so that the loop is not a tight one any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Clock
from broker.policy.units import Rate
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.web.buckets import Buckets
from broker.web.origins import peer_of
from broker.web.problems import ACCOUNT, Handler

__all__ = ["Gatekeeper", "Limit", "LimitObserver", "WebRates", "client_network"]

HOLD_BACK: Final = timedelta(seconds=1)
"""How long the answer to a client over its limit is held back: a loop makes one turn a second on
each connection then, and those are bounded."""

MAX_HELD_BACK: Final = 1000
"""Most answers that are held back at once, about 20 KiB each; past it they go out at once."""

IPV6_BITS: Final = 64
"""Length of the IPv6 prefix that counts as one client: what the smallest site is given."""


class Limit(StrEnum):
    """The limits, as metrics and the log name them."""

    ADDRESS = "address"
    NEW_ACCOUNTS = "new-accounts"
    ACCOUNT = "account"
    NEW_ORDERS = "new-orders"
    FAILED_VALIDATIONS = "failed-validations"
    CONNECTIONS = "connections"
    AGENTS = "agents"
    NODES = "nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRates:
    """The rate of each limit; None: there is none.

    The rates that hold without being configured, and what they count, stand in the configuration.
    """

    address: Rate | None = None
    new_accounts: Rate | None = None
    account: Rate | None = None
    new_orders: Rate | None = None
    failed_validations: Rate | None = None


class LimitObserver(Protocol):
    """Counts what was refused (``telemetry`` is one)."""

    def limit_reached(self, limit: str) -> None:
        """Count one refusal; *limit* is a `Limit`."""
        ...


class LimitReached(Problem):
    """A refusal of our own making; what an upstream limits is passed on without delay."""


class Gatekeeper:
    """Keeps count of clients for one listener, and refuses those who ask too often."""

    def __init__(
        self,
        rates: WebRates,
        *,
        clock: Clock,
        observer: LimitObserver,
        help_url: str,
        hold_back: timedelta = HOLD_BACK,
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._help_url = help_url
        self._buckets = {
            Limit.ADDRESS: Buckets(rates.address),
            Limit.NEW_ACCOUNTS: Buckets(rates.new_accounts),
            Limit.ACCOUNT: Buckets(rates.account, can_owe=True),
            Limit.NEW_ORDERS: Buckets(rates.new_orders),
            Limit.FAILED_VALIDATIONS: Buckets(rates.failed_validations),
        }
        self._hold_back_for = hold_back
        self._held_back = 0

    # ------------------------------------------------------------------------------- addresses

    @property
    def middleware(self) -> Middleware:
        """Return what counts requests by address, as aiohttp takes it."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._count(request, handler)

        return count

    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        address = client_network(peer_of(request))
        try:
            self._take(Limit.ADDRESS, address)
            try:
                return await handler(request)
            finally:
                if ACCOUNT in request:
                    self._buckets[Limit.ADDRESS].give_back(address)
        except LimitReached:
            await self._hold_back()
            raise

    @contextlib.contextmanager
    def new_account(self, request: web.Request) -> Iterator[_Registration]:
        """Count a registration by its address, unless it turns out to be none.

        Raises:
            Problem: rateLimited.
        """
        address = client_network(peer_of(request))
        self._take(Limit.NEW_ACCOUNTS, address)
        registration = _Registration()
        try:
            yield registration
        finally:
            if not registration.is_new:
                self._buckets[Limit.NEW_ACCOUNTS].give_back(address)

    # -------------------------------------------------------------------------------- accounts

    def check_account(self, account_id: str) -> None:
        """Refuse an account that is over its limit, before anything is done for it.

        Raises:
            Problem: rateLimited.
        """
        self._refuse(Limit.ACCOUNT, self._wait(Limit.ACCOUNT, account_id))

    def count_account(self, account_id: str) -> None:
        """Count a request that the account has signed; it is not refused for it any more.

        Others of the account may have been let in since it was: they are all counted, and up to a
        whole bucket of them is paid for before the next one is let in.
        """
        self._buckets[Limit.ACCOUNT].charge(account_id, self._clock.now())

    def count_order(self, account_id: str, identifiers: Sequence[Identifier]) -> None:
        """Count a newOrder or newAuthz of the account.

        Raises:
            Problem: rateLimited, for orders as such or for a name that failed too often.
        """
        now = self._clock.now()
        failed = self._buckets[Limit.FAILED_VALIDATIONS]
        waits = {one: failed.wait(_name(account_id, one.base), now) for one in identifiers}
        refused = {one: wait for one, wait in waits.items() if wait}
        if refused:
            self._observer.limit_reached(Limit.FAILED_VALIDATIONS)
            raise self._failed_too_often(refused)
        self._take(Limit.NEW_ORDERS, account_id)

    def on_events(self, events: Sequence[Event]) -> None:
        """Count the validations that failed."""
        for event in events:
            if event.kind is EventKind.CHALLENGE_INVALID and event.account_id is not None:
                name = _name(event.account_id, event.data.get("identifier"))
                self._buckets[Limit.FAILED_VALIDATIONS].take(name, event.at)

    # -------------------------------------------------------------------------------- together

    def _take(self, limit: Limit, key: str) -> None:
        self._refuse(limit, self._buckets[limit].take(key, self._clock.now()))

    def _wait(self, limit: Limit, key: str) -> timedelta:
        return self._buckets[limit].wait(key, self._clock.now())

    def _refuse(self, limit: Limit, wait: timedelta) -> None:
        if wait:
            self._observer.limit_reached(limit)
            raise self._problem(f"too many requests, limit '{limit}' is reached", wait)

    def _failed_too_often(self, refused: dict[Identifier, timedelta]) -> Problem:
        kind = ProblemType.RATE_LIMITED
        subproblems = [
            Problem(kind, f"validations of '{one}' failed too often", identifier=one)
            for one in refused
        ]
        names = ", ".join(f"'{one}'" for one in refused)
        detail = f"validations failed too often for {names}: see to the challenge first"
        return self._problem(detail, max(refused.values()), subproblems)

    def _problem(
        self, detail: str, wait: timedelta, subproblems: Sequence[Problem] = ()
    ) -> Problem:
        return LimitReached(
            ProblemType.RATE_LIMITED,
            detail,
            retry_after=wait,
            links=(("help", self._help_url),),
            subproblems=subproblems,
        )

    async def _hold_back(self) -> None:
        if self._held_back >= MAX_HELD_BACK:
            return
        self._held_back += 1
        try:
            await asyncio.sleep(self._hold_back_for.total_seconds())
        finally:
            self._held_back -= 1


@dataclass(slots=True)
class _Registration:
    is_new: bool = False


@functools.lru_cache(maxsize=4096)
def client_network(remote: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 one.

    A peer at a Unix socket has no address; all of them count as one.
    """
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, IPV6_BITS), strict=False))
        address = address.ipv4_mapped
    return str(address)


def _name(account_id: str, identifier: object) -> str:
    return f"{account_id} {identifier}"
