"""The ACME listener put together: paths, headers that go with every answer, the door.

Every answer carries exactly one ``Replay-Nonce``, errors too, so that no client is left without
one (RFC 8555 §6.5).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from aiohttp import web

from broker.issuance.ports import Clock, Nonces
from broker.protocol.problems import Problem, ProblemType, printable
from broker.web.accounts import AccountHandlers
from broker.web.acme import AcmeHandlers
from broker.web.approvals import add_approvals
from broker.web.cross_origin import EXPOSED_HEADERS, preflight
from broker.web.envelope import Envelope, EnvelopeLimits
from broker.web.handlers import Site, WebCommunity
from broker.web.help import add_help
from broker.web.limits import Gatekeeper, LimitObserver, WebRates
from broker.web.links import DEFAULT_COMMUNITY, ID_PATTERN, Links
from broker.web.listeners import hide_software
from broker.web.origins import IpNetwork, Origins, ProxyHeader
from broker.web.problems import Door, Handler, RequestObserver, problem_response
from broker.web.refusals import RefusalLog
from broker.web.workflows import ProfileNames, RecordRefusal, Workflows

__all__ = ["WebObserver", "WebSettings", "create_acme_app", "create_gatekeeper"]

ResponseHook = Callable[[web.Request, web.StreamResponse], Awaitable[None]]

_COMMUNITY = "{community:[a-z0-9][a-z0-9-]{0,62}}"


class WebObserver(RequestObserver, LimitObserver, Protocol):
    """Counts what was served and what was refused (``telemetry`` is one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What the ACME listener is told by configuration."""

    external_url: str
    """The one URL under which clients reach us; the sole source of every URL we hand out."""
    communities: Mapping[str, WebCommunity]
    limits: EnvelopeLimits = field(default_factory=EnvelopeLimits)
    rates: WebRates = field(default_factory=WebRates)
    retry_after: timedelta = timedelta(seconds=3)
    """What polling clients are told to wait: most upstreams issue within that time."""
    proxies: tuple[IpNetwork, ...] = ()
    """Networks of the proxies in front of the listener; only these are believed about clients."""
    proxy_header: ProxyHeader = ProxyHeader.X_FORWARDED_FOR


def create_gatekeeper(
    settings: WebSettings, *, clock: Clock, observer: LimitObserver
) -> Gatekeeper:
    """Return who keeps count of the clients of this listener."""
    help_url = Links(settings.external_url, settings.communities).help(ProblemType.RATE_LIMITED)
    return Gatekeeper(settings.rates, clock=clock, observer=observer, help_url=help_url)


def create_acme_app(
    settings: WebSettings,
    *,
    workflows: Workflows,
    nonces: Nonces,
    clock: Clock,
    observer: WebObserver,
    record_refusal: RecordRefusal,
    profiles: ProfileNames,
    gatekeeper: Gatekeeper | None = None,
) -> web.Application:
    """Return the application that ACME clients speak to.

    Without a *gatekeeper* it makes one of its own, to which nobody tells what becomes of
    challenges.
    """
    links = Links(settings.external_url, settings.communities)
    origins = Origins(settings.proxies, settings.proxy_header)
    gatekeeper = gatekeeper or create_gatekeeper(settings, clock=clock, observer=observer)
    refusals = RefusalLog(record_refusal, clock)
    door = Door(refusals=refusals, observer=observer, clock=clock)
    site = Site(
        communities=settings.communities,
        links=links,
        workflows=workflows,
        envelope=Envelope(
            accounts=workflows.accounts,
            nonces=nonces,
            links=links,
            limits=settings.limits,
            gatekeeper=gatekeeper,
        ),
        gatekeeper=gatekeeper,
        retry_after=settings.retry_after,
    )
    handlers = AcmeHandlers(site, profiles)
    app = web.Application(
        middlewares=[door.middleware, origins.middleware, gatekeeper.middleware],
        client_max_size=settings.limits.body_bytes,
    )
    _add_routes(app, links, handlers, AccountHandlers(site))
    add_help(app, links.root)
    add_approvals(app, f"{links.root}/{_COMMUNITY}", workflows.approvals)
    if DEFAULT_COMMUNITY in settings.communities:
        _add_default_directory(app, links, handlers)

    async def keep_refusals(_app: web.Application) -> AsyncIterator[None]:
        async with refusals.running():
            yield

    app.on_response_prepare.append(_headers(links, nonces))
    app.on_response_prepare.append(hide_software)
    app.cleanup_ctx.append(keep_refusals)
    return app


def _headers(links: Links, nonces: Nonces) -> ResponseHook:
    """Return what adds the headers of every answer."""

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        if "Cache-Control" not in response.headers:
            # What caches may keep is the same for everyone, and carries no nonce.
            response.headers["Replay-Nonce"] = nonces.issue()
            response.headers["Cache-Control"] = "no-store"
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        directory = links.index_for(request.path)
        if directory is not None:
            response.headers.add("Link", f'<{directory}>;rel="index"')

    return add_headers


def _add_routes(
    app: web.Application, links: Links, handlers: AcmeHandlers, accounts: AccountHandlers
) -> None:
    base = f"{links.root}/{_COMMUNITY}"
    order = f"{base}/order/{{order_id:{ID_PATTERN}}}"
    authorization_id = f"{{authorization_id:{ID_PATTERN}}}"
    challenge = f"{base}/challenge/{authorization_id}/{{challenge_id:{ID_PATTERN}}}"
    account = f"{base}/account/{{account_id:{ID_PATTERN}}}"
    certificate = f"{base}/certificate/{{certificate_id:{ID_PATTERN}}}"
    routes: list[tuple[tuple[str, ...], str, str, Handler]] = [
        (("GET", "HEAD", "POST"), f"{base}/directory", "directory", handlers.directory),
        (("GET", "HEAD", "POST"), f"{base}/new-nonce", "new-nonce", handlers.new_nonce),
        (("POST",), f"{base}/new-account", "new-account", accounts.new_account),
        (("POST",), account, "account", accounts.account),
        (("POST",), f"{account}/orders", "orders", accounts.orders),
        (("POST",), f"{base}/key-change", "key-change", accounts.key_change),
        (("POST",), f"{base}/new-authz", "new-authz", handlers.new_authorization),
        (("POST",), f"{base}/new-order", "new-order", handlers.new_order),
        (("POST",), order, "order", handlers.order),
        (("POST",), f"{order}/finalize", "finalize", handlers.finalize),
        (("POST",), f"{base}/authz/{authorization_id}", "authz", handlers.authorization),
        (("POST",), challenge, "challenge", handlers.challenge),
        (("POST",), certificate, "certificate", handlers.certificate),
        (("POST",), f"{certificate}/chain/{{number:[1-9]}}", "chain", handlers.certificate),
        (("GET", "HEAD"), f"{base}/renewal-info/{{cert_id}}", "renewal", handlers.renewal_info),
        (("POST",), f"{base}/revoke-cert", "revoke-cert", handlers.revoke),
    ]
    for methods, path, name, handler in routes:
        _add_resource(app, path, name, methods, handler)


def _add_resource(
    app: web.Application, path: str, name: str, methods: Sequence[str], handler: Handler
) -> None:
    resource = app.router.add_resource(path, name=name)
    for method in methods:
        resource.add_route(method, handler, expect_handler=_meet_expectation)
    resource.add_route("OPTIONS", preflight(methods))


def _add_default_directory(app: web.Application, links: Links, handlers: AcmeHandlers) -> None:
    """Put the default community's directory at the short path that people type."""

    async def directory(request: web.Request) -> web.StreamResponse:
        request.match_info["community"] = DEFAULT_COMMUNITY
        return await handlers.directory(request)

    path, methods = f"{links.root}/directory", ("GET", "HEAD", "POST")
    _add_resource(app, path, "default-directory", methods, directory)


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
