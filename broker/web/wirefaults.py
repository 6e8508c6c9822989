"""What is no HTTP at all: answered in our own words, before any application sees it.

aiohttp answers such bytes itself, with its name, its parser's text and a traceback in the log for
every stranger who sends some.  Here they get a problem document and one line of log.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from broker.protocol.problems import Problem, ProblemType

__all__ = ["PoliteRunner"]

_log = structlog.get_logger("penstock.web")


class _Answer(web.Response):
    """A response without the ``Server`` header, which no signal reaches here."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class _Handler(RequestHandler):
    """One connection, polite about what it cannot parse."""

    when_lost: Callable[[], None] | None = None
    """Told once the connection is gone."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up after the connection."""
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that reached no handler, or whose handler failed."""
        is_theirs = status < 500
        if not is_theirs:
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent already")
        _log.info("unreadable request", peer=request.remote, fault=type(exc).__name__)
        problem = Problem(
            ProblemType.MALFORMED, "request is no well-formed HTTP/1.1", status=status
        )
        answer = _Answer(
            body=json.dumps(problem.to_json()).encode(),
            status=status,
            content_type="application/problem+json",
        )
        answer.force_close()
        return answer


class _Server(web.Server):
    """Makes connections of our own kind."""

    def __call__(self) -> _Handler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class PoliteRunner(web.AppRunner):
    """An ``AppRunner`` whose connections answer what is no HTTP."""

    async def _make_server(self) -> _Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
