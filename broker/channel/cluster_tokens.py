"""Service-account tokens of one cluster: by the keys of its issuer, or by asking its API server.

By keys: from a file, or from the issuer's own address, kept for a while, fetched anew when a token
names one that is not known.  By review: each token is shown to the API server, which also knows
when a pod is gone.  Neither follows a redirect, heeds a proxy of the environment or reads more than
it allows.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.jwk import Jwk
from broker.protocol.service_account_token import (
    MAX_KEY_SET_BYTES,
    ParsedToken,
    ServiceAccount,
    TokenRejected,
    TokenTerms,
    parse_key_set,
    parse_review,
    verify_token,
)

__all__ = [
    "ClusterHttp",
    "KeyFile",
    "KeySetTokens",
    "KeySource",
    "KeyUrl",
    "ReviewedTokens",
    "TooLarge",
]

FRESH_TIME: Final = timedelta(minutes=10)
"""How long keys are used before they are read again: one that was withdrawn is good for so long."""

STALE_TIME: Final = timedelta(hours=24)
"""How long keys are used while their issuer cannot be reached; past it nothing is vouched for."""

ASK_AGAIN_TIME: Final = timedelta(seconds=30)
"""Shortest pause between two readings, so that tokens with made-up key ids do not make us a
flood upon the issuer."""

REQUEST_TIME: Final = timedelta(seconds=10)
"""Limit for one request; an API server answers within one second."""

MAX_REVIEW_BYTES: Final = 64 * 1024
"""Largest answer to a review that is read, in bytes; they have about 2 KiB."""

REVIEW_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"

log = structlog.get_logger("penstock")


class KeySource(Protocol):
    """Where an issuer's key set lies."""

    async def read(self) -> bytes:
        """Return the key set; raises Unreachable."""
        ...


class KeyFile:
    """A key set in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes:
        """Return the file's content; raises Unreachable when there is none."""
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_KEY_SET_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise Unreachable(f"key set {self._path} cannot be read: {reason}") from error


class TooLarge(Unreachable):
    """The answer has more bytes than are read: ask for less at once."""


class ClusterHttp:
    """HTTPS to one cluster, trusting the roots of one file alone."""

    def __init__(self, ca_bundle: Path | None, user_agent: str) -> None:
        self._ca_bundle = ca_bundle
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self, method: str, url: str, *, limit: int, body: bytes = b"", bearer: str = ""
    ) -> tuple[int, bytes]:
        """Return status and body of the answer.

        Raises:
            Unreachable: None came.
            TooLarge: One came that is larger than *limit*.
            Broken: Our CA bundle cannot be used.
        """
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        if body:
            headers["Content-Type"] = "application/json"
        try:
            async with self._open().request(
                method, url, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                read = await answer.content.read(limit + 1)
                while len(read) <= limit and not answer.content.at_eof():
                    read += await answer.content.read(limit + 1 - len(read))
        except TimeoutError as error:
            limit_seconds = REQUEST_TIME.total_seconds()
            raise Unreachable(f"{url}: no answer within {limit_seconds:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"{url}: {str(error) or type(error).__name__}") from error
        if len(read) > limit:
            raise TooLarge(f"{url}: answer is larger than {limit} bytes")
        return answer.status, read

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                trust = str(self._ca_bundle) if self._ca_bundle else None
                context = ssl.create_default_context(cafile=trust)
            except (OSError, ssl.SSLError) as error:
                raise Broken(f"CA bundle {self._ca_bundle} cannot be used: {error}") from error
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8, ssl=context),
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIME.total_seconds()),
                headers={
                    "User-Agent": self._user_agent,
                    "Accept": "application/jwk-set+json, application/json",
                    "Accept-Encoding": "identity",
                },
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


class KeyUrl:
    """A key set at the issuer's own address (``jwks_uri`` of its discovery document)."""

    def __init__(
        self, http: ClusterHttp, url: str, read_token: Callable[[], bytes] | None = None
    ) -> None:
        """Read from *url*, showing what *read_token* returns where the issuer wants a token."""
        self._http = http
        self._url = url
        self._read_token = read_token

    async def read(self) -> bytes:
        """Return what the issuer answers; raises Unreachable."""
        try:
            bearer = b"" if self._read_token is None else self._read_token()
            shown = bearer.decode("ascii").strip()
        except (Broken, UnicodeDecodeError) as error:
            raise Unreachable(f"{self._url}: our own token cannot be read: {error}") from error
        status, body = await self._http.send(
            "GET", self._url, limit=MAX_KEY_SET_BYTES, bearer=shown
        )
        if status != 200:
            raise Unreachable(f"{self._url}: answered {status}, expected 200")
        return body


class KeySetTokens:
    """Implements ``issuance.vouching.ClusterTokens`` by keys."""

    def __init__(self, source: KeySource, terms: TokenTerms, clock: Clock) -> None:
        self._source = source
        self._terms = terms
        self._clock = clock
        self._keys: Mapping[str, Jwk] = {}
        self._read_at: datetime | None = None
        self._asked_at: datetime | None = None
        self._reading = asyncio.Lock()

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Return whose it is, proven.

        Raises:
            TokenRejected: It proves nothing.
            Unreachable: The keys cannot be had.
        """
        keys = await self._keys_for(token.key_id)
        return verify_token(token, keys, self._terms, self._clock.now())

    async def _keys_for(self, key_id: str) -> Mapping[str, Jwk]:
        async with self._reading:
            if self._has_to_read(key_id):
                await self._read()
            if self._read_at is None or self._clock.now() - self._read_at > STALE_TIME:
                raise Unreachable(f"keys of the issuer {self._terms.issuer} cannot be had")
            return self._keys

    def _has_to_read(self, key_id: str) -> bool:
        now = self._clock.now()
        if self._asked_at is not None and now - self._asked_at < ASK_AGAIN_TIME:
            return False
        is_fresh = self._read_at is not None and now - self._read_at < FRESH_TIME
        return not (is_fresh and key_id in self._keys)

    async def _read(self) -> None:
        self._asked_at = self._clock.now()
        try:
            self._keys = parse_key_set(await self._source.read())
        except (Unreachable, ValueError) as error:
            log.warning(
                "keys of a cluster cannot be read", issuer=self._terms.issuer, reason=str(error)
            )
        else:
            self._read_at = self._asked_at


class ReviewedTokens:
    """Implements ``issuance.vouching.ClusterTokens`` by asking the cluster's API server."""

    def __init__(
        self, http: ClusterHttp, server: str, audience: str, read_token: Callable[[], bytes]
    ) -> None:
        """Ask *server*, showing what *read_token* returns, which the server lets review tokens."""
        self._http = http
        self._url = server.rstrip("/") + REVIEW_PATH
        self._audience = audience
        self._read_token = read_token

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Return whose it is, as the API server says.

        Raises:
            TokenRejected: It does not know the token, or not for this audience.
            Unreachable: It cannot be asked, or does not let us ask.
        """
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.text, "audiences": [self._audience]},
        }
        try:
            bearer = self._read_token().decode("ascii").strip()
        except (Broken, UnicodeDecodeError) as error:
            raise Unreachable(f"{self._url}: our own token cannot be read: {error}") from error
        status, body = await self._http.send(
            "POST",
            self._url,
            limit=MAX_REVIEW_BYTES,
            body=json.dumps(wanted).encode("ascii"),
            bearer=bearer,
        )
        if status not in (200, 201):
            raise Unreachable(f"{self._url}: answered {status}, expected 201")
        try:
            return parse_review(body, self._audience)
        except TokenRejected:
            raise
        except ValueError as error:
            raise Unreachable(f"{self._url}: {error}") from error
