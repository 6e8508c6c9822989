"""tls-alpn-01: look which certificate a server shows for ``acme-tls/1`` (RFC 8737 §3).

The handshake is driven by hand, over buffers: what the peer sends is counted, nothing is sent once
the certificate was shown, and whatever the connection went through (a proxy's tunnel) is the same.
The certificate is handed on as it came; whether it proves anything is ``protocol.challenges``'.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import cache
from typing import Final

from broker.issuance.ports import Question
from broker.protocol.challenges import (
    ACME_TLS_PROTOCOL,
    ChallengeType,
    Failure,
    Observation,
    tls_alpn01_server_name,
)
from broker.protocol.problems import printable
from broker.validation.dialing import ConnectFailed, Stream, os_reason
from broker.validation.failures import Unobserved
from broker.validation.reaching import Reaching
from broker.validation.resolver import Resolver
from broker.validation.targets import IpAddress, ValidationSettings, is_own_address

__all__ = ["TlsAlpn01"]

MAX_HANDSHAKE_BYTES: Final = 32 * 1024
"""Most octets that are read of a peer, in bytes.  The certificate of a challenge has about 500;
a chain of four with RSA keys, which some server shows by mistake, has less than 8 KiB."""

READ_BYTES: Final = 4 * 1024
"""Octets read at a time, in bytes: a usual handshake comes in one or two pieces."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites that are offered.  A peer chooses the numbers of a finite-field exchange, and
large ones would cost us a second of computing; TLS 1.3 has its own, which are fit."""


class TlsAlpn01:
    """Looks for tls-alpn-01 answers in one community's networks."""

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
        """Return the certificate that was shown, or why there is none."""
        host = question.identifier.value
        tried: list[str] = []
        answers: tuple[bytes, ...] = ()
        failure: Failure | None = None
        limit = self._settings.timeout
        try:
            async with asyncio.timeout(limit.total_seconds()):
                shown = await self._look(host, tls_alpn01_server_name(question.identifier), tried)
                answers = (shown,)
        except TimeoutError:
            failure = Failure("timeout", f"no answer within {limit.total_seconds():g} s")
        except Unobserved as error:
            failure = error.failure
        return Observation(ChallengeType.TLS_ALPN_01, host, tuple(tried), answers, failure)

    async def _look(self, host: str, server_name: str, tried: list[str]) -> bytes:
        fault = "no address"
        for target in await self._reaching.targets(host, self._settings.tls_alpn_port):
            tried.append(str(target.address))
            timeout = self._reaching.connect_timeout
            try:
                async with self._reaching.dialer.dial(target, timeout=timeout) as stream:
                    return await _handshake(stream, server_name)
            except ConnectFailed as error:
                fault = str(error)
        raise Unobserved("connection", fault)


async def _handshake(stream: Stream, server_name: str) -> bytes:
    """Return the DER of the leaf that the peer shows; reads no more of it than the limit allows."""
    reader, writer = stream
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        session = _context().wrap_bio(incoming, outgoing, server_hostname=server_name)
    except ValueError:
        raise Unobserved("tls", "the host cannot be named to a TLS server") from None
    left = MAX_HANDSHAKE_BYTES
    try:
        while not _has_shaken(session):
            writer.write(outgoing.read())
            data = await reader.read(min(READ_BYTES, left))
            left -= len(data)
            if not data:
                full = f"the handshake exceeds {MAX_HANDSHAKE_BYTES} bytes"
                raise Unobserved("tls", full if left == 0 else "closed during the handshake")
            incoming.write(data)
        # The handshake ends for the peer too; after it nothing is exchanged (RFC 8737 §4).
        writer.write(outgoing.read())
    except ssl.SSLError as error:
        raise Unobserved("tls", f"TLS failed: {_reason(error)}") from None
    except OSError as error:
        raise Unobserved("connection", f"connection broke: {os_reason(error)}") from None
    if session.selected_alpn_protocol() != ACME_TLS_PROTOCOL:
        raise Unobserved("tls", f"the server does not choose the protocol {ACME_TLS_PROTOCOL}")
    shown = session.getpeercert(binary_form=True)
    if shown is None:
        raise Unobserved("tls", "no certificate was shown")
    return shown


def _has_shaken(session: ssl.SSLObject) -> bool:
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@cache
def _context() -> ssl.SSLContext:
    # Nobody vouches for the certificate of a challenge: it is the answer, not the way to it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols([ACME_TLS_PROTOCOL])
    return context


def _reason(error: ssl.SSLError) -> str:
    return printable((error.reason or "no reason given").lower().replace("_", " "), 100)
