"""The operator API: the commands over TLS, for people who show a certificate or a token.

What a browser would send by itself is refused: a certificate that lies in one must be no key for
the pages of others.  There is no CORS, no cookie and no page here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from aiohttp import web

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock
from broker.policy.units import Rate
from broker.protocol.encoding import parse_json_object
from broker.protocol.problems import Problem, ProblemType
from broker.web.authorizing import Gate, Record
from broker.web.bearer import TokenRejected
from broker.web.buckets import Buckets
from broker.web.callers import NotKnown
from broker.web.limits import client_network
from broker.web.listeners import hide_software
from broker.web.openapi import DESCRIPTION_PATH
from broker.web.operator import MAX_COMMAND_BYTES, MAX_REASON_CHARS, OperationError, failure_of
from broker.web.operator_replies import (
    BadRequest,
    add_headers,
    json_answer,
    problem_answer,
    problem_door,
    quotable,
    status_of,
    text_answer,
)
from broker.web.problems import Handler, incident_door, retry_after_header
from broker.web.refusals import RefusalLog
from broker.web.rights import Caller
from broker.web.routes import REASON, ROOT, Route, body_arguments, query_arguments, routes

__all__ = ["ApiRates", "Doorkeeper", "create_operator_api"]

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive, in seconds: commands are small."""

CHALLENGE: Final = 'Bearer realm="penstock operators"'
"""What tells a client how to come in (RFC 6750 §3)."""

WHO_PATH: Final = f"{ROOT}/whoami"
"""Tells people who they are here."""

IsCurrent = Callable[[ssl.SSLObject], bool]

_log = structlog.get_logger("penstock.operator")


@dataclass(frozen=True, slots=True)
class ApiRates:
    """How often may be asked; None: there is no limit."""

    person: Rate | None
    refusals: Rate | None


class Doorkeeper(Protocol):
    """Knows who stands before the door."""

    def by_certificate(self, der: bytes) -> Caller:
        """Return whose certificate it is; raises NotKnown."""
        ...

    async def by_token(self, text: str, certificate_der: bytes | None) -> Caller:
        """Return whose token it is; raises NotKnown, TokenRejected, Unreachable."""
        ...


class _Unknown(Exception):
    """Nobody known: what to tell, and whether it was about a token."""

    def __init__(self, detail: str, *, is_token: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.is_token = is_token


class _TooOften(Exception):
    """Asked too often; come again after so many seconds."""

    def __init__(self, retry_after: str) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def create_operator_api(
    gate: Gate,
    doorkeeper: Doorkeeper,
    *,
    is_current: IsCurrent,
    rates: ApiRates,
    clock: Clock,
    record: Record,
    description: str,
    on_answer: Callable[[int], None] = lambda _status: None,
) -> web.Application:
    """Return the application of the operator API.

    *is_current* tells whether the certificate of a connection was verified by the anchors that
    hold now; *description* is what OpenAPI clients are made from; *on_answer* is told each status.
    """
    desk = _Desk(gate, doorkeeper, is_current=is_current, rates=rates, clock=clock, record=record)
    app = web.Application(
        middlewares=[problem_door, incident_door], client_max_size=MAX_COMMAND_BYTES
    )
    for route in routes():
        app.router.add_route(route.method, route.path, desk.handler(route))

    async def described(request: web.Request) -> web.StreamResponse:
        return await desk.guarded(request, lambda: text_answer(description))

    async def who(request: web.Request) -> web.StreamResponse:
        return await desk.who(request)

    app.router.add_get(DESCRIPTION_PATH, described)
    app.router.add_get(WHO_PATH, who)

    async def count(_request: web.Request, response: web.StreamResponse) -> None:
        on_answer(response.status)

    app.on_response_prepare.append(count)
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(hide_software)
    app.cleanup_ctx.append(desk.keep_refusals)
    return app


class _Desk:
    """Takes requests, and answers each with an answer or a problem."""

    def __init__(
        self,
        gate: Gate,
        doorkeeper: Doorkeeper,
        *,
        is_current: IsCurrent,
        rates: ApiRates,
        clock: Clock,
        record: Record,
    ) -> None:
        self._gate = gate
        self._doorkeeper = doorkeeper
        self._is_current = is_current
        self._clock = clock
        self._record = record
        self._of_person = Buckets(rates.person)
        self._of_address = Buckets(rates.refusals)
        self._refusals = RefusalLog(record, clock)

    async def keep_refusals(self, _app: web.Application) -> AsyncIterator[None]:
        """Keep the refusals of strangers while the listener is open."""
        async with self._refusals.running():
            yield

    def handler(self, route: Route) -> Handler:
        """Return what answers *route*."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, lambda: self._do(request, route))

        return handle

    async def who(self, request: web.Request) -> web.StreamResponse:
        """Answer with the name and the roles of who asks."""

        async def look() -> web.StreamResponse:
            caller = await self._identify(request)
            roles = {place: sorted(held) for place, held in sorted(caller.roles.items())}
            return json_answer({"name": caller.name, "roles": roles})

        return await self._answer(request, look)

    async def guarded(
        self, request: web.Request, make: Callable[[], web.StreamResponse]
    ) -> web.StreamResponse:
        """Answer what is no secret, as often as an address may be refused."""

        async def look() -> web.StreamResponse:
            self._count_stranger(request)
            return make()

        return await self._answer(request, look)

    # ------------------------------------------------------------------------------- one request

    async def _do(self, request: web.Request, route: Route) -> web.StreamResponse:
        caller = await self._identify(request)
        given, reason = await _read_arguments(request, route)
        if route.is_changing:
            await self._note_command(request, caller, route, reason)
        result = await self._gate.perform(caller, route.command, given, reason)
        _log.info("command done", command=route.command, caller=caller.name, peer=request.remote)
        return json_answer(result)

    async def _note_command(
        self, request: web.Request, caller: Caller, route: Route, reason: str | None
    ) -> None:
        """Keep who asks for a change, how they are known, and from where, before it is done."""
        event = Event(
            kind=EventKind.OPERATOR_COMMAND,
            at=self._clock.now(),
            actor=Actor(f"operator:{caller.name}", reason),
            data={"command": route.command, "peer": request.remote, **caller.proof},
        )
        await self._record(event)

    async def _identify(self, request: web.Request) -> Caller:
        _verify_no_browser(request)
        try:
            caller = await self._known(request)
        except _Unknown as stranger:
            # Whoever is known is never shut out by strangers behind the same address.
            self._count_stranger(request)
            self._note_stranger(request, stranger)
            raise
        wait = self._of_person.take(caller.name, self._clock.now())
        if wait:
            raise _TooOften(retry_after_header(wait))
        return caller

    async def _known(self, request: web.Request) -> Caller:
        certificate = self._certificate(request)
        greetings = request.headers.getall("Authorization", [])
        try:
            if greetings:
                return await self._doorkeeper.by_token(_token(greetings), certificate)
            if certificate is not None:
                return self._doorkeeper.by_certificate(certificate)
        except TokenRejected as error:
            raise _Unknown(str(error), is_token=True) from None
        except NotKnown as error:
            raise _Unknown(str(error), is_token=bool(greetings)) from None
        raise _Unknown("show a client certificate or a bearer token")

    def _certificate(self, request: web.Request) -> bytes | None:
        """Return the client certificate that TLS has verified by anchors that hold still."""
        transport = request.transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        if tls is None:
            return None
        der: bytes | None = tls.getpeercert(binary_form=True)
        if der is not None and not self._is_current(tls):
            raise _Unknown("anchors have changed since the connection began, connect anew")
        return der

    def _count_stranger(self, request: web.Request) -> None:
        wait = self._of_address.take(client_network(request.remote or ""), self._clock.now())
        if wait:
            raise _TooOften(retry_after_header(wait))

    def _note_stranger(self, request: web.Request, stranger: _Unknown) -> None:
        self._refusals.note(
            Problem(ProblemType.UNAUTHORIZED, stranger.detail, status=401),
            operation="operator-api",
            community=None,
            account_id=None,
            data={"peer": request.remote, "path": request.path},
        )

    # --------------------------------------------------------------------------------- the door

    async def _answer(self, request: web.Request, work: Any) -> web.StreamResponse:
        try:
            return await work()  # type: ignore[no-any-return]  # one of two above
        except _Unknown as error:
            response = problem_answer(401, error.detail)
            more = f', error="invalid_token", error_description="{quotable(error.detail)}"'
            response.headers["WWW-Authenticate"] = CHALLENGE + (more if error.is_token else "")
            return response
        except _TooOften as error:
            response = problem_answer(
                429, f"too many requests, come again after {error.retry_after} s"
            )
            response.headers["Retry-After"] = error.retry_after
            return response
        except BadRequest as error:
            return problem_answer(error.status, error.detail, error.hint)
        except (OperationError, Problem, Refused, Unreachable, Broken, Conflict) as error:
            failure = failure_of(error) or {}
            _log.info("command not done", path=request.path, reason=failure.get("error"))
            response = problem_answer(
                status_of(error), failure.get("error") or "", failure.get("hint")
            )
            if isinstance(error, Unreachable) and error.retry_at is not None:
                wait = error.retry_at - self._clock.now()
                response.headers["Retry-After"] = retry_after_header(wait)
            return response


async def _read_arguments(
    request: web.Request, route: Route
) -> tuple[Mapping[str, object], str | None]:
    try:
        if route.method == "GET":
            return query_arguments(route, dict(request.query), len(request.query)), None
        if request.query_string:
            raise OperationError(f"{route.path} takes no query, expected a JSON body")
        body = await _read_object(request)
        return body_arguments(route, body), _reason(route, body)
    except OperationError as error:
        raise BadRequest(400, error.message, error.hint) from None


async def _read_object(request: web.Request) -> Mapping[str, object]:
    # A page of another site can send text or a form unasked, and never this.
    if request.content_type != "application/json":
        raise BadRequest(415, "the body is of another type than application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            read = await request.read()
    except TimeoutError:
        raise BadRequest(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        limit = MAX_COMMAND_BYTES
        raise BadRequest(413, f"the body is larger than the limit of {limit} bytes") from None
    try:
        return parse_json_object(read or b"{}", what="body")
    except Problem as problem:
        raise BadRequest(400, problem.detail) from None


def _reason(route: Route, body: Mapping[str, object]) -> str | None:
    reason = body.get(REASON)
    if reason is None:
        return None
    if not route.is_changing:
        raise OperationError(f"{route.path} changes nothing and takes no reason")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS:
        raise OperationError(f"reason is no text of at most {MAX_REASON_CHARS} characters")
    return reason


def _verify_no_browser(request: web.Request) -> None:
    """Refuse what a page had a browser send: with a certificate in it, it would be the person's."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    if origin is not None or site not in ("none", "same-origin"):
        raise BadRequest(403, "a page had a browser ask this, and pages are not answered here")


def _token(greetings: list[str]) -> str:
    if len(greetings) > 1:
        raise TokenRejected("there are two Authorization headers")
    scheme, _, text = greetings[0].partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise TokenRejected("the Authorization header has no bearer token")
    return text.strip()
