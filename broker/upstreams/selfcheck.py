"""A look at a zone's own servers before the CA is told to look: advice, never a gate.

Caches are not asked: they would remember that the value was not there yet.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, Protocol

import dns.exception
import dns.name

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.upstreams.lookup import NameServer
from broker.upstreams.pacing import Pacing, Pause, pause

__all__ = ["SelfCheck", "ZoneView"]

LOOK_TIME: Final = timedelta(seconds=60)
"""Default limit for waiting; secondaries of a zone are mostly there within seconds."""

FIRST_WAIT: Final = timedelta(milliseconds=200)
"""Pause after the first look; most zones show an update before it is over."""

LONGEST_WAIT: Final = timedelta(seconds=4)
"""Longest pause between two looks, to which the first one grows by doubling."""

MAX_SERVERS: Final = 8
"""Most servers of a zone that are asked each time; the root itself has thirteen."""


class ZoneView(Protocol):
    """What can be seen of zones; `lookup.Lookup` is one."""

    async def servers_of(self, zone: dns.name.Name) -> list[str]:
        """Return an address of each authoritative server; raises Unreachable or Broken."""
        ...

    async def read_txt(self, server: NameServer, name: dns.name.Name) -> frozenset[str]:
        """Return the TXT values that one server shows; raises Unreachable."""
        ...


class SelfCheck:
    """Asks the authoritative servers until all that answer show a value."""

    def __init__(
        self,
        clock: Clock,
        *,
        view: ZoneView,
        servers: tuple[NameServer, ...] = (),
        total: timedelta = LOOK_TIME,
        pause: Pause = pause,
    ) -> None:
        """Ask *servers*, by address; none: those that the zone itself names."""
        self._clock = clock
        self._view = view
        self._servers = servers
        self._total = total
        self._pause = pause

    async def look(self, *, zone: str, name: str, value: str) -> str | None:
        """Wait until the servers show *value* at *name*; return why they do not, or None."""
        try:
            wanted = dns.name.from_text(name)
            servers = await self._servers_of(dns.name.from_text(zone))
        except (Broken, Unreachable) as error:
            return f"servers of {zone} are not found: {error.reason}"
        except dns.exception.DNSException as error:
            return f"{name} is no DNS name: {error}"
        if not servers:
            return f"no server of {zone} has an address"
        pacing = Pacing(
            self._clock, self._pause, first=FIRST_WAIT, longest=LONGEST_WAIT, total=self._total
        )
        try:
            while missing := await self._missing(servers, wanted, value):
                if pacing.has_ended():
                    seconds = self._total.total_seconds()
                    return f"{name} lacks its value at {', '.join(missing)} after {seconds:g} s"
                await pacing.wait()
        except Unreachable as error:
            return error.reason
        return None

    async def _servers_of(self, zone: dns.name.Name) -> tuple[NameServer, ...]:
        if self._servers:
            return self._servers
        found = await self._view.servers_of(zone)
        return tuple(NameServer(address) for address in found[:MAX_SERVERS])

    async def _missing(
        self, servers: tuple[NameServer, ...], name: dns.name.Name, value: str
    ) -> list[str]:
        """Return the servers that answer and do not show the value.

        Raises:
            Unreachable: None of them answers: there is nothing to be learned by waiting.
        """
        results = await asyncio.gather(
            *(self._view.read_txt(server, name) for server in servers), return_exceptions=True
        )
        missing: list[str] = []
        silent = 0
        for server, result in zip(servers, results, strict=True):
            if isinstance(result, Unreachable):
                silent += 1
            elif isinstance(result, BaseException):
                raise result
            elif value not in result:
                missing.append(str(server))
        if silent == len(servers):
            raise Unreachable(f"no answer about {name} from {', '.join(map(str, servers))}")
        return missing
