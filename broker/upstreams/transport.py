"""HTTP to one CA: connections, proxy, trust, limits, and nothing of ACME.

One session for a CA, shared by all accounts there.  It follows no redirect, keeps no cookie,
unpacks no compression and reads no more of a body than the request allows.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import yarl

from broker.issuance.errors import Broken, Unreachable
from broker.protocol.exchange import HttpRequest, HttpResponse

__all__ = ["HttpTransport", "Transport", "TransportSettings"]

CONNECT_TIME: Final = timedelta(seconds=10)
"""Default limit for reaching a CA, TLS included; a busy one answers in 1 s."""

REQUEST_TIME: Final = timedelta(seconds=60)
"""Default limit for one request; CAs that sign inside finalize take up to half a minute."""

KEEP_ALIVE_SECONDS: Final = 15.0
"""How long an idle connection is kept.  Shorter than any CA's own limit: a connection that the
CA closes just as we send leaves us not knowing whether it read the request."""

MAX_IN_FLIGHT: Final = 16
"""Default number of requests to one CA at a time; Let's Encrypt asks for fewer than 20."""

_USER_INFORMATION: Final = re.compile(r"//[^/\s]*@")


class Transport(Protocol):
    """Carries one request to a CA and its answer back."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the answer, whatever its status.

        Raises:
            Unreachable: None came; the request may have been acted on all the same.
            Broken: None can come until a person acts.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How one CA is reached."""

    user_agent: str
    ca_bundle: Path | None = None
    """PEM file of the only roots that are trusted; None: those of the system."""
    client_certificate: Path | None = None
    """PEM chain shown to a CA that asks who connects."""
    client_key: Path | None = None
    client_key_passphrase: bytes | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    """URL of an outbound HTTP proxy; may hold a password, so it is never shown."""
    trust_environment: bool = False
    """Whether HTTPS_PROXY and its kin are heeded where *proxy* is None."""
    connect_timeout: timedelta = CONNECT_TIME
    request_timeout: timedelta = REQUEST_TIME
    max_in_flight: int = MAX_IN_FLIGHT


class HttpTransport:
    """Implements `Transport` over aiohttp.  Use inside a running loop, and close it."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the answer, whatever its status.

        Raises:
            Unreachable: None came; the request may have been acted on all the same.
            Broken: The CA's certificate is not trusted, or our own TLS files are unusable.
        """
        async with self._slots:
            try:
                return await self._send(request)
            except aiohttp.ClientConnectorCertificateError as error:
                raise Broken(
                    f"{request.url}: certificate of the CA is not trusted: "
                    f"{error.certificate_error}; see its CA bundle and our clock"
                ) from error
            except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError) as error:
                raise Unreachable(
                    f"{request.url}: outbound proxy failed: {_told(error)}"
                ) from error
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                # No connection, so the CA never saw the request.
                raise Unreachable(f"{request.url}: {_told(error)}", left_nothing=True) from error
            except TimeoutError as error:
                limit = self._settings.request_timeout.total_seconds()
                raise Unreachable(f"{request.url}: no answer within {limit:g} s") from error
            except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
                raise Unreachable(f"{request.url}: {_told(error)}") from error

    async def _send(self, request: HttpRequest) -> HttpResponse:
        session = self._open_session()
        async with session.request(
            request.method,
            yarl.URL(request.url, encoded=True),  # as the CA spelled it: it is signed so
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            proxy=self._settings.proxy,
        ) as response:
            body, is_cut = await _read(response, request.max_answer_bytes)
            if body and response.headers.get("Content-Encoding", "identity") != "identity":
                raise Broken(f"{request.url} answered compressed, though it was asked not to")
            return HttpResponse(response.status, tuple(response.headers.items()), body, is_cut)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=settings.max_in_flight,
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    ssl=_tls_context(settings),
                ),
                timeout=aiohttp.ClientTimeout(
                    total=settings.request_timeout.total_seconds(),
                    connect=settings.connect_timeout.total_seconds(),
                ),
                headers={
                    "User-Agent": settings.user_agent,
                    "Accept-Encoding": "identity",
                    "Accept-Language": "en",
                },
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=settings.trust_environment,
                raise_for_status=False,
            )
        return self._session


def _told(error: Exception) -> str:
    """Return what happened, without the name and password that a proxy's URL may hold."""
    return _USER_INFORMATION.sub("//…@", str(error)) or type(error).__name__


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Return at most *limit* bytes of the body, and whether there were more."""
    parts: list[bytes] = []
    left = limit
    async for part in response.content.iter_any():
        if len(part) > left:
            response.close()  # not back into the pool: the rest is never read
            return b"".join((*parts, part[:left])), True
        parts.append(part)
        left -= len(part)
    return b"".join(parts), False


def _tls_context(settings: TransportSettings) -> ssl.SSLContext:
    bundle = settings.ca_bundle
    try:
        context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    except (OSError, ssl.SSLError) as error:
        raise Broken(f"CA bundle {bundle} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_certificate is not None:
        passphrase = settings.client_key_passphrase
        try:
            # An empty passphrase instead of None: OpenSSL would ask for one on the terminal.
            context.load_cert_chain(
                settings.client_certificate,
                settings.client_key,
                password=passphrase if passphrase is not None else b"",
            )
        except (OSError, ssl.SSLError) as error:
            raise Broken(
                f"client certificate {settings.client_certificate} cannot be used: {error}"
            ) from error
    return context
