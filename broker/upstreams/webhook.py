"""TXT records set by a web service of the operator's: one JSON wish, posted over HTTPS.

docs/operations/dns.md has the wire form.  A wish that is sent again carries the same key, so that
the service can tell a repetition from a second wish; each wish can be fulfilled twice without harm
all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.pacing import Pause, pause
from broker.upstreams.placement import PlacedRecord, ZoneMap, parse_name, place

__all__ = ["WebhookSettings", "WebhookZone", "sign_wish"]

log = structlog.get_logger(__name__)

ATTEMPT_TIME: Final = timedelta(seconds=30)
"""Default limit for one attempt; a service that calls a provider's API takes a few seconds."""

ATTEMPTS: Final = 3
"""Default number of attempts before the job is postponed, which tries again much later."""

FIRST_PAUSE: Final = timedelta(seconds=1)
"""Pause after the first attempt; doubled for each that follows."""

MAX_ANSWER_BYTES: Final = 4 * 1024
"""Most of an answer that is read, in bytes; it is for the log alone."""

API_VERSION: Final = "penstock.dev/v1"
"""Version of the wish's form."""

SIGNATURE_HEADER: Final = "Penstock-Signature"
"""Where the time and the MAC stand: ``t=SECONDS,v1=HEX``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """A service that writes records."""

    url: str
    ca_bundle: Path | None = None
    """PEM file of the only roots that are trusted; None: those of the system."""
    bearer: str | None = field(default=None, repr=False)
    mac_key: bytes | None = field(default=None, repr=False)
    zone: str | None = None
    """The zone that it may change; None: any."""
    resolvers: tuple[NameServer, ...] = ()
    """Resolvers, by address, that find aliases; none: those of the system."""
    user_agent: str = "penstock"
    timeout: timedelta = ATTEMPT_TIME
    attempts: int = ATTEMPTS


class WebhookZone:
    """Adds and removes single TXT values by asking the service to."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        clock: Clock,
        zones: ZoneMap | None = None,
        pause: Pause = pause,
    ) -> None:
        """Take the settings; nothing is sent before the first call.

        Raises:
            Broken: The zone's name cannot be used, or the CA bundle.
        """
        self._settings = settings
        self._zone = None if settings.zone is None else parse_name(settings.zone, "zone")
        self._zones = zones or Lookup(settings.resolvers)
        self._clock = clock
        self._pause = pause
        self._tls = _tls_context(settings.ca_bundle)

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Have *value* added at *name*, or where its aliases lead, and return where that is.

        Raises:
            Unreachable: The service does not answer now; the value may stand there all the same.
            Broken: The aliases lead elsewhere, or the service refuses.
        """
        placed = await place(self._zones, self._zone, name, value)
        await self._wish("present", placed)
        return placed

    async def remove(self, placed: PlacedRecord) -> None:
        """Have exactly that value removed; the service is to bear that it is gone already.

        Raises:
            Unreachable: The service does not answer now.
            Broken: The service refuses.
        """
        await self._wish("cleanup", placed)

    async def _wish(self, action: str, placed: PlacedRecord) -> None:
        wish = {
            "apiVersion": API_VERSION,
            "kind": "DnsChallenge",
            "action": action,
            "fqdn": placed.name,
            "zone": None if self._zone is None else placed.zone,
            "value": placed.value,
        }
        body = json.dumps(wish).encode()
        key = secrets.token_hex(16)
        delay = FIRST_PAUSE
        for attempt in range(1, self._settings.attempts + 1):
            try:
                await self._attempt(body, key)
            except Unreachable:
                if attempt == self._settings.attempts:
                    raise
                await self._pause(delay)
                delay *= 2
            else:
                return

    async def _attempt(self, body: bytes, key: str) -> None:
        settings = self._settings
        # A connection for each wish: there are few, and none is then broken when it is needed.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, force_close=True),
            timeout=aiohttp.ClientTimeout(total=settings.timeout.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        try:
            async with (
                session,
                session.post(
                    settings.url, data=body, headers=self._headers(body, key), allow_redirects=False
                ) as answer,
            ):
                said = await answer.content.read(MAX_ANSWER_BYTES)
                self._judge(answer.status, said)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Broken(
                f"webhook {settings.url}: its certificate is not trusted, see ca_bundle"
            ) from error
        except TimeoutError as error:
            limit = settings.timeout.total_seconds()
            raise Unreachable(f"webhook {settings.url}: no answer within {limit:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"webhook {settings.url}: {type(error).__name__}") from error

    def _headers(self, body: bytes, key: str) -> Mapping[str, str]:
        settings = self._settings
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "User-Agent": settings.user_agent,
            "Accept-Encoding": "identity",
        }
        if settings.bearer is not None:
            headers["Authorization"] = f"Bearer {settings.bearer}"
        if settings.mac_key is not None:
            seconds = int(self._clock.now().timestamp())
            headers[SIGNATURE_HEADER] = sign_wish(settings.mac_key, seconds, body)
        return headers

    def _judge(self, status: int, said: bytes) -> None:
        if 200 <= status < 300:
            return
        url = self._settings.url
        log.warning("webhook says no", url=url, status=status, said=said.decode("utf-8", "replace"))
        if status == 429 or status >= 500:
            raise Unreachable(f"webhook {url} answered {status}, see the log for its words")
        raise Broken(f"webhook {url} refused with {status}, see the log for its words")


def sign_wish(mac_key: bytes, seconds: int, body: bytes) -> str:
    """Return the signature header: HMAC-SHA256 over the time, a full stop, and the body."""
    mac = hmac.digest(mac_key, f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={mac.hex()}"


def _tls_context(bundle: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    except (OSError, ssl.SSLError) as error:
        raise Broken(f"webhook's CA bundle {bundle} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
