"""Where the API server asks: ``/mutate`` about pods, ``/validate`` about ConfigMaps with policies.

One line in the log for each request: who was asked about, how it ended and, where it was refused,
the sentence that was answered.  That names what was asked for and the rule that refuses it; nothing
else of the object is told.  Nothing that is sent here makes anything happen but a question to the
broker; who sends it is kept apart by network policy, since API servers show no certificate unless
told to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Final

import structlog
from aiohttp import web

from broker.admission.denials import Malformed
from broker.admission.metrics import AdmissionMetrics
from broker.admission.reviews import (
    MAX_MESSAGE_CHARS,
    Admitted,
    Asked,
    Outcome,
    format_review,
    parse_review,
)
from broker.protocol.problems import printable

__all__ = ["MAX_REVIEW_BYTES", "Answer", "create_admission_app", "seconds_left"]

MAX_REVIEW_BYTES: Final = 12 * 1024 * 1024
"""Largest request that is read, in bytes: an API server takes objects of 3 MiB, and sends an update
with the object as it was."""

BODY_SECONDS: Final = 10.0
"""How long a request may take to arrive, in seconds; an API server sends it at once."""

MARGIN_SECONDS: Final = 0.5
"""How much of the API server's time is left for the way there and back, in seconds."""

LEAST_SECONDS: Final = 0.5
"""Shortest time that is taken for an answer, in seconds."""

_TIMEOUT: Final = re.compile(r"([0-9]{1,3})s", re.ASCII)

Answer = Callable[[Asked, float], Awaitable[Admitted]]
"""Answers a request within so many seconds; raises Malformed."""

log = structlog.get_logger("penstock.admission")


def create_admission_app(
    *,
    mutate: Answer,
    validate: Answer | None,
    metrics: AdmissionMetrics,
    timeout: timedelta,
    doors: Sequence[Any] = (),
    clock: Callable[[], float] = monotonic,
) -> web.Application:
    """Return the application; without *validate* every ConfigMap is let through.

    *doors* are middlewares that stand around it, such as what takes in what nobody expects.
    """
    app = web.Application(middlewares=doors, client_max_size=MAX_REVIEW_BYTES)
    answers = {"mutate": mutate, "validate": validate or _let_through}
    for webhook, answer in answers.items():
        desk = _Desk(webhook, answer, metrics=metrics, timeout=timeout, clock=clock)
        app.router.add_post(f"/{webhook}", desk.handle)
    app.on_response_prepare.append(_add_headers)
    return app


def seconds_left(asked: str | None, most: timedelta) -> float:
    """Return how long an answer may take; *asked* is what the API server says that it waits."""
    found = _TIMEOUT.fullmatch(asked or "")
    limit = most.total_seconds()
    if found is not None:
        limit = min(limit, int(found[1]) - MARGIN_SECONDS)
    return max(limit, LEAST_SECONDS)


async def _let_through(_asked: Asked, _seconds: float) -> Admitted:
    return Admitted(outcome=Outcome.UNTOUCHED)


class _Desk:
    """Answers one webhook."""

    def __init__(
        self,
        webhook: str,
        answer: Answer,
        *,
        metrics: AdmissionMetrics,
        timeout: timedelta,
        clock: Callable[[], float],
    ) -> None:
        self._webhook = webhook
        self._answer = answer
        self._metrics = metrics
        self._timeout = timeout
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        begun = self._clock()
        asked: Asked | None = None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
            asked = parse_review(body)
            seconds = seconds_left(request.query.get("timeout"), self._timeout)
            admitted = await self._answer(asked, seconds)
            body = format_review(asked.uid, admitted)
        except TimeoutError:
            self._told(asked, "malformed", begun, f"not there within {BODY_SECONDS:g} s")
            return web.Response(status=408, text="the request took too long to arrive\n")
        except Malformed as fault:
            self._told(asked, "malformed", begun, str(fault))
            return web.Response(status=400, text=f"{fault}\n")
        self._told(asked, admitted.outcome, begun, admitted.message or None)
        return web.Response(body=body, content_type="application/json")

    def _told(self, asked: Asked | None, outcome: str, begun: float, reason: str | None) -> None:
        seconds = self._clock() - begun
        self._metrics.answered(self._webhook, outcome, seconds)
        tell = log.warning if outcome in {Outcome.UNANSWERED, "malformed"} else log.info
        tell(
            "admission",
            webhook=self._webhook,
            outcome=outcome,
            seconds=round(seconds, 4),
            uid=asked.uid if asked else None,
            namespace=asked.namespace if asked else None,
            name=asked.name if asked else None,
            is_dry_run=asked.is_dry_run if asked else None,
            reason=printable(reason, MAX_MESSAGE_CHARS) if reason else None,
        )


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.pop("Server", None)
