"""The public keys of an OpenID provider: where it says they are, kept for a while, within bounds.

A token that names a key which is not known has them read anew, once a minute at most, so that
made-up key ids are no flood upon the provider.  While it cannot be reached, keys that were read are
used for an hour; then nobody comes in by tokens any more.  No redirect is followed, no proxy of the
environment is heeded, and nothing is believed that is longer than its bound.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.encoding import parse_base64url, parse_json_object
from broker.protocol.problems import Problem

__all__ = ["DocumentSource", "FileDocuments", "HttpDocuments", "IssuerKeys", "SigningKey"]

MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""Largest document that is read of a provider, in bytes: a discovery document has about 6 KiB, and
a key with its certificates about 5."""

MAX_KEYS: Final = 64
"""Most keys of a provider; it has two or three, and more while they are being changed."""

MAX_KEY_ID_CHARS: Final = 256
"""Longest id of a key, in characters; providers' have 43 at most."""

MIN_RSA_BITS: Final = 2048
"""Shortest RSA key that is believed, in bits (RFC 7518 §3.3)."""

REQUEST_TIME: Final = timedelta(seconds=5)
"""Limit for one request; a provider answers within half a second."""

FRESH_TIME: Final = timedelta(minutes=10)
"""How long keys are used before they are read again: a key that was withdrawn is good for so
long."""

STALE_TIME: Final = timedelta(hours=1)
"""How long keys are used while their provider cannot be reached.  Past it no token is believed."""

ASK_AGAIN_TIME: Final = timedelta(minutes=1)
"""Shortest pause between two readings, however many tokens name keys that nobody knows."""

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
"""Where a provider describes itself (OpenID Connect Discovery 1.0)."""

_log = structlog.get_logger("penstock.operator")


class SigningKey:
    """A public key of a provider."""

    def __init__(self, key: Key, alg: str | None) -> None:
        self.key = key
        self.alg = alg
        """The one algorithm that the provider says it is for, if it says so."""


class DocumentSource(Protocol):
    """Reads documents of a provider."""

    async def read(self, url: str) -> bytes:
        """Return what lies at *url*; raises Unreachable."""
        ...


class HttpDocuments:
    """Documents over HTTPS, trusting the roots of one file, or those of the system."""

    def __init__(
        self,
        ca_bundle: Path | None,
        user_agent: str,
        *,
        read_token: Callable[[], bytes] | None = None,
    ) -> None:
        """Trust *ca_bundle*, and show what *read_token* returns where one is wanted."""
        self._ca_bundle = ca_bundle
        self._user_agent = user_agent
        self._read_token = read_token

    async def read(self, url: str) -> bytes:
        """Return what lies at *url*.

        Raises:
            Unreachable: Nothing came, or more than is read, or our own CA bundle or token is no
                good.
        """
        shown = self._shown(url)
        try:
            # A connection of its own: this happens every ten minutes.
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=self._context()),
                    timeout=aiohttp.ClientTimeout(total=REQUEST_TIME.total_seconds()),
                    headers={
                        "User-Agent": self._user_agent,
                        "Accept": "application/jwk-set+json, application/json",
                        "Accept-Encoding": "identity",
                        **shown,
                    },
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                return await _read_bounded(url, answer)
        except TimeoutError as error:
            seconds = REQUEST_TIME.total_seconds()
            raise Unreachable(f"{url}: no answer within {seconds:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"{url}: {str(error) or type(error).__name__}") from error

    def _shown(self, url: str) -> Mapping[str, str]:
        if self._read_token is None:
            return {}
        try:
            token = self._read_token().decode("ascii").strip()
        except (Broken, UnicodeDecodeError) as error:
            raise Unreachable(f"{url}: our own token cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"}

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(
            cafile=str(self._ca_bundle) if self._ca_bundle is not None else None
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


async def _read_bounded(url: str, answer: aiohttp.ClientResponse) -> bytes:
    if answer.status != 200:
        raise Unreachable(f"{url}: answered {answer.status}, expected 200")
    read = b""
    while not answer.content.at_eof():
        read += await answer.content.read(MAX_DOCUMENT_BYTES + 1 - len(read))
        if len(read) > MAX_DOCUMENT_BYTES:
            raise Unreachable(f"{url}: answer is larger than {MAX_DOCUMENT_BYTES} bytes")
    return read


class FileDocuments:
    """One document in a file, whatever address is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, url: str) -> bytes:  # noqa: ARG002 - there is one document
        """Return the file's content; raises Unreachable when there is none."""
        try:
            with self._path.open("rb") as file:
                found = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise Unreachable(f"key set {self._path} cannot be read: {reason}") from error
        if len(found) > MAX_DOCUMENT_BYTES:
            raise Unreachable(f"key set {self._path} is larger than {MAX_DOCUMENT_BYTES} bytes")
        return found


class IssuerKeys:
    """The keys of one provider."""

    def __init__(
        self, issuer: str, source: DocumentSource, clock: Clock, *, keys_url: str | None = None
    ) -> None:
        """Read from *source*; *keys_url* takes the place of what the provider says itself."""
        self._issuer = issuer
        self._source = source
        self._clock = clock
        self._keys_url = keys_url
        self._keys: Mapping[str, SigningKey] = {}
        self._read_at: datetime | None = None
        self._asked_at: datetime | None = None
        self._reading = asyncio.Lock()

    async def find(self, key_id: str) -> SigningKey | None:
        """Return the key of that id, or None where the provider has none.

        Raises:
            Unreachable: Its keys cannot be had, and those that were read are too old.
        """
        is_being_read = key_id in self._keys and self._reading.locked()
        if is_being_read or not self._has_to_read(key_id):
            return self._known(key_id)
        async with self._reading:
            # Whoever waited may find that it was done meanwhile.
            if self._has_to_read(key_id):
                await self._read()
        return self._known(key_id)

    def _known(self, key_id: str) -> SigningKey | None:
        if self._read_at is None or self._clock.now() - self._read_at > STALE_TIME:
            raise Unreachable(
                f"keys of the issuer {self._issuer} cannot be had",
                retry_at=self._asked_at + ASK_AGAIN_TIME if self._asked_at else None,
            )
        return self._keys.get(key_id)

    def _has_to_read(self, key_id: str) -> bool:
        now = self._clock.now()
        if self._asked_at is not None and now - self._asked_at < ASK_AGAIN_TIME:
            return False
        is_fresh = self._read_at is not None and now - self._read_at < FRESH_TIME
        return not (is_fresh and key_id in self._keys)

    async def _read(self) -> None:
        self._asked_at = self._clock.now()
        try:
            url = self._keys_url or await self._discover()
            self._keys = _parse_keys(await self._source.read(url))
        except (Unreachable, ValueError) as error:
            _log.error("keys of an issuer cannot be read", issuer=self._issuer, reason=str(error))
        else:
            self._read_at = self._asked_at

    async def _discover(self) -> str:
        """Return where the provider says its keys are (OpenID Connect Discovery 1.0)."""
        where = self._issuer.rstrip("/") + DISCOVERY_PATH
        document = _parse_object(await self._source.read(where), "discovery document")
        if document.get("issuer") != self._issuer:
            raise ValueError(f"{where} is of another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith("https://"):
            raise ValueError(f"{where} has no jwks_uri that begins with https://")
        return url


def _parse_object(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        return parse_json_object(data, what=what)
    except Problem as problem:
        raise ValueError(problem.detail) from None


def _parse_keys(data: bytes) -> Mapping[str, SigningKey]:
    """Return the keys of a key set that sign; those that we cannot use are left out.

    Raises:
        ValueError: It is no key set, or has no such key, or one id for two keys.
    """
    entries = _parse_object(data, "key set").get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"key set has no list of at most {MAX_KEYS} keys")
    found: dict[str, SigningKey] = {}
    for entry in entries:
        key = _signing_key(entry)
        if key is None:
            continue
        if entry["kid"] in found:
            raise ValueError("key set has one id for two keys")
        found[entry["kid"]] = key
    if not found:
        raise ValueError("key set has no key that signs")
    return found


def _signing_key(entry: object) -> SigningKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    key_id, alg = entry.get("kid"), entry.get("alg")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARS:
        return None
    # A secret in a public key set is no key: whoever reads it could sign.
    if entry.get("kty") not in ("RSA", "EC", "OKP") or "d" in entry:
        return None
    try:
        if entry["kty"] == "RSA" and _bits(entry["n"]) < MIN_RSA_BITS:
            return None
        key = JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return SigningKey(key, alg if isinstance(alg, str) else None)


def _bits(modulus: str) -> int:
    return int.from_bytes(parse_base64url(modulus)).bit_length()
