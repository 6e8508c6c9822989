"""Pages of any origin may speak ACME with us (RFC 8555 §6.1): what a browser asks beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from broker.web.problems import Handler

__all__ = ["EXPOSED_HEADERS", "preflight"]

EXPOSED_HEADERS: Final = "Replay-Nonce, Location, Link, Retry-After"
"""Headers of our answers that a page's script may read; without them it could speak no ACME."""

MAX_AGE: Final = 86_400
"""How long a browser may remember the answer, in seconds: a day, more than browsers do."""


def preflight(methods: Sequence[str]) -> Handler:
    """Return the handler that tells a browser which *methods* a resource takes."""
    headers = {
        "Allow": ", ".join((*methods, "OPTIONS")),
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": str(MAX_AGE),
    }

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers=headers)

    return answer
