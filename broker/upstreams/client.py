"""Speaks ACME with one CA: drives `protocol.exchange` with a connection, a key and the clock.

What is true of the CA as a whole lives here: its directory, spare nonces, and when it may be asked
again.  Accounts and orders are the business of ``account`` and ``acme``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Clock, Signer
from broker.protocol.exchange import (
    JSON,
    MAX_ANSWER_BYTES,
    Answer,
    Call,
    Exchange,
    HttpRequest,
    HttpResponse,
    SigningInput,
    Unavailable,
    is_nonce_refused,
)
from broker.protocol.jws import Jwk, jwk_from_public_key
from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins
from broker.protocol.problems import Problem
from broker.protocol.reading import directory_request, parse_directory, parse_read, read_request
from broker.protocol.resources import Directory
from broker.upstreams.breaker import Breaker
from broker.upstreams.budget import Budget
from broker.upstreams.transport import Transport

__all__ = ["AccountKey", "AcmeClient"]

DIRECTORY_MAX_AGE: Final = timedelta(hours=1)
"""How long a directory is believed; CAs change theirs a few times a year."""

MAX_SPARE_NONCES: Final = 32
"""Most nonces that are kept for later: twice the requests that are under way at a time."""

_UNSIGNED: Final = "unsigned"
"""Whose limits those of requests without a signature are: no key's thumbprint looks like it."""

_LIMITED: Final = 429
"""Status of a request that was over a limit, and so was not taken (RFC 8555 §6.6)."""

_FIRST_SERVER_FAULT: Final = 500
"""Statuses from here on are the server's own faults (RFC 9110 §15.6)."""

_OVERLOADED: Final = frozenset({_LIMITED, 503})
"""Statuses after which nothing is sent for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey:
    """Who signs: a key in the keeper's hands and, once registered, its account."""

    key_id: str
    jwk: Jwk
    account_url: str | None = None

    @property
    def embedded_jwk(self) -> Jwk | None:
        """Return the key that a request has to carry: none where it has an account."""
        return self.jwk if self.account_url is None else None

    def speaking_for(self, account_url: str) -> AccountKey:
        """Return the same key, speaking for its account."""
        return replace(self, account_url=account_url)


class AcmeClient:
    """One CA, for all accounts that we have there."""

    def __init__(
        self,
        *,
        directory_url: str,
        transport: Transport,
        signer: Signer,
        clock: Clock,
        allowed_origins: Iterable[str] = (),
        budget: Budget | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Keep where the CA is; nothing is sent before the first call.

        Raises:
            Broken: A URL in the configuration is not https.
        """
        self.directory_url = directory_url
        try:
            self._origins = TrustedOrigins(directory_url, allowed_origins)
        except ProtocolError as error:
            raise Broken(str(error)) from error
        self._transport = transport
        self._signer = signer
        self._clock = clock
        self._budget = Budget(clock) if budget is None else budget
        self._breaker = breaker
        self._nonces: list[str] = []
        self._directory: tuple[Directory, datetime] | None = None
        self._fetching = asyncio.Lock()
        self._keys: dict[str, AccountKey] = {}

    async def account_key(self, key_id: str) -> AccountKey:
        """Return the public half of an account key, as the CA has to see it.

        Raises:
            Broken: There is no such key, or CAs take none of its kind.
        """
        if key_id not in self._keys:
            spki_der = await self._signer.public_key(key_id)
            try:
                jwk = jwk_from_public_key(load_der_public_key(spki_der))
            except (Problem, ValueError, UnsupportedAlgorithm) as error:
                raise Broken(f"account key '{key_id}' cannot be used: {error}") from error
            self._keys[key_id] = AccountKey(key_id=key_id, jwk=jwk)
        return self._keys[key_id]

    def verify_own(self, url: str, what: str) -> str:
        """Return *url*, proven to be one of this CA's; raises Broken."""
        try:
            return self._origins.verify_url(url, what)
        except ProtocolError as error:
            raise Broken(str(error)) from error

    def forget_key(self, key_id: str) -> None:
        """Forget the public half of a key: it is asked for again when it is used next."""
        self._keys.pop(key_id, None)

    @property
    def known_directory(self) -> Directory | None:
        """Return the directory as it was last read, however old, or None."""
        return None if self._directory is None else self._directory[0]

    async def directory(self) -> Directory:
        """Return the CA's directory, at most an hour old.

        Raises:
            Unreachable: The CA cannot answer now.
            Broken: What it answered is no directory.
        """
        async with self._fetching:
            if self._directory is not None:
                directory, fetched_at = self._directory
                if self._clock.now() - fetched_at < DIRECTORY_MAX_AGE:
                    return directory
            directory = await self._fetch_directory()
            self._directory = (directory, self._clock.now())
            return directory

    async def post(
        self,
        url: str,
        payload: Mapping[str, Any] | None,
        *,
        key: AccountKey,
        subject: str | None = None,
        accept: str = JSON,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Send one signed request and return its success; *payload* None is a POST-as-GET.

        *subject* names what the request is about, for limits that concern it alone.

        Raises:
            Refused: The CA said no.
            Unreachable: No usable answer came.  Unless it says that the request was held back,
                the CA may have acted on it.
            Broken: The CA broke the protocol, or the key cannot sign.
        """
        try:
            directory = await self.directory()
        except Unreachable as error:
            raise _unsent(error) from error
        account = key.jwk.thumbprint
        await self._budget.refresh()
        self._budget.verify_open(account, subject)
        call = Call(
            url=url,
            payload=payload,
            alg=key.jwk.algorithms[0],
            kid=key.account_url,
            jwk=key.embedded_jwk,
            accept=accept,
            max_answer_bytes=max_answer_bytes,
        )
        try:
            answer = await self._converse(call, key.key_id, directory.new_nonce)
        except Problem as problem:
            raise Refused(problem) from problem
        except Unavailable as error:
            raise await self._unreachable(error, account, subject) from error
        except ProtocolError as error:
            self._directory = None  # it may have changed under us
            raise Broken(str(error)) from error
        self._budget.note_success(account)
        return answer

    async def get(self, url: str) -> Answer:
        """Send one request that nobody signs and return its success; limits that the CA sets for
        these hold nothing else back.

        Raises:
            Refused: The CA said no.
            Unreachable: No usable answer came.
            Broken: The CA broke the protocol, or the URL leads elsewhere.
        """
        self._budget.verify_open(_UNSIGNED, None)
        try:
            request = read_request(url, self._origins)
            response = await self._transport.send(request)
            return parse_read(url, response, self._clock.now())
        except Problem as problem:
            raise Refused(problem) from problem
        except Unavailable as error:
            if error.status == _LIMITED:
                raise await self._unreachable(error, _UNSIGNED, None) from error
            # What everyone may read has a front of its own: its failure says nothing of orders.
            raise Unreachable(error.reason, retry_at=error.retry_at) from error
        except ProtocolError as error:
            raise Broken(str(error)) from error

    async def _converse(self, call: Call, key_id: str, nonce_url: str) -> Answer:
        exchange = Exchange(
            call,
            nonce_url=nonce_url,
            origins=self._origins,
            nonce=self._nonces.pop() if self._nonces else None,
        )
        is_sent = False
        try:
            while True:
                step = exchange.next_request()
                if isinstance(step, SigningInput):
                    exchange.receive_signature(await self._signer.sign(key_id, step.octets))
                    continue
                is_sent = is_sent or step.body is not None
                response = await self._send(step)
                answer = exchange.receive_response(response, self._clock.now())
                if answer is not None:
                    return answer
        except Unreachable as error:
            if is_sent:
                raise
            raise _unsent(error) from error
        except Broken as error:
            error.left_nothing = error.left_nothing or not is_sent
            raise
        finally:
            spare = exchange.spare_nonce
            if spare is not None and len(self._nonces) < MAX_SPARE_NONCES:
                self._nonces.append(spare)

    async def _fetch_directory(self) -> Directory:
        await self._budget.refresh()
        self._budget.verify_open("", None)
        request = directory_request(self.directory_url)
        response = await self._send(request)
        try:
            return parse_directory(request.url, response, self._origins, self._clock.now())
        except Problem as problem:
            # No order was looked at, so no order may fail for it.
            raise Broken(f"{request.url} is refused to us: {problem}") from problem
        except Unavailable as error:
            raise await self._unreachable(error, "", None) from error
        except ProtocolError as error:
            raise Broken(str(error)) from error

    async def look(self) -> None:
        """Look whether a CA that is left alone is back, if it is time for that."""
        with suppress(Unreachable, Broken):
            self._directory = (await self._fetch_directory(), self._clock.now())

    async def _send(self, request: HttpRequest) -> HttpResponse:
        """Send a request that tells how the CA stands; one that is left alone is sent nothing."""
        breaker = self._breaker
        if breaker is None:
            return await self._transport.send(request)
        await breaker.verify_closed()
        try:
            response = await self._transport.send(request)
        except (Unreachable, Broken) as error:
            await breaker.note_failure(error.reason)
            raise
        await breaker.note_answer(
            response.status,
            is_signed=request.body is not None,
            is_nonce_refused=is_nonce_refused(response),
        )
        return response

    async def _unreachable(
        self, error: Unavailable, account: str, subject: str | None
    ) -> Unreachable:
        is_named = error.retry_at is not None and (error.status or 0) >= _FIRST_SERVER_FAULT
        if error.status not in _OVERLOADED and not is_named:
            is_fault = error.status == _FIRST_SERVER_FAULT
            return Unreachable(error.reason, retry_at=error.retry_at, is_fault=is_fault)
        retry_at = self._budget.hold(
            account, subject, status=error.status or 0, retry_at=error.retry_at, reason=error.reason
        )
        await self._budget.share()
        is_limit = error.status == _LIMITED
        return Unreachable(error.reason, retry_at=retry_at, left_nothing=is_limit)


def _unsent(error: Unreachable) -> Unreachable:
    """Return *error* as one before which the signed request had not been sent."""
    return Unreachable(error.reason, retry_at=error.retry_at, left_nothing=True)
