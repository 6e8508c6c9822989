"""http-01: fetch the resource of RFC 8555 §8.3, wherever redirects lead that may be gone to.

Each hop is resolved once, its addresses are judged by ``targets``, and the connection goes to the
very address that was judged: an answer that changes in between (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType, Failure, Observation, http01_path
from broker.validation.failures import Unobserved
from broker.validation.http_exchange import ConnectFailed, Reply, Request, exchange
from broker.validation.reaching import Reaching
from broker.validation.resolver import Resolver
from broker.validation.targets import (
    HTTP_PORT,
    HTTPS_PORT,
    IpAddress,
    ValidationSettings,
    is_own_address,
)

__all__ = ["Http01"]

MAX_REDIRECTS: Final = 10
"""Most redirects that are followed from one resource; Boulder follows as many."""

MAX_LOCATION_CHARS: Final = 2000
"""Longest Location that is followed, in characters."""

MAX_OBSERVED_BYTES: Final = 512
"""Most octets of a body that are handed on for judging; a key authorization has fewer than 310."""

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"http": HTTP_PORT, "https": HTTPS_PORT}


@dataclass(frozen=True, slots=True)
class _Url:
    """A URL that may be gone to, as far as its host's addresses allow."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Http01:
    """Looks for http-01 answers in one community's networks."""

    def __init__(
        self,
        settings: ValidationSettings,
        resolver: Resolver,
        *,
        is_own: Callable[[IpAddress], bool] = is_own_address,
    ) -> None:
        self._settings = settings
        self._reaching = Reaching(settings, resolver, is_own=is_own)

    async def observe(self, question: Question) -> Observation:
        """Return the body that was found, or why there is none."""
        host, port = question.identifier.value, self._settings.http_port
        url = _Url("http", host, port, http01_path(question.token))
        tried: list[str] = []
        answers: tuple[bytes, ...] = ()
        failure: Failure | None = None
        limit = self._settings.timeout
        try:
            async with asyncio.timeout(limit.total_seconds()):
                answers = (await self._follow(url, tried),)
        except TimeoutError:
            failure = Failure("timeout", f"no answer within {limit.total_seconds():g} s")
        except Unobserved as error:
            failure = error.failure
        # The token stays out of sentences, events and logs: whoever has it can answer for it.
        asked = str(url).replace(question.token, "…")
        return Observation(ChallengeType.HTTP_01, asked, tuple(tried), answers, failure)

    async def _follow(self, first: _Url, tried: list[str]) -> bytes:
        url = first
        for _ in range(MAX_REDIRECTS + 1):
            try:
                reply = await self._fetch(url, tried)
                if reply.status == 200:
                    return reply.body[:MAX_OBSERVED_BYTES]
                if reply.status not in _REDIRECTS:
                    raise Unobserved("protocol", f"status {reply.status}, expected 200")
                following = self._redirect(url, reply)
            except Unobserved as error:
                if url is first:
                    raise
                # The path stays out: it is a server's text, and may be meant for another reader.
                where, failure = f"{url.scheme}://{url.authority}", error.failure
                raise Unobserved(failure.kind, f"redirected to {where}: {failure.text}") from None
            url = following
        raise Unobserved("protocol", f"more than {MAX_REDIRECTS} redirects")

    async def _fetch(self, url: _Url, tried: list[str]) -> Reply:
        fault = "no address"
        for target in await self._reaching.targets(url.host, url.port):
            tried.append(str(target.address))
            server_name = url.host if url.scheme == "https" else None
            request = Request(url.authority, url.path, server_name)
            try:
                return await exchange(
                    target,
                    request,
                    connect_timeout=self._reaching.connect_timeout,
                    dialer=self._reaching.dialer,
                )
            except ConnectFailed as error:
                fault = str(error)
        raise Unobserved("connection", fault)

    def _redirect(self, url: _Url, reply: Reply) -> _Url:
        location = reply.location
        if not location:
            raise Unobserved("protocol", f"status {reply.status} without a Location")
        if len(location) > MAX_LOCATION_CHARS or _VISIBLE.fullmatch(location) is None:
            raise Unobserved("protocol", "the redirect's Location is not a URL")
        try:
            # The library fills in a host that an absolute URL lacks; a browser would not.
            is_lacking = urlsplit(location).scheme != "" and urlsplit(location).netloc == ""
            parts = urlsplit("" if is_lacking else urljoin(str(url), location))
            host, port = (parts.hostname or "").removesuffix("."), parts.port
        except ValueError:
            raise Unobserved("protocol", "the redirect's Location is not a URL") from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise Unobserved("protocol", "the redirect leads to neither http nor https")
        if parts.username is not None or parts.password is not None:
            raise Unobserved("protocol", "the redirect's Location carries credentials")
        # Where http and https live here is configured, so a URL without a port means that one.
        configured = {"http": self._settings.http_port, "https": self._settings.https_port}
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        port = configured[parts.scheme] if port is None else port
        return _Url(parts.scheme, _host(host), port, path)


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if _NAME.fullmatch(text) is None:
        raise Unobserved("protocol", "the redirect's host is no name")
    return text
