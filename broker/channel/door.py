"""The channel's door: what goes wrong leaves as a problem document that an agent can act on."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.protocol.problems import Problem, ProblemType

__all__ = ["RETRY_SECONDS", "STALE_SIGNATURE", "Handler", "busy", "door", "problem_answer"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STALE_SIGNATURE: Final = "urn:penstock:agent:stale-signature"
"""Type of the problem after which an honest agent signs anew."""

RETRY_SECONDS: Final = 10
"""Shortest wait that an agent is told, in seconds; each is told up to as much again, so that those
who were refused together do not come back together."""

_log = structlog.get_logger("penstock.channel")


def busy(detail: str) -> Problem:
    """Return the problem that asks an agent to come later."""
    wait = timedelta(seconds=RETRY_SECONDS + secrets.randbelow(RETRY_SECONDS + 1))
    return Problem(ProblemType.SERVER_INTERNAL, detail, status=503, retry_after=wait)


def door() -> Middleware:
    """Return what stands before the handlers."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Problem, Unreachable, Broken, Conflict) as error:
            return _answer(request, error)
        except web.HTTPException as error:
            detail = f"request is refused: {error.reason.lower()}"
            return problem_answer(Problem(ProblemType.MALFORMED, detail, status=error.status))

    return guard


def _answer(
    request: web.Request, error: Problem | Unreachable | Broken | Conflict
) -> web.StreamResponse:
    if isinstance(error, Problem):
        _log.info(
            "agent refused", path=request.path, status=error.status, detail=error.detail,
            peer=request.remote,
        )  # fmt: skip
        return problem_answer(error)
    _log.warning("channel cannot serve now", path=request.path, reason=error.reason)
    return problem_answer(busy("what is needed for this cannot be had now, try again later"))


def problem_answer(problem: Problem) -> web.Response:
    """Return *problem* as an HTTP answer."""
    answer = web.Response(
        body=json.dumps(problem.to_json(), ensure_ascii=False).encode(),
        status=problem.status,
        content_type="application/problem+json",
    )
    if problem.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, round(problem.retry_after.total_seconds())))
    return answer
