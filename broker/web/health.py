"""The health port: ``/livez``, ``/readyz``, ``/metrics``, apart from what clients reach.

``/livez`` depends on nothing but the event loop: a broker that cannot reach its CA is not helped
by being restarted.  ``/readyz`` asks what a client would need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from aiohttp import web

from broker.web.listeners import hide_software

__all__ = ["METRICS_CONTENT_TYPE", "HealthView", "ReadyCheck", "create_health_app", "health_app_of"]

ReadyCheck = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, or the reason why not; it raises nothing."""

CHECK_TIME: Final = timedelta(seconds=2)
"""Longest that one check may take, and with it all of them, for none waits for another:
orchestrators give the whole probe a few seconds."""

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The Prometheus text format that ``/metrics`` is written in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthView:
    """What the health port finds out when it is asked."""

    checks: Mapping[str, ReadyCheck]
    metrics: Callable[[], Awaitable[bytes]] | None = None
    """Renders them; None while there are none."""
    warnings: Mapping[str, ReadyCheck] = field(default_factory=dict)
    """What they find is told by ``/readyz`` and changes nothing of its answer: clients are served
    all the same, for now."""


def create_health_app(
    *,
    checks: Mapping[str, ReadyCheck],
    metrics: Callable[[], Awaitable[bytes]],
    warnings: Mapping[str, ReadyCheck] | None = None,
) -> web.Application:
    """Return the application of a health listener that finds out the same for its whole life."""
    view = HealthView(checks=checks, metrics=metrics, warnings=warnings or {})

    async def find() -> HealthView:
        return view

    return health_app_of(find)


def health_app_of(find: Callable[[], Awaitable[HealthView]]) -> web.Application:
    """Return the application of a health listener that asks whatever *find* returns by then."""

    async def livez(_request: web.Request) -> web.StreamResponse:
        return _text("ok\n")

    async def readyz(request: web.Request) -> web.StreamResponse:
        view = await find()
        checks, told = view.checks, view.warnings
        found = await asyncio.gather(*map(_run, [*checks.values(), *told.values()]))
        faults, odd = found[: len(checks)], found[len(checks) :]
        is_ready = not any(faults)
        lines = [
            f"[{'-' if fault else '+'}] {name} {fault or 'ok'}\n"
            for name, fault in zip(checks, faults, strict=True)
            if fault or "verbose" in request.query
        ]
        lines += [
            f"[!] {name} {why}\n" for name, why in zip(told, odd, strict=True) if why is not None
        ]
        summary = "ok\n" if is_ready else "not ready\n"
        return _text("".join([*lines, summary]), status=200 if is_ready else 503)

    async def scrape(_request: web.Request) -> web.StreamResponse:
        metrics = (await find()).metrics
        if metrics is None:
            return _text("there are none at the moment\n", status=503)
        return web.Response(body=await metrics(), headers={"Content-Type": METRICS_CONTENT_TYPE})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/livez", livez)
    app.router.add_get("/healthz", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    app.on_response_prepare.append(_forbid_caching)
    app.on_response_prepare.append(hide_software)
    return app


async def _run(check: ReadyCheck) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIME.total_seconds()):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_TIME.total_seconds():g} s"


def _text(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status)


async def _forbid_caching(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
