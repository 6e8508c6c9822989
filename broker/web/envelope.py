"""From an HTTP request to a verified one: size, form, nonce, key, signature, in that order.

The cheap checks come first, and the nonce is spent before the key is looked up and the signature
verified.  A nonce proves itself by its MAC, so a flood of replays costs neither a read of the
store nor a signature; spending is one step without an await in it, so that of two requests with
one nonce exactly one goes on.  What a bad signature costs its sender is that one nonce, and a
fresh one goes back with the refusal.
"""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from aiohttp import web

from broker.issuance.ports import Nonces
from broker.issuance.records import AccountRecord
from broker.protocol.jws import (
    Jwk,
    ParsedRequest,
    VerifiedRequest,
    parse_jwk,
    parse_request,
    verify_request,
)
from broker.protocol.problems import Problem, ProblemType, printable
from broker.web.limits import Gatekeeper
from broker.web.links import Links
from broker.web.problems import ACCOUNT
from broker.web.workflows import Accounts

__all__ = ["JOSE_CONTENT_TYPE", "AccountRequest", "Envelope", "EnvelopeLimits"]

JOSE_CONTENT_TYPE = "application/jose+json"
"""The only body that is read (RFC 8555 §6.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeLimits:
    """How much is read, and how long it may take."""

    body_bytes: int = 64 * 1024
    """Largest request body.  A finalize for 100 names under RSA-4096 measures 10 KiB; the rest
    is room for attestation evidence."""
    body_time: timedelta = timedelta(seconds=10)
    """Longest time for the body to arrive after its headers: 64 KiB at modem speed."""


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """A request that the holder of a live account's key signed."""

    account: AccountRecord
    verified: VerifiedRequest


class Envelope:
    """Opens the requests of one listener."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        nonces: Nonces,
        links: Links,
        limits: EnvelopeLimits,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._accounts = accounts
        self._nonces = nonces
        self._links = links
        self._limits = limits
        self._gatekeeper = gatekeeper

    async def open_account_request(self, request: web.Request, community: str) -> AccountRequest:
        """Return a request signed by an account, named by ``kid``.

        Raises:
            Problem: Whatever is wrong with the envelope, the nonce, the account or the signature.
        """
        parsed = await self._parse(request)
        if parsed.kid is None:
            _malformed("protected header has jwk, expected kid with the account's URL")
        return await self._verify_account(request, community, parsed, parsed.kid)

    async def open_key_request(self, request: web.Request) -> VerifiedRequest:
        """Return a request signed by the key that it embeds (newAccount).

        Raises:
            Problem: Whatever is wrong with the envelope, the nonce or the signature.
        """
        parsed = await self._parse(request)
        if parsed.jwk is None:
            _malformed("protected header has kid, expected jwk with the new account's key")
        return await self._verify_key(request, parsed, parsed.jwk)

    async def open_either(
        self, request: web.Request, community: str
    ) -> AccountRequest | VerifiedRequest:
        """Return a request signed by an account or by an embedded key (revokeCert).

        Raises:
            Problem: Whatever is wrong with the envelope, the nonce, the account or the signature.
        """
        parsed = await self._parse(request)
        if parsed.kid is not None:
            return await self._verify_account(request, community, parsed, parsed.kid)
        if parsed.jwk is None:
            _malformed("protected header has neither jwk nor kid")
        return await self._verify_key(request, parsed, parsed.jwk)

    async def _parse(self, request: web.Request) -> ParsedRequest:
        check_content_type(request)
        return parse_request(await read_body(request, self._limits))

    async def _verify_account(
        self, request: web.Request, community: str, parsed: ParsedRequest, kid: str
    ) -> AccountRequest:
        await self._nonces.redeem(parsed.nonce)
        account_id = self._links.of(community).parse_account(kid)
        if account_id is None:
            raise Problem(
                ProblemType.ACCOUNT_DOES_NOT_EXIST,
                f"kid '{printable(kid, 300)}' is no account URL of community '{community}'",
            )
        self._gatekeeper.check_account(account_id)
        account = await self._accounts.require(community, account_id)
        verified = self._verify(request, parsed, _account_key(account.jwk_json))
        request[ACCOUNT] = account.account_id
        self._gatekeeper.count_account(account_id)
        return AccountRequest(account, verified)

    async def _verify_key(
        self, request: web.Request, parsed: ParsedRequest, key: Jwk
    ) -> VerifiedRequest:
        await self._nonces.redeem(parsed.nonce)
        return self._verify(request, parsed, key)

    def _verify(self, request: web.Request, parsed: ParsedRequest, key: Jwk) -> VerifiedRequest:
        expected_url = self._links.requested(request.raw_path)
        return verify_request(parsed, key=key, expected_url=expected_url)


def check_content_type(request: web.Request) -> None:
    """Refuse a body that is no plain JWS.

    Raises:
        Problem: malformed with status 415 (RFC 8555 §6.2).
    """
    if request.content_type != JOSE_CONTENT_TYPE:
        shown = printable(request.headers.get("Content-Type", "none"), 100)
        raise Problem(
            ProblemType.MALFORMED,
            f"content type is {shown}, expected {JOSE_CONTENT_TYPE}",
            status=415,
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(ProblemType.MALFORMED, "body is compressed, expected it as it is", status=415)


async def read_body(request: web.Request, limits: EnvelopeLimits) -> bytes:
    """Return the body, if it is small enough and arrives in time.

    Raises:
        Problem: malformed with status 413, 408 or 400.
    """
    if (request.content_length or 0) > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        if request.content.is_eof():
            # It came along with its headers, as most do: there is nothing to wait for.
            return _bounded(request.content.read_nowait(), limits)
        async with asyncio.timeout(limits.body_time.total_seconds()):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        seconds = limits.body_time.total_seconds()
        raise Problem(
            ProblemType.MALFORMED, f"body did not arrive within {seconds:g} s", status=408
        ) from None
    except web.RequestPayloadError:
        raise Problem(ProblemType.MALFORMED, "body breaks off or is badly framed") from None
    return bytes(body)


def _bounded(body: bytes, limits: EnvelopeLimits) -> bytes:
    if len(body) > limits.body_bytes:
        raise _too_large(limits)
    return body


def _too_large(limits: EnvelopeLimits) -> Problem:
    return Problem(
        ProblemType.MALFORMED,
        f"body is larger than the limit of {limits.body_bytes} bytes",
        status=413,
    )


@functools.lru_cache(maxsize=4096)
def _account_key(jwk_json: str) -> Jwk:
    """Return an account's key, parsed once: parsing costs about as much as a signature check."""
    return parse_jwk(json.loads(jwk_json))


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)
