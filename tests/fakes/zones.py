"""A map of zones and aliases, without any name server."""

from __future__ import annotations

from collections.abc import Mapping

import dns.name

from broker.issuance.errors import Broken

__all__ = ["FakeZoneMap"]


class FakeZoneMap:
    """Implements ``upstreams.placement.ZoneMap`` from two tables."""

    def __init__(
        self, aliases: Mapping[str, str] | None = None, zones: tuple[str, ...] = ()
    ) -> None:
        self._aliases = {_name(one): _name(two) for one, two in (aliases or {}).items()}
        self._zones = tuple(_name(zone) for zone in zones)

    async def alias_of(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the target of the alias at *name*, or None."""
        return self._aliases.get(name)

    async def zone_of(self, name: dns.name.Name) -> dns.name.Name:
        """Return the longest zone that *name* lies in."""
        found = [zone for zone in self._zones if name.is_subdomain(zone)]
        if not found:
            raise Broken(f"no zone is found for {name}")
        return max(found, key=lambda zone: len(zone.labels))


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)
