"""What the operator API answers: what commands answer, or a problem (RFC 9457) with a hint."""

from __future__ import annotations

import json
from http import HTTPStatus

from aiohttp import web

from broker.issuance.errors import Conflict, Unreachable
from broker.protocol.problems import Problem
from broker.web.authorizing import NotAllowed
from broker.web.problems import Handler

__all__ = [
    "BadRequest",
    "add_headers",
    "json_answer",
    "problem_answer",
    "problem_door",
    "quotable",
    "status_of",
    "text_answer",
]


class BadRequest(Exception):
    """A request that does not fit; told with *status*."""

    def __init__(self, status: int, detail: str, hint: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint


def status_of(error: Exception) -> int:
    """Return the status of a command that was not done."""
    match error:
        case NotAllowed():
            return 403
        case Problem() if error.status < 500:
            return error.status if error.status != 401 else 422
        case Unreachable():
            return 503
        case Conflict():
            return 409
        case _:
            # Broken too: the desk says by it that what is asked for cannot be done as things are.
            return 422


def quotable(text: str) -> str:
    """Return *text* as it may stand between quotes (RFC 6750 §3)."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text).translate(
        {ord('"'): "'", ord("\\"): "/"}
    )


def problem_answer(status: int, detail: str, hint: str | None = None) -> web.Response:
    """Return a problem."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if hint is not None:
        body["hint"] = hint
    return web.Response(
        body=json.dumps(body, ensure_ascii=False).encode("utf-8"),
        status=status,
        content_type="application/problem+json",
    )


def json_answer(value: object) -> web.Response:
    """Return what a command answered."""
    return text_answer(json.dumps(value, ensure_ascii=False))


def text_answer(text: str) -> web.Response:
    """Return JSON that is text already."""
    return web.Response(body=text.encode("utf-8"), content_type="application/json")


@web.middleware
async def problem_door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell as a problem what aiohttp, or the door within, tells in its own way."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = problem_answer(error.status, error.reason.lower())
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    if response.status == 500 and isinstance(response, web.Response) and response.text:
        said = json.loads(response.text)
        if "error" in said:
            return problem_answer(500, str(said["error"]), said.get("hint"))
    return response


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Have nobody on the way keep an answer, or take it for a page."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
