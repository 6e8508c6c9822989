"""TXT records set through a DNS provider's API, by a library that knows ninety of them.

The library runs in a worker process (``lexicon_worker``) that is told one provider's secret and
lives for one change.  Changes of one zone wait for each other: most providers replace the whole
record set, and two at once would lose a value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.children import run_child
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.placement import PlacedRecord, ZoneLocks, ZoneMap, parse_name, place

__all__ = ["ProviderSettings", "ProviderZone"]

log = structlog.get_logger(__name__)

WORKER: Final = Path(__file__).with_name("lexicon_worker.py")
"""The program that is run: a file, so that nothing of the broker is loaded with it."""

CHANGE_TIME: Final = timedelta(seconds=60)
"""Default limit for one change; providers answer in a second, some take a dozen requests."""

RECORD_TTL: Final = timedelta(seconds=120)
"""Default lifetime of a record in caches: the shortest that many providers take."""

LIBRARY: Final = "penstock[dns]"
"""What has to be installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """A zone at a DNS provider."""

    provider: str
    """The library's name of the provider."""
    zone: str
    """The zone as the provider has it; never looked for."""
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = ()
    """Further files that the provider's code may read."""
    resolvers: tuple[NameServer, ...] = ()
    """Resolvers, by address, that find aliases; none: those of the system."""
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    ttl: timedelta = RECORD_TTL
    timeout: timedelta = CHANGE_TIME


class ProviderZone:
    """Adds and removes single TXT values through a provider."""

    def __init__(
        self, settings: ProviderSettings, locks: ZoneLocks, *, zones: ZoneMap | None = None
    ) -> None:
        """Take the settings; nothing is started before the first call.

        Raises:
            Broken: The zone's name cannot be used.
        """
        self._settings = settings
        self._zone = parse_name(settings.zone, "zone")
        self._lock = locks.of(settings.provider, self._zone.to_text())
        self._zones = zones or Lookup(settings.resolvers)

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Add *value* at *name*, or where its aliases lead, and return where that is.

        Raises:
            Unreachable: The provider does not answer now; the value may stand there all the same.
            Broken: The aliases lead elsewhere, or the provider does not let us.
        """
        placed = await place(self._zones, self._zone, name, value)
        await self._change("present", placed)
        return placed

    async def remove(self, placed: PlacedRecord) -> None:
        """Remove exactly the value that was added; one that is gone already is no error.

        Raises:
            Unreachable: The provider does not answer now.
            Broken: The provider does not let us.
        """
        await self._change("cleanup", placed)

    async def _change(self, action: str, placed: PlacedRecord) -> None:
        settings = self._settings
        task = {
            "provider": settings.provider,
            "zone": placed.zone.removesuffix("."),
            "action": action,
            "name": placed.name.removesuffix("."),
            "value": placed.value,
            "ttl_seconds": int(settings.ttl.total_seconds()),
            "options": dict(settings.options),
            "secrets": dict(settings.secrets),
            "files": [str(path) for path in settings.files],
        }
        what = f"change of {placed.name} at DNS provider '{settings.provider}'"
        async with self._lock:
            done = await run_child(
                [sys.executable, "-I", "-B", str(WORKER)],
                what=what,
                timeout=settings.timeout,
                environment=self._environment(),
                given=json.dumps(task).encode(),
            )
        outcome = _outcome(done.output)
        if outcome is None or not outcome.get("done"):
            complaint = self._masked(done.complaint.decode("utf-8", "replace"))
            log.warning("DNS provider complains", provider=settings.provider, said=complaint)
            raise _failure(what, outcome, done.status)
        if not outcome.get("confined"):
            log.info("worker of a DNS provider runs unconfined, the kernel offers no means")

    def _environment(self) -> Mapping[str, str]:
        environment = {"HOME": "/nonexistent", "TLDEXTRACT_CACHE_PATH": "/nonexistent"}
        if self._settings.proxy is not None:
            environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), self._settings.proxy)
        if self._settings.ca_bundle is not None:
            bundle = str(self._settings.ca_bundle)
            environment |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), bundle)
        return environment

    def _masked(self, text: str) -> str:
        for secret in self._settings.secrets.values():
            text = text.replace(secret, "(secret)")
        return text


def _outcome(output: bytes) -> dict[str, Any] | None:
    try:
        outcome = json.loads(output)
    except ValueError:
        return None
    return outcome if isinstance(outcome, dict) else None


def _failure(what: str, outcome: Mapping[str, Any] | None, status: int) -> Unreachable | Broken:
    """Return what the failure is to us.  It is our own set-up's: never a refusal of the order."""
    if outcome is None:
        return Broken(f"{what}: its worker ended with status {status} and no answer, see the log")
    missing = outcome.get("missing")
    if missing in ("lexicon", "dns"):
        return Broken(f"{what}: the library is not installed, expected {LIBRARY}")
    if missing is not None:
        return Broken(f"{what}: it needs the Python package '{missing}', which is not installed")
    code = outcome.get("status")
    told = f"{outcome.get('error')}{f', status {code}' if code is not None else ''}"
    if outcome.get("passing"):
        return Unreachable(f"{what} failed ({told}), see the log")
    return Broken(f"{what} is refused ({told}), see the log for its words")
