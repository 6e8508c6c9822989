"""One key of one ConfigMap, kept as it should be: read, and patched where it differs.

It is never created: whoever installs the broker makes it, so that the broker's right is to get and
patch that one name.  What others keep in it is left alone.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from broker.issuance.errors import Broken, Unreachable

__all__ = ["ConfigMapPlace", "KeptConfigMap"]

REQUEST_TIME: Final = timedelta(seconds=10)
"""Limit for one request; an API server answers within one second."""

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Largest answer that is read, in bytes: a ConfigMap holds 1 MiB, as JSON a little more."""

MAX_TEXT_BYTES: Final = 900 * 1024
"""Largest text that is kept, in bytes: Kubernetes takes 1 MiB for all of a ConfigMap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapPlace:
    """Where the text is kept."""

    server: str
    namespace: str
    name: str
    key: str

    @property
    def url(self) -> str:
        """Return the ConfigMap's URL."""
        namespace, name = quote(self.namespace, safe=""), quote(self.name, safe="")
        root = self.server.rstrip("/")
        return f"{root}/api/v1/namespaces/{namespace}/configmaps/{name}"

    def __str__(self) -> str:
        return f"ConfigMap {self.namespace}/{self.name}"


class KeptConfigMap:
    """Keeps the text of one key."""

    def __init__(
        self,
        place: ConfigMapPlace,
        read_token: Callable[[], bytes],
        *,
        ca_bundle: Path | None,
        user_agent: str,
    ) -> None:
        """Show what *read_token* returns, which may get and patch the ConfigMap."""
        self._place = place
        self._read_token = read_token
        self._ca_bundle = ca_bundle
        self._user_agent = user_agent

    async def keep(self, text: str) -> str | None:
        """Have the key hold *text*; return what it held before.

        Raises:
            Unreachable: The API server cannot be asked, or does not let us.
            Broken: The text is larger than a ConfigMap, or our CA bundle cannot be used.
        """
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise Broken(f"{self._place} cannot hold {len(text)} characters")
        async with self._session() as session:
            found = await self._send(session, "GET")
            before = found["data"].get(self._place.key)
            if before != text:
                await self._send(session, "PATCH", {"data": {self._place.key: text}})
        return before if isinstance(before, str) else None

    def _session(self) -> aiohttp.ClientSession:
        try:
            trust = None if self._ca_bundle is None else str(self._ca_bundle)
            context = ssl.create_default_context(cafile=trust)
        except (OSError, ssl.SSLError) as error:
            raise Broken(f"CA bundle {self._ca_bundle} cannot be used: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A connection of its own: this happens every few minutes.
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIME.total_seconds()),
            headers={
                "User-Agent": self._user_agent,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Authorization": f"Bearer {self._token()}",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    def _token(self) -> str:
        try:
            return self._read_token().decode("ascii").strip()
        except (Broken, UnicodeDecodeError) as error:
            raise Unreachable(f"{self._place}: our own token cannot be read: {error}") from error

    async def _send(
        self, session: aiohttp.ClientSession, method: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        headers = {} if body is None else {"Content-Type": "application/merge-patch+json"}
        sent = None if body is None else json.dumps(body).encode()
        try:
            async with session.request(
                method, self._place.url, data=sent, headers=headers, allow_redirects=False
            ) as answer:
                octets = await _read_bounded(answer)
        except TimeoutError as error:
            seconds = REQUEST_TIME.total_seconds()
            raise Unreachable(f"{self._place}: no answer within {seconds:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"{self._place}: {str(error) or type(error).__name__}") from error
        if answer.status != 200:
            raise Unreachable(f"{self._place}: {method} was answered {answer.status}, expected 200")
        return self._parsed(octets)

    def _parsed(self, octets: bytes) -> Mapping[str, Any]:
        try:
            found = json.loads(octets)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("data") or {}, dict):
            raise Unreachable(f"{self._place}: the answer is no ConfigMap")
        return {**found, "data": found.get("data") or {}}


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    read = b""
    while not answer.content.at_eof():
        read += await answer.content.read(MAX_ANSWER_BYTES + 1 - len(read))
        if len(read) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError("answer is too large")
    return read
