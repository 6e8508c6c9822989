"""Requests to Vault from the event loop, over connections that are kept: signatures, above all.

No proxy of the environment and no redirect is followed, and the token leaves only once the
server's certificate has been verified.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import yarl

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, Denied, RawAnswer, VaultState, read_answer
from broker.keys.vault_ids import SCHEME
from broker.keys.vault_settings import VaultSettings

__all__ = [
    "MAX_ANSWER_BYTES",
    "AiohttpExchange",
    "Exchange",
    "VaultHttp",
    "headers_for",
    "tls_context",
]

MAX_CONNECTIONS: Final = 32
"""Most connections to Vault at a time: as many signatures as 32 orders ask for at once; one
connection carries 500 of them a second."""

KEEP_ALIVE_SECONDS: Final = 55.0
"""How long an idle connection is kept, in seconds: under the minute after which load balancers
drop it; Vault itself waits for five."""

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Largest answer that is read, in bytes; a key of 100 versions takes 60 KiB."""


_SIGN: Final = re.compile(r"(.+)/sign/([^/]+)/[^/]+")
"""Path of a request for a signature: its mount, its key, and the hash."""

OnSigned = Callable[[str, str | None], None]
"""Told the id of a key that was asked for a signature, and what Vault calls the request: None where
no answer came, so that one may have been made all the same."""

_HEALTH: Final = {
    472: "it is a disaster recovery secondary",
    501: "it is not initialised",
    503: "Vault is sealed",
    530: "it was removed from its cluster",
}
"""What the statuses of ``sys/health`` mean, where a standby counts as well."""


class Exchange(Protocol):
    """Carries one request to one address of Vault."""

    async def send(
        self, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> RawAnswer:
        """Return the answer, whatever its status.

        Raises:
            Away: None came.
            Broken: Our own TLS files cannot be used.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def headers_for(token: str | None, namespace: str | None) -> dict[str, str]:
    """Return the headers of a request to Vault."""
    headers = {"X-Vault-Request": "true"}
    if namespace is not None:
        headers["X-Vault-Namespace"] = namespace
    if token is not None:
        headers["X-Vault-Token"] = token
    return headers


def tls_context(bundle: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the roots in *bundle* alone, or those of the system.

    Raises:
        Broken: The bundle cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    except (OSError, ssl.SSLError) as error:
        raise Broken(f"Vault's CA bundle {bundle} cannot be used: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class VaultHttp:
    """Requests that may be made twice, at the first address that has an answer."""

    def __init__(
        self, exchange: Exchange, addresses: Addresses, *, namespace: str | None = None
    ) -> None:
        self._exchange = exchange
        self._addresses = addresses
        self._namespace = namespace
        self._on_signed: OnSigned | None = None

    def watch_signatures(self, on_signed: OnSigned) -> None:
        """Tell *on_signed* of every signature that is asked for, from now on."""
        self._on_signed = on_signed

    async def ask(
        self, method: str, path: str, document: Mapping[str, Any] | None, token: str | None
    ) -> Mapping[str, Any]:
        """Return the document that Vault answered.

        Raises:
            Away: No address had a usable answer.
            Denied: The token may not do this.
            Broken: It will answer so until a person acts.
        """
        what = f"{method} {path}"
        body = None if document is None else json.dumps(document).encode()
        headers = headers_for(token, self._namespace)
        trip = self._addresses.trip(is_repeatable=True)
        for address in trip:
            try:
                raw = await self._exchange.send(address, method, f"/v1/{path}", headers, body)
                answer = read_answer(raw, what)
            except Away as fault:
                trip.failed(address, fault)
                if not fault.left_nothing:
                    self._tell_signed(path, document, None)
            except (Denied, Broken):
                trip.answered(address)
                raise
            else:
                trip.answered(address)
                self._tell_signed(path, document, answer.get("request_id"))
                return answer
        raise trip.verdict()

    def _tell_signed(self, path: str, document: Mapping[str, Any] | None, request: object) -> None:
        """Tell that a signature was asked for, if it was one, and what Vault calls the request."""
        found = _SIGN.fullmatch(path)
        if self._on_signed is not None and document is not None and found is not None:
            key_id = f"{SCHEME}{found[1]}/{found[2]}#{document.get('key_version')}"
            self._on_signed(key_id, request if isinstance(request, str) else None)

    async def probe(self, address: str) -> None:
        """Ask whether a node is up, unsealed and initialised, active or standby.

        Raises:
            Away: It is not.
        """
        path = "/v1/sys/health?standbyok=true&perfstandbyok=true"
        # In no namespace: this path is the root's alone.
        raw = await self._exchange.send(address, "GET", path, headers_for(None, None), None)
        if raw.status != 200:
            meaning = _HEALTH.get(raw.status, "it cannot serve")
            state = VaultState.SEALED if raw.status in {501, 503} else VaultState.FAILING
            raise Away(state, f"{meaning} (its health answered {raw.status})")


class AiohttpExchange:
    """Implements `Exchange` over aiohttp.  Use inside a running loop, and close it."""

    def __init__(self, settings: VaultSettings) -> None:
        self._bundle = settings.ca_bundle
        self._seconds = settings.timeout.total_seconds()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> RawAnswer:
        """Return the answer, whatever its status; see `Exchange`."""
        try:
            return await self._send(address + path, method, headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _no_connection(error) from None
        except TimeoutError:
            reason = f"no answer within {self._seconds:g} s"
            raise Away(VaultState.SLOW, reason, left_nothing=False) from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Away(
                VaultState.UNREACHABLE,
                f"connection broke: {type(error).__name__}",
                left_nothing=False,
                is_stale=True,
            ) from None

    async def _send(
        self, url: str, method: str, headers: Mapping[str, str], body: bytes | None
    ) -> RawAnswer:
        async with self._open_session().request(
            method, yarl.URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as response:
            content = await response.content.read(MAX_ANSWER_BYTES + 1)
            while len(content) <= MAX_ANSWER_BYTES:
                part = await response.content.read(MAX_ANSWER_BYTES + 1 - len(content))
                if not part:
                    break
                content += part
            if len(content) > MAX_ANSWER_BYTES:
                response.close()
                reason = f"answer is larger than {MAX_ANSWER_BYTES} bytes"
                raise Away(VaultState.FAILING, reason, left_nothing=False)
            received = {name.lower(): value for name, value in response.headers.items()}
            return RawAnswer(status=response.status, headers=received, body=content)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS,
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    ssl=tls_context(self._bundle),
                ),
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                headers={"Accept-Encoding": "identity", "User-Agent": "penstock"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                raise_for_status=False,
            )
        return self._session


def _no_connection(error: Exception) -> Away:
    """Return that no connection was made, so that nothing was asked and no token sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        told = getattr(error.certificate_error, "verify_message", "") or "verification failed"
        reason = f"certificate is not trusted: {told}; see vault.ca_bundle and both clocks"
        return Away(VaultState.UNTRUSTED, reason)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return Away(VaultState.UNTRUSTED, f"TLS failed: {getattr(error.os_error, 'reason', '')}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Away(VaultState.UNREACHABLE, "name cannot be resolved")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Away(VaultState.UNREACHABLE, "no connection in time")
    number = getattr(getattr(error, "os_error", None), "errno", None)
    told = os.strerror(number) if number else type(error).__name__  # asyncio's words have addresses
    return Away(VaultState.UNREACHABLE, told.lower())
