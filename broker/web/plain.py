"""Plain HTTP: our answers to upstream http-01 challenges, issuer certificates and CRLs.

All three are public by their nature and are asked for by parties that cannot use TLS yet: a CA
that validates, and a relying party that is just verifying a chain (RFC 5280 §4.2.1.13).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from broker.issuance.errors import Broken, Unreachable
from broker.web.listeners import hide_software

__all__ = ["Answers", "Published", "create_plain_app"]

_log = structlog.get_logger(__name__)

Answers = Callable[[str, str], bytes | None]
"""From a Host header and a path under ``/.well-known/acme-challenge/`` to the key authorization,
if there is one."""

Published = Callable[[str], Awaitable[bytes | None]]
"""From an id to the DER that is published under it, if there is any.

Raises Unreachable or Broken where it cannot be made now, such as a CRL that nobody can sign."""

CERTIFICATE_AGE: Final = timedelta(days=1)
"""How long an issuer certificate may be cached; it never changes under its URL."""

CRL_AGE: Final = timedelta(minutes=10)
"""How long a CRL may be cached: what a revocation can be late by."""

RETRY_AFTER: Final = timedelta(minutes=1)
"""When to ask again for what cannot be made now; verifiers that were told 404 would not."""

_ISSUER: Final = "[a-z0-9][a-z0-9._-]{0,63}"
# What the key of an issuer may be called.


def create_plain_app(
    *,
    answers: Answers | None = None,
    issuer_certificates: Published | None = None,
    revocation_lists: Published | None = None,
) -> web.Application:
    """Return the application of the plain listener; what is None is not served."""
    app = web.Application(client_max_size=1024)
    if answers is not None:
        app.router.add_get("/.well-known/acme-challenge/{token}", _challenge_handler(answers))
    if issuer_certificates is not None:
        handler = _published_handler(issuer_certificates, "application/pkix-cert", CERTIFICATE_AGE)
        app.router.add_get(f"/ca/{{id:{_ISSUER}}}.crt", handler)
    if revocation_lists is not None:
        handler = _published_handler(revocation_lists, "application/pkix-crl", CRL_AGE)
        app.router.add_get(f"/crl/{{id:{_ISSUER}}}.crl", handler)
    app.on_response_prepare.append(hide_software)
    return app


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _challenge_handler(answers: Answers) -> _Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = answers(request.host, request.path)
        if body is None:
            raise web.HTTPNotFound(text="no challenge is answered here\n")
        # RFC 8555 §8.3 suggests application/octet-stream, which no browser renders.
        return web.Response(
            body=body,
            content_type="application/octet-stream",
            headers={"Cache-Control": "no-store"},
        )

    return answer


def _published_handler(find: Published, content_type: str, age: timedelta) -> _Handler:
    caching = f"public, max-age={int(age.total_seconds())}"

    async def publish(request: web.Request) -> web.StreamResponse:
        try:
            body = await find(request.match_info["id"])
        except (Unreachable, Broken) as error:
            _log.error("nothing can be published now", path=request.path, reason=error.reason)
            raise web.HTTPServiceUnavailable(
                text="nothing is published now, try again later\n",
                headers={"Retry-After": str(int(RETRY_AFTER.total_seconds()))},
            ) from error
        if body is None:
            raise web.HTTPNotFound(text="nothing is published here\n")
        return web.Response(
            body=body, content_type=content_type, headers={"Cache-Control": caching}
        )

    return publish
