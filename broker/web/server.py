"""The ACME listener put together: paths, headers that go with every answer, the door.

Every answer carries exactly one ``Replay-Nonce``, errors too, so that no client is left without
one (RFC 8555 §6.5).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from broker.issuance.ports import Clock, Nonces
from broker.protocol.problems import Problem, ProblemType, printable
from broker.web.acme import AcmeHandlers, WebCommunity
from broker.web.envelope import Envelope, EnvelopeLimits
from broker.web.links import DEFAULT_COMMUNITY, ID_PATTERN, Links
from broker.web.listeners import hide_software
from broker.web.problems import Door, Handler, RequestObserver, problem_response
from broker.web.refusals import RefusalLog
from broker.web.workflows import ProfileNames, RecordRefusal, Workflows

__all__ = ["WebSettings", "create_acme_app"]

_COMMUNITY = "{community:[a-z0-9][a-z0-9-]{0,62}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What the ACME listener is told by configuration."""

    external_url: str
    """The one URL under which clients reach us; the sole source of every URL we hand out."""
    communities: Mapping[str, WebCommunity]
    limits: EnvelopeLimits = field(default_factory=EnvelopeLimits)
    retry_after: timedelta = timedelta(seconds=3)
    """What polling clients are told to wait: most upstreams issue within that time."""


def create_acme_app(
    settings: WebSettings,
    *,
    workflows: Workflows,
    nonces: Nonces,
    clock: Clock,
    observer: RequestObserver,
    record_refusal: RecordRefusal,
    profiles: ProfileNames,
) -> web.Application:
    """Return the application that ACME clients speak to."""
    links = Links(settings.external_url, settings.communities)
    refusals = RefusalLog(record_refusal, clock)
    door = Door(refusals=refusals, observer=observer, clock=clock)
    envelope = Envelope(
        accounts=workflows.accounts, nonces=nonces, links=links, limits=settings.limits
    )
    handlers = AcmeHandlers(
        communities=settings.communities,
        links=links,
        workflows=workflows,
        envelope=envelope,
        profiles=profiles,
        retry_after=settings.retry_after,
    )
    app = web.Application(middlewares=[door.middleware], client_max_size=settings.limits.body_bytes)
    _add_routes(app, links, handlers)
    if DEFAULT_COMMUNITY in settings.communities:
        _add_default_directory(app, links, handlers)

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Replay-Nonce"] = nonces.issue()
        response.headers["Cache-Control"] = "no-store"
        response.headers["Access-Control-Allow-Origin"] = "*"
        directory = links.index_for(request.path)
        if directory is not None:
            response.headers.add("Link", f'<{directory}>;rel="index"')

    async def keep_refusals(_app: web.Application) -> AsyncIterator[None]:
        async with refusals.running():
            yield

    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(hide_software)
    app.cleanup_ctx.append(keep_refusals)
    return app


def _add_routes(app: web.Application, links: Links, handlers: AcmeHandlers) -> None:
    base = f"{links.root}/{_COMMUNITY}"
    order = f"{base}/order/{{order_id:{ID_PATTERN}}}"
    authorization_id = f"{{authorization_id:{ID_PATTERN}}}"
    challenge = f"{base}/challenge/{authorization_id}/{{challenge_id:{ID_PATTERN}}}"
    certificate = f"{base}/certificate/{{certificate_id:{ID_PATTERN}}}"
    routes: list[tuple[tuple[str, ...], str, str, Handler]] = [
        (("GET", "HEAD", "POST"), f"{base}/directory", "directory", handlers.directory),
        (("GET", "HEAD", "POST"), f"{base}/new-nonce", "new-nonce", handlers.new_nonce),
        (("POST",), f"{base}/new-account", "new-account", handlers.new_account),
        (("POST",), f"{base}/account/{{account_id:{ID_PATTERN}}}", "account", handlers.account),
        (("POST",), f"{base}/new-order", "new-order", handlers.new_order),
        (("POST",), order, "order", handlers.order),
        (("POST",), f"{order}/finalize", "finalize", handlers.finalize),
        (("POST",), f"{base}/authz/{authorization_id}", "authz", handlers.authorization),
        (("POST",), challenge, "challenge", handlers.challenge),
        (("POST",), certificate, "certificate", handlers.certificate),
        (("POST",), f"{base}/revoke-cert", "revoke-cert", handlers.revoke),
    ]
    for methods, path, name, handler in routes:
        resource = app.router.add_resource(path, name=name)
        for method in methods:
            resource.add_route(method, handler, expect_handler=_meet_expectation)


def _add_default_directory(app: web.Application, links: Links, handlers: AcmeHandlers) -> None:
    """Put the default community's directory at the short path that people type."""

    async def directory(request: web.Request) -> web.StreamResponse:
        request.match_info["community"] = DEFAULT_COMMUNITY
        return await handlers.directory(request)

    resource = app.router.add_resource(f"{links.root}/directory", name="default-directory")
    for method in ("GET", "HEAD", "POST"):
        resource.add_route(method, directory, expect_handler=_meet_expectation)


async def _meet_expectation(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body where that is expected (RFC 9110 §10.1.1), and for nothing else."""
    expected = request.headers.get("Expect", "")
    if expected.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What was written is no part of the answer that follows.
        request.writer.output_size = 0
        return None
    return problem_response(
        Problem(
            ProblemType.MALFORMED,
            f"expectation {printable(expected, 40)!r} is not met, expected '100-continue'",
            status=417,
        )
    )
