"""The one door out: whatever goes wrong in a handler leaves through here as a problem document.

A ``Problem`` is told as it is.  What the door does not know is serverInternal with an incident
id, and the text goes to the log alone: a stack trace or a library's message tells a stranger more
than it should.
"""

from __future__ import annotations

import json
import math
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.problems import Problem, ProblemType
from broker.web.refusals import RefusalLog

__all__ = [
    "Door",
    "Handler",
    "RequestObserver",
    "incident_door",
    "problem_response",
    "retry_after_header",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM_CONTENT_TYPE: Final = "application/problem+json"

RETRY_WHEN_UNREACHABLE: Final = timedelta(seconds=30)
"""What a client is told to wait when a service we need named no time of its own."""

MAX_RETRY: Final = timedelta(hours=1)
"""Longest wait that we pass on: a client told to wait for days would rather be asked again."""

ACCOUNT: Final = web.RequestKey("account", str)
"""The account id of a request, once its envelope has been opened."""

_log = structlog.get_logger("penstock.web")


class RequestObserver(Protocol):
    """Counts what was served (``telemetry`` is one)."""

    def request_served(
        self, *, operation: str, status: int, problem: str | None, seconds: float
    ) -> None:
        """Count one request; *operation* and *problem* are from short, fixed lists."""
        ...


@dataclass(slots=True)
class _Outcome:
    response: web.StreamResponse
    problem: Problem | None = None


class Door:
    """The outermost middleware of a listener: errors, counting and the access log."""

    def __init__(self, *, refusals: RefusalLog, observer: RequestObserver, clock: Clock) -> None:
        self._refusals = refusals
        self._observer = observer
        self._clock = clock

    @property
    def middleware(self) -> Middleware:
        """Return what aiohttp takes as a middleware."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        return guard

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Not the loop's time: uvloop's stands still within a turn and counts whole milliseconds.
        started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=secrets.token_hex(8))
        try:
            outcome = _Outcome(await handler(request))
        except ConnectionError:
            raise  # the client is gone: there is nobody to answer
        except Exception as error:
            problem, allow = self._judge(error)
            response = problem_response(problem)
            if allow:
                response.headers["Allow"] = allow
            outcome = _Outcome(response, problem)
        self._report(request, outcome, time.perf_counter() - started)
        return outcome.response

    def _judge(self, error: Exception) -> tuple[Problem, str | None]:
        """Return what the client is told, and the ``Allow`` header if there is one."""
        if isinstance(error, Problem):
            return error, None
        if isinstance(error, web.HTTPException):
            return _of_http(error), error.headers.get("Allow")
        if isinstance(error, Unreachable):
            return self._unreachable(error), None
        incident = _note_incident(error)
        detail = f"the server failed, incident {incident}; its log tells more under that id"
        return Problem(ProblemType.SERVER_INTERNAL, detail, instance=f"urn:uuid:{incident}"), None

    def _unreachable(self, error: Unreachable) -> Problem:
        _log.warning("a needed service is unreachable", reason=error.reason)
        wait = RETRY_WHEN_UNREACHABLE
        if error.retry_at is not None:
            wait = max(error.retry_at - self._clock.now(), timedelta(seconds=1))
        return Problem(
            ProblemType.SERVER_INTERNAL,
            "a service that is needed for this cannot be reached now, try again later",
            status=503,
            retry_after=min(wait, MAX_RETRY),
        )

    def _report(self, request: web.Request, outcome: _Outcome, seconds: float) -> None:
        operation = _operation(request)
        problem = outcome.problem
        account_id = request.get(ACCOUNT)
        community = request.match_info.get("community")
        token = problem.token if problem is not None else None
        status = outcome.response.status
        if problem is not None and problem.status < 500:
            self._refusals.note(
                problem,
                operation=operation,
                community=community,
                account_id=account_id,
                data={"peer": request.remote},
            )
        self._observer.request_served(
            operation=operation, status=status, problem=token, seconds=seconds
        )
        _log.info(
            "request",
            method=request.method,
            path=request.path,
            operation=operation,
            status=status,
            problem=token,
            detail=problem.detail if problem is not None else None,
            account=account_id,
            peer=request.remote,
            ms=round(seconds * 1000, 1),
        )


@web.middleware
async def incident_door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler does not expect into an incident id: the door of the operator socket."""
    try:
        return await handler(request)
    except (ConnectionError, web.HTTPException):
        raise
    except Exception as error:
        incident = _note_incident(error)
        hint = f"the broker's log tells more under incident {incident}"
        failure = {"error": "the broker failed", "hint": hint}
        return web.json_response(failure, status=500)


def _note_incident(error: Exception) -> str:
    incident = str(uuid.uuid4())
    reason = error.reason if isinstance(error, Broken) else None
    _log.error("request failed", incident=incident, reason=reason, exc_info=error)
    return incident


def problem_response(problem: Problem) -> web.Response:
    """Return *problem* as an HTTP answer with the headers that go with it."""
    response = web.Response(
        body=json.dumps(problem.to_json(), ensure_ascii=False).encode("utf-8"),
        status=problem.status,
        content_type=PROBLEM_CONTENT_TYPE,
    )
    if problem.retry_after is not None:
        response.headers["Retry-After"] = retry_after_header(problem.retry_after)
    if problem.location is not None:
        response.headers["Location"] = problem.location
    for rel, url in problem.links:
        response.headers.add("Link", f'<{url}>;rel="{rel}"')
    return response


def retry_after_header(wait: timedelta) -> str:
    """Return *wait* in whole seconds, rounded up: acme.sh reads nothing but integers."""
    return str(max(1, math.ceil(wait.total_seconds())))


def _of_http(error: web.HTTPException) -> Problem:
    # OPTIONS is for browsers that ask beforehand; whoever reads the sentence wants the other.
    allowed = error.headers.get("Allow", "another").removeprefix("OPTIONS,")
    details = {
        404: "no such resource, take the URLs from the directory and from our answers",
        405: f"method not allowed here, expected {allowed}",
    }
    detail = details.get(error.status, f"request is refused: {error.reason.lower()}")
    kind = ProblemType.MALFORMED if error.status < 500 else ProblemType.SERVER_INTERNAL
    return Problem(kind, detail, status=error.status)


def _operation(request: web.Request) -> str:
    """Return the name of the route, from the fixed list of those we have."""
    return request.match_info.route.name or "none"
