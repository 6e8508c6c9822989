"""Where a TXT value really goes: the end of the aliases, in the zone that is ours to change.

Every way to write a record asks here first, so that delegation of ``_acme-challenge`` works the
same by dynamic update, through a provider's API, a webhook and a program.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Protocol

import dns.exception
import dns.name

from broker.issuance.errors import Broken, Unreachable

__all__ = [
    "PlacedRecord",
    "ZoneLocks",
    "ZoneMap",
    "follow_aliases",
    "parse_name",
    "place",
    "verify_inside",
]

MAX_ALIASES: Final = 8
"""Longest chain of aliases that is followed; two are usual, a circle has no end."""


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """One TXT value where it really stands, all aliases followed."""

    zone: str
    name: str
    value: str


class ZoneLocks:
    """One lock for each zone of each writer, shared by all who write there.

    A writer is what replaces whole record sets where it should change one value: two changes at
    once would lose one.
    """

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, writer: str, zone: str) -> asyncio.Lock:
        """Return the lock of a zone."""
        return self._locks[writer, zone]


class ZoneMap(Protocol):
    """Knows aliases and zones; `lookup.Lookup` does."""

    async def alias_of(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the target of the CNAME at *name*, or None; raises Unreachable or Broken."""
        ...

    async def zone_of(self, name: dns.name.Name) -> dns.name.Name:
        """Return the zone that *name* lies in; raises Unreachable or Broken."""
        ...


async def place(zones: ZoneMap, zone: dns.name.Name | None, name: str, value: str) -> PlacedRecord:
    """Return where *value* has to stand to be seen at *name*.

    Without a *zone* any may be changed; which one it is is then found for the look before the
    CA's alone, so its name is a guess where it cannot be found.

    Raises:
        Unreachable: A resolver does not answer now.
        Broken: The aliases lead nowhere that may be changed.
    """
    final = await follow_aliases(zones, parse_name(name, "name"))
    if zone is not None:
        return PlacedRecord(zone.to_text(), verify_inside(final, zone).to_text(), value)
    try:
        found = await zones.zone_of(final)
    except (Unreachable, Broken):
        found = final.parent()
    return PlacedRecord(found.to_text(), final.to_text(), value)


async def follow_aliases(zones: ZoneMap, name: dns.name.Name) -> dns.name.Name:
    """Return where the aliases of *name* end, *name* itself where there is none.

    Raises:
        Unreachable: A resolver does not answer now.
        Broken: The aliases go in a circle, or on for too long.
    """
    seen = [name]
    while (target := await zones.alias_of(seen[-1])) is not None:
        if target in seen:
            raise Broken(f"aliases of {name} go in a circle at {target}")
        seen.append(target)
        if len(seen) > MAX_ALIASES + 1:
            raise Broken(f"aliases of {name} go on past the limit of {MAX_ALIASES}")
    return seen[-1]


def verify_inside(name: dns.name.Name, zone: dns.name.Name) -> dns.name.Name:
    """Return *name*, proven to lie in the zone that may be changed.

    Raises:
        Broken: It lies elsewhere; an operator has to set an alias.
    """
    if not name.is_subdomain(zone):
        raise Broken(f"{name} lies outside the zone {zone}, make it an alias of a name inside")
    return name


def parse_name(text: str, what: str) -> dns.name.Name:
    """Return the absolute DNS name in *text*; *what* names it in an error.

    Raises:
        Broken: It is none.
    """
    try:
        return dns.name.from_text(text)
    except dns.exception.DNSException as error:
        raise Broken(f"{what} '{text}' is no DNS name: {error}") from error
