"""Plain HTTP: our answers to upstream http-01 challenges, issuer certificates and CRLs.

All three are public by their nature and are asked for by parties that cannot use TLS yet: a CA
that validates, and a relying party that is just verifying a chain (RFC 5280 §4.2.1.13).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import structlog
from aiohttp import ETag, web

from broker.issuance.errors import Broken, Unreachable
from broker.web.listeners import hide_software

__all__ = ["Answers", "Publication", "Published", "create_plain_app"]

_log = structlog.get_logger(__name__)

Answers = Callable[[str, str], bytes | None]
"""From a Host header and a path under ``/.well-known/acme-challenge/`` to the key authorization,
if there is one."""


@dataclass(frozen=True)
class Publication:
    """What is published under an id.  Without slots, since its tag is kept."""

    body: bytes
    modified_at: datetime
    """When it was made."""
    fresh_for: timedelta
    """How long a cache may answer with it without asking."""
    expires_at: datetime
    """When that time is over."""

    @cached_property
    def tag(self) -> str:
        """Return what tells this body from any other (RFC 9110 §8.8.3)."""
        return hashlib.sha256(self.body).hexdigest()


Published = Callable[[str], Awaitable[Publication | None]]
"""From an id to what is published under it, if there is anything.

Raises Unreachable or Broken where it cannot be made now, such as a CRL that nobody can sign."""

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
        handler = _published_handler(issuer_certificates, "application/pkix-cert")
        app.router.add_get(f"/ca/{{id:{_ISSUER}}}.crt", handler)
    if revocation_lists is not None:
        handler = _published_handler(revocation_lists, "application/pkix-crl")
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


def _published_handler(find: Published, content_type: str) -> _Handler:
    async def publish(request: web.Request) -> web.StreamResponse:
        try:
            found = await find(request.match_info["id"])
        except (Unreachable, Broken) as error:
            _log.error("nothing can be published now", path=request.path, reason=error.reason)
            raise web.HTTPServiceUnavailable(
                text="nothing is published now, try again later\n",
                headers={
                    "Retry-After": str(int(RETRY_AFTER.total_seconds())),
                    "Cache-Control": "no-store",
                },
            ) from error
        if found is None:
            raise web.HTTPNotFound(text="nothing is published here\n")
        response = web.Response(status=304 if _is_known(request, found) else 200)
        response.etag = found.tag
        response.last_modified = found.modified_at
        response.headers["Expires"] = _http_date(found.expires_at)
        seconds = max(0, int(found.fresh_for.total_seconds()))
        # Once that is over a cache has to ask: what it holds may lack a revocation.
        response.headers["Cache-Control"] = f"public, max-age={seconds}, must-revalidate"
        if response.status == 200:
            response.body = found.body
            response.content_type = content_type
        return response

    return publish


def _is_known(request: web.Request, found: Publication) -> bool:
    """Return whether the client has this very body (RFC 9110 §13.2.2)."""
    tags = request.if_none_match
    if tags is not None:
        # Where tags are given, the date counts for nothing.
        return any(tag in (ETag("*"), ETag(found.tag, tag.is_weak)) for tag in tags)
    since = request.if_modified_since
    return since is not None and found.modified_at.replace(microsecond=0) <= since


def _http_date(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
