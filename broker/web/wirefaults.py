"""What is no HTTP at all: answered in our own words, before any application sees it.

And whoever has come and not yet asked when the end comes is heard out.

aiohttp answers such bytes itself, with its name, its parser's text and a traceback in the log for
every stranger who sends some.  Here they get a problem document and one line of log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from broker.protocol.problems import Problem, ProblemType

__all__ = ["PoliteRunner"]

FIRST_REQUEST_SECONDS: Final = 2.0
"""How long after its beginning a connection is left for its first request when the listener ends,
in seconds: clients ask at once, those on busy machines somewhat later."""

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

    made_at: float = 0.0
    """When the connection began, by the loop's clock, in seconds."""

    is_heard: bool = False
    """Whether a request has come."""

    on_heard: Callable[[_Handler], None] | None = None
    """Told once one has, or none will."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.made_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        if not self.is_heard and self._request_count:
            self._hear()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up after the connection."""
        super().connection_lost(exc)
        self._hear()
        if self.when_lost is not None:
            self.when_lost()

    def _hear(self) -> None:
        self.is_heard = True
        if self.on_heard is not None:
            self.on_heard(self)

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

    async def hear_out(self) -> None:
        """Wait for the first requests of those who have come a moment ago."""
        heard = asyncio.Event()
        begin = self._loop.time() - FIRST_REQUEST_SECONDS
        silent = {
            one
            for one in self.connections
            if isinstance(one, _Handler) and not one.is_heard and one.made_at > begin
        }

        def hear(one: _Handler) -> None:
            silent.discard(one)
            if not silent:
                heard.set()

        for one in silent:
            one.on_heard = hear
        if silent:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                    await heard.wait()


class PoliteRunner(web.AppRunner):
    """An ``AppRunner`` whose connections answer what is no HTTP, and are heard out in the end."""

    async def cleanup(self) -> None:
        """Accept no more, hear out who has come, let handlers finish, close."""
        for site in list(self.sites):
            await site.stop()
        if isinstance(self.server, _Server):
            await self.server.hear_out()
        await super().cleanup()

    async def _make_server(self) -> _Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
