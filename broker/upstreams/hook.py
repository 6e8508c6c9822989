"""TXT records set by a program of the operator's: ``PROGRAM present|cleanup FQDN VALUE``.

The same call as lego's ``exec`` provider makes, so that programs written for it serve here.  The
program is started directly, never through a shell, and knows only the environment that the
configuration gives it.  Nothing that it prints reaches a client.  Changes of one zone wait for each
other, as lego's do: a program may read a whole record set, or a whole zone, and write it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from broker.issuance.errors import Broken
from broker.upstreams.children import run_child
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.placement import PlacedRecord, ZoneLocks, ZoneMap, parse_name, place

__all__ = ["HookSettings", "HookZone"]

log = structlog.get_logger(__name__)

RUN_TIME: Final = timedelta(seconds=60)
"""Default limit for one run; a provider's API takes a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """A program that writes records."""

    command: tuple[str, ...]
    """The program by its absolute path, and its first arguments."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All that it gets besides PATH and LANG; may hold secrets."""
    zone: str | None = None
    """The zone that it may change; None: any."""
    resolvers: tuple[NameServer, ...] = ()
    """Resolvers, by address, that find aliases; none: those of the system."""
    timeout: timedelta = RUN_TIME


class HookZone:
    """Adds and removes single TXT values by running the program."""

    def __init__(
        self, settings: HookSettings, locks: ZoneLocks, *, zones: ZoneMap | None = None
    ) -> None:
        """Take the settings; nothing is started before the first call.

        Raises:
            Broken: The zone's name cannot be used.
        """
        self._settings = settings
        self._zone = None if settings.zone is None else parse_name(settings.zone, "zone")
        self._zones = zones or Lookup(settings.resolvers)
        self._locks = locks

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Have *value* added at *name*, or where its aliases lead, and return where that is.

        Raises:
            Unreachable: The program was too slow; the value may stand there all the same.
            Broken: The aliases lead elsewhere, or the program failed.
        """
        placed = await place(self._zones, self._zone, name, value)
        await self._run("present", placed)
        return placed

    async def remove(self, placed: PlacedRecord) -> None:
        """Have exactly that value removed; the program is to bear that it is gone already.

        Raises:
            Unreachable: The program was too slow.
            Broken: The program failed.
        """
        await self._run("cleanup", placed)

    async def _run(self, action: str, placed: PlacedRecord) -> None:
        settings = self._settings
        program = settings.command[0]
        what = f"{program} {action} {placed.name}"
        async with self._locks.of(program, placed.zone):
            done = await run_child(
                [*settings.command, action, placed.name, placed.value],
                what=what,
                timeout=settings.timeout,
                environment=settings.environment,
            )
        if done.status != 0:
            said = done.complaint.decode("utf-8", "replace")
            log.warning("program of a solver failed", program=program, action=action, said=said)
            ended = f"status {done.status}" if done.status > 0 else f"signal {-done.status}"
            raise Broken(f"{what} ended with {ended}, see the log for its words")
