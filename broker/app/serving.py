"""The broker at work: its listeners, its schedule, its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from broker.app.assembly import Broker, Outside, assembled
from broker.app.identity import Identity
from broker.config import Config, Endpoint
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event
from broker.policy.document import PolicyDocument
from broker.schedule import Scheduler
from broker.web.acme import WebCommunity
from broker.web.envelope import EnvelopeLimits
from broker.web.health import create_health_app
from broker.web.listeners import Listener, start_tcp, start_unix
from broker.web.nonces import BootNonces
from broker.web.operator import Operations, create_operator_app
from broker.web.plain import create_plain_app
from broker.web.server import WebSettings, create_acme_app

__all__ = ["open_offline", "serve", "tolerant"]

log = structlog.get_logger("penstock")

SWEEP_EVERY: Final = timedelta(seconds=5)
"""How often due jobs are looked for; those made by a request start at once without it."""

EXPIRE_EVERY: Final = timedelta(minutes=1)
"""How often orders whose time has passed are closed; readers see them expired before."""

IDENTITY_EVERY: Final = timedelta(minutes=5)
"""How often the broker looks at its own TLS certificate: two small files, so that one which lives
an hour only is renewed in time too."""


@asynccontextmanager
async def open_offline(config: Config) -> AsyncIterator[Operations]:
    """Do operator commands without a running broker; holds the store's exclusive lock."""
    async with assembled(config) as broker:
        yield broker.operations


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then let clients have their answers and stop.

    Raises:
        Broken: The broker cannot start as configured.
        Unreachable: The store cannot be opened now.
    """
    with _told_to_stop() as stopping:
        async with assembled(config) as broker, AsyncExitStack() as stack:
            await _start(broker, stack)
            await broker.dispatcher.run_due()
            documents = broker.outside.policies.documents
            log.info(
                "serving",
                external_url=config.external_url,
                policies={name: made.sha256 for name, made in documents.items()},
            )
            await stopping.wait()
            log.info("stopping")


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Yield what is set when the process is told to end."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _start(broker: Broker, stack: AsyncExitStack) -> None:
    """Open the listeners, the one that says "ready" last; the stack closes them in reverse."""
    outside = broker.outside
    listen, limits = outside.config.listen, outside.config.limits
    identity = Identity(
        outside.config, find_authority=outside.upstreams.authorities.get, clock=outside.clock
    )
    context = await identity.context()
    scheduler = _schedule(broker, identity)
    scheduler.start()
    stack.callback(scheduler.stop)
    socket_path = outside.config.operator_socket
    _stop_with(stack, await start_unix(create_operator_app(broker.operations), socket_path))
    if listen.plain is not None:
        await _start_at(stack, listen.plain.address, _plain_app(outside))
    acme = await start_tcp(
        _acme_app(broker),
        host=listen.acme.address.host,
        port=listen.acme.address.port,
        tls=context,
        idle_time=limits.idle_timeout,
    )
    _stop_with(stack, acme)
    await _start_at(stack, listen.health.address, _health_app(outside))


async def _start_at(stack: AsyncExitStack, address: Endpoint, app: web.Application) -> None:
    _stop_with(stack, await start_tcp(app, host=address.host, port=address.port))


def _stop_with(stack: AsyncExitStack, listener: Listener) -> None:
    stack.push_async_callback(listener.stop)


def _acme_app(broker: Broker) -> web.Application:
    outside = broker.outside
    config, store = outside.config, outside.store

    async def record_refusal(event: Event) -> None:
        await store.append(event, durable=False)

    return create_acme_app(
        WebSettings(
            external_url=config.external_url,
            communities={
                name: WebCommunity(
                    website=made.website,
                    terms_of_service=made.terms_of_service,
                    caa_identities=made.caa_identities,
                    external_account_required=made.external_account_required,
                )
                for name, made in config.communities.items()
            },
            limits=EnvelopeLimits(
                body_bytes=config.limits.body, body_time=config.limits.body_timeout
            ),
        ),
        workflows=broker.workflows,
        nonces=BootNonces(outside.clock),
        clock=outside.clock,
        observer=outside.telemetry,
        record_refusal=record_refusal,
        profiles=lambda community: _profiles(outside.policies.current(community)),
    )


def _profiles(document: PolicyDocument) -> dict[str, str]:
    return {name: made.description or name for name, made in document.profiles.items()}


def _plain_app(outside: Outside) -> web.Application:
    authorities = outside.upstreams.authorities

    async def issuer_certificate(key_id: str) -> bytes | None:
        found = (authority.certificate_der(key_id) for authority in authorities.values())
        return next((der for der in found if der is not None), None)

    async def revocation_list(key_id: str) -> bytes | None:
        for authority in list(authorities.values()):
            found = await authority.crl_der(key_id)
            if found is not None:
                return found
        return None

    return create_plain_app(
        answers=outside.answers.answer,
        issuer_certificates=issuer_certificate,
        revocation_lists=revocation_list,
    )


def _health_app(outside: Outside) -> web.Application:
    async def store() -> str | None:
        try:
            await outside.store.suspensions()
        except (Unreachable, Broken) as error:
            return error.reason
        return await outside.store.check_writable()

    return create_health_app(checks={"store": store}, metrics=outside.telemetry.render)


def _schedule(broker: Broker, identity: Identity) -> Scheduler:
    async def expire_orders() -> None:
        await broker.orders.expire_due()

    jobs: tuple[tuple[str, timedelta, Callable[[], Awaitable[None]]], ...] = (
        ("due-jobs", SWEEP_EVERY, broker.dispatcher.run_due),
        ("expire-orders", EXPIRE_EVERY, expire_orders),
        ("own-certificate", IDENTITY_EVERY, identity.refresh),
    )
    scheduler = Scheduler()
    for name, every, run in jobs:
        scheduler.add(name, every, tolerant(name, run))
    return scheduler


def tolerant(name: str, run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return *run* with its expected failures told to the log: its next turn comes anyway."""

    async def attempt() -> None:
        try:
            await run()
        except (Unreachable, Broken) as error:
            log.error("scheduled job failed", job=name, reason=error.reason)

    return attempt
