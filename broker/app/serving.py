"""The broker at work: its listeners, its schedule, its end."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol

import structlog
from aiohttp import web

from broker.app.agents import start_agents
from broker.app.assembly import Broker, assembled
from broker.app.beside import begin_beside, tolerant
from broker.app.config_keeping import ReadConfig
from broker.app.config_watch import ConfigWatch
from broker.app.first_certificate import open_later, wait_for_certificate
from broker.app.hangup import Hangups, listening_for_hangup
from broker.app.identity import Identity
from broker.app.kept_config import Beginning
from broker.app.operator_api import open_operator_doors, start_operator_api
from broker.app.outside import Outside
from broker.app.readiness import health_view
from broker.app.rule_metrics import RuleMetrics
from broker.app.service_manager import tell_service_manager
from broker.app.settings import web_rates
from broker.app.stopping import told_to_stop
from broker.app.trust import make_trust_publishing
from broker.app.turns import Turns
from broker.config import Config, Endpoint
from broker.issuance.events import Event
from broker.policy.document import PolicyDocument
from broker.schedule import Scheduler
from broker.web.envelope import EnvelopeLimits
from broker.web.guarded import Guard
from broker.web.handlers import WebCommunity
from broker.web.limits import Limit
from broker.web.listeners import start_tcp
from broker.web.nonces import BootNonces
from broker.web.operator import Operations
from broker.web.origins import Origins, ProxyHeader
from broker.web.plain import create_plain_app
from broker.web.server import WebSettings, create_acme_app, create_gatekeeper
from broker.web.tls_alpn import start_tls_alpn

__all__ = ["open_offline", "serve", "tolerant"]

log = structlog.get_logger("penstock")

CAS_AWAY_EVERY: Final = timedelta(seconds=2)
"""How often it is seen whether a CA that is left alone may be looked at again; one row is read."""

SWEEP_EVERY: Final = timedelta(seconds=5)
"""How often due jobs are looked for; those made by a request start at once without it."""

EXPIRE_EVERY: Final = timedelta(minutes=1)
"""How often orders whose time has passed are closed; readers see them expired before."""

LEFT_OUT_EVERY: Final = timedelta(minutes=1)
"""How often it is put on record how many refusals of a flood were not kept each."""

RENEWALS_EVERY: Final = timedelta(seconds=30)
"""How often it is looked for certificates whose CA is to be asked about their renewal."""

IDENTITY_EVERY: Final = timedelta(seconds=5)
"""How often the broker looks at its own TLS certificate: two calls of stat(2), so that a pair which
somebody else replaced is served within seconds."""


WINDOW_EVERY: Final = timedelta(minutes=10)
"""How often the broker looks whether the CA suggests to renew its own certificate."""

RECONCILE_EVERY: Final = timedelta(seconds=30)
"""How often a restored broker compares itself with its CAs until that has succeeded: one that was
away may be back; without a restore nothing is asked."""


SEAL_EVERY: Final = timedelta(minutes=1)
"""How often it is looked for secrets of the store that are in the clear or under another key: one
read of the store, and one of the key in Vault."""

KEYS_EVERY: Final = timedelta(minutes=1)
"""How often the keys in use are looked at: what somebody did to one is known within that, and costs
one request for each."""

LISTS_EVERY: Final = timedelta(minutes=5)
"""How often revocation lists are looked at; they are signed anew at half their lifetime, the
shortest of which is an hour."""

CA_ENDS_EVERY: Final = timedelta(days=1)
"""How often the log is told of a built-in CA that nears its end."""


@asynccontextmanager
async def open_offline(config: Config) -> AsyncIterator[Operations]:
    """Do operator commands without a running broker; holds the store's exclusive lock."""
    async with assembled(config) as broker:
        yield broker.operations


async def serve(first: Beginning) -> None:
    """Serve until SIGTERM or SIGINT, then let clients have their answers and stop.

    Another configuration is taken up on the way, in a turn of its own.

    Raises:
        Broken: The broker cannot start as configured.
        Unreachable: The store cannot be opened now.
    """
    # A crash must not lay tokens and keys down on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    turns = Turns(first)
    hangups = turns.hangups

    async def take_turn(config: Config) -> ReadConfig | None:
        return None if stopping.is_set() else await _take_turn(config, turns, stopping)

    with told_to_stop() as stopping, listening_for_hangup(hangups.reload, [hangups.call_hooks]):
        await turns.run(take_turn)


async def _take_turn(config: Config, turns: Turns, stopping: asyncio.Event) -> ReadConfig | None:
    """Serve by *config*; return what the next turn is to serve by, None at the end."""
    async with assembled(config, turns.lasting) as broker, AsyncExitStack() as stack:
        outside = broker.outside
        await outside.policy_watch.begin()
        watch = turns.watch(outside)
        _watch_vault(broker)
        await outside.audit.begin(stack)
        also_tell(outside.store, outside.audit.on_events)
        also_tell(outside.store, RuleMetrics(outside.telemetry.registry).on_events)
        await _start(broker, stack, turns, stopping)
        await broker.go_on()
        await outside.publishing.warn_of_ends()
        await outside.keys.watch.warn_of_files()
        begin_beside(broker, stack)
        if watch is not None and turns.is_following:
            task = asyncio.create_task(watch.run(tolerant("configuration", watch.look)))
            stack.callback(task.cancel)
        await turns.begun(outside)
        documents = outside.policies.documents
        log.info(
            "serving",
            external_url=config.external_url,
            policies={name: made.sha256 for name, made in documents.items()},
        )
        stack.enter_context(
            turns.hangups.led_to(_reading_again(broker, watch, turns.hangups), broker.on_hangup)
        )
        tell_service_manager("READY=1")
        return await turns.until(stopping)


def _reading_again(
    broker: Broker, watch: ConfigWatch | None, hangups: Hangups
) -> Callable[[], Awaitable[None]]:
    """Return what reads everything again because the process was told to."""
    policies = tolerant("policies", broker.outside.policy_watch.on_hangup)

    async def read_again() -> None:
        if watch is not None:
            await tolerant("configuration", watch.look_now)()
            if watch.is_overtaken:
                hangups.keep()
            if watch.found.is_set():
                return  # the next turn reads the policies
        await policies()

    return read_again


async def _start(
    broker: Broker, stack: AsyncExitStack, turns: Turns, stopping: asyncio.Event
) -> None:
    """Open the listeners, and say "ready" last; they are closed side by side.

    Raises:
        Broken, Unreachable: The configuration cannot be served by, and what came before it could.
    """
    outside = broker.outside
    listen = outside.config.listen
    identity = _identity(broker)
    context = await identity.context()
    scheduler = _schedule(broker, identity)
    stack.push_async_callback(tolerant("refusals-left-out", broker.tell_left_out))
    scheduler.start()
    stack.callback(scheduler.stop)
    stack.push_async_callback(outside.draining.end)
    doors = await open_operator_doors(broker, stack, turns.path)
    if listen.plain is not None:
        await _start_at(outside, listen.plain.address, _plain_app(outside))
    await _start_tls_alpn(outside)
    opened = asyncio.Event()

    async def open_acme() -> None:
        await _start_acme(broker, stack, context, identity)
        await start_operator_api(doors, outside, identity, stack)
        await turns.opened()
        opened.set()

    if not identity.is_usable and turns.has_way_back:
        await wait_for_certificate(identity, stopping)
    if identity.is_usable:
        await open_acme()
    else:
        task = asyncio.create_task(open_later(identity, open_acme))
        stack.callback(task.cancel)
    view = health_view(broker, identity, opened)
    await outside.lasting.health.show(listen.health.address, view)


def _identity(broker: Broker) -> Identity:
    outside = broker.outside
    return Identity(
        outside.config,
        passphrase=outside.secrets.passphrase(),
        find_authority=outside.upstreams.authorities.get,
        clock=outside.clock,
        own=broker.own,
        is_held=lambda: broker.recovery.standstill.restoration is not None,
    )


async def _start_acme(
    broker: Broker, stack: AsyncExitStack, context: ssl.SSLContext, identity: Identity
) -> None:
    outside = broker.outside
    listen, limits = outside.config.listen, outside.config.limits
    acme = await start_tcp(
        _acme_app(broker),
        host=listen.acme.address.host,
        port=listen.acme.address.port,
        tls=context,
        idle_time=limits.idle_timeout,
        guard=Guard(
            handshake_time=limits.handshake_timeout,
            connections=limits.connections_per_address,
            on_refused=lambda: outside.telemetry.limit_reached(Limit.CONNECTIONS),
            is_unbounded=Origins(listen.acme.proxies).is_proxy,
        ),
        sockets=outside.lasting.sockets,
    )
    outside.draining.add(acme.stop)
    if broker.agents is not None:
        await start_agents(broker.agents, outside, identity, stack)


async def _start_at(outside: Outside, address: Endpoint, app: web.Application) -> None:
    sockets = outside.lasting.sockets
    listener = await start_tcp(app, host=address.host, port=address.port, sockets=sockets)
    outside.draining.add(listener.stop)


def _watch_vault(broker: Broker) -> None:
    """Begin to look after Vault; what waited for it goes on as soon as it is back."""
    vault = broker.outside.vault
    if vault is not None:
        vault.on_return = broker.dispatcher.hurry_put_off
        vault.watch()


async def _start_tls_alpn(outside: Outside) -> None:
    listen = outside.config.listen.tls_alpn
    if listen is None:
        return
    listener = await start_tls_alpn(
        host=listen.address.host,
        port=listen.address.port,
        find=outside.tls_answers.find,
        sockets=outside.lasting.sockets,
    )
    outside.draining.add(listener.stop)


def _acme_app(broker: Broker) -> web.Application:
    outside = broker.outside
    config, store = outside.config, outside.store

    async def record_refusal(event: Event) -> None:
        await store.append(event, durable=False)

    settings = WebSettings(
        external_url=config.external_url,
        communities={
            name: WebCommunity(
                website=made.website,
                terms_of_service=made.terms_of_service,
                caa_identities=made.caa_identities,
                external_account_required=made.external_account_required,
                is_pre_authorizing=made.pre_authorization is not None,
                terms_version=made.terms_version,
            )
            for name, made in config.communities.items()
        },
        limits=EnvelopeLimits(body_bytes=config.limits.body, body_time=config.limits.body_timeout),
        rates=web_rates(config),
        proxies=config.listen.acme.proxies,
        proxy_header=ProxyHeader(config.listen.acme.proxy_header),
    )
    gatekeeper = create_gatekeeper(settings, clock=outside.clock, observer=outside.telemetry)
    also_tell(store, gatekeeper.on_events)
    return create_acme_app(
        settings,
        workflows=broker.workflows,
        nonces=BootNonces(outside.clock),
        clock=outside.clock,
        observer=outside.telemetry,
        record_refusal=record_refusal,
        profiles=lambda community: _profiles(outside.policies.current(community)),
        gatekeeper=gatekeeper,
    )


class Committing(Protocol):
    """A store that tells of what it commits."""

    on_committed: Callable[[Sequence[Event]], None] | None


def also_tell(store: Committing, hook: Callable[[Sequence[Event]], None]) -> None:
    """Tell *hook* of what the store commits, beside whoever is told already."""
    first = store.on_committed

    def tell(events: Sequence[Event]) -> None:
        if first is not None:
            first(events)
        hook(events)

    store.on_committed = tell


def _profiles(document: PolicyDocument) -> dict[str, str]:
    return {name: made.description or name for name, made in document.profiles.items()}


def _plain_app(outside: Outside) -> web.Application:
    return create_plain_app(
        answers=outside.answers.answer,
        issuer_certificates=outside.publishing.certificate,
        revocation_lists=outside.publishing.revocation_list,
    )


def _schedule(broker: Broker, identity: Identity) -> Scheduler:
    async def look_at_identity() -> None:
        try:
            await identity.refresh()
        finally:
            telemetry = broker.outside.telemetry
            telemetry.own_certificate(end=identity.not_after, failures=identity.failures)

    outside = broker.outside
    authorities = outside.authorities
    jobs: tuple[tuple[str, timedelta, Callable[[], Awaitable[None]]], ...] = (
        ("due-jobs", SWEEP_EVERY, broker.go_on),
        ("account-keys", SWEEP_EVERY, broker.unless_held(broker.settle_keys)),
        ("secrets-sealed", SEAL_EVERY, broker.unless_held(broker.sealing.run)),
        ("account-health", SWEEP_EVERY, broker.outside.account_health.look_at_doubted),
        ("cas-away", CAS_AWAY_EVERY, broker.outside.upstreams.breakers.look),
        ("key-rotation", SWEEP_EVERY, broker.rotate_keys),
        ("keys-in-use", KEYS_EVERY, broker.outside.keys.watch.look),
        ("expire-orders", EXPIRE_EVERY, broker.unless_held(broker.expire_due)),
        ("renewal-windows", RENEWALS_EVERY, broker.unless_held(broker.ask_about_renewals)),
        ("clients-renewing", EXPIRE_EVERY, broker.unless_held(broker.clients.run)),
        ("refusals-left-out", LEFT_OUT_EVERY, broker.tell_left_out),
        ("own-certificate", IDENTITY_EVERY, look_at_identity),
        ("own-window", WINDOW_EVERY, identity.follow_window),
        ("reconcile", RECONCILE_EVERY, broker.reconcile),
        ("revocation-lists", LISTS_EVERY, broker.outside.publishing.renew_lists),
        ("ca-unfinished", LISTS_EVERY, broker.unless_held(authorities.finish_unfinished)),
        ("ca-ends", CA_ENDS_EVERY, broker.outside.publishing.warn_of_ends),
    )
    scheduler = Scheduler()
    trust = make_trust_publishing(outside)
    if trust is not None:
        scheduler.add("trust-published", SWEEP_EVERY, tolerant("trust-published", trust.take_turn))
    if broker.agents is not None:
        for name, turn in broker.agents.turns():
            scheduler.add(name, SWEEP_EVERY, tolerant(name, broker.unless_held(turn)))
    for name, every, run in jobs:
        scheduler.add(name, every, tolerant(name, run))
    return scheduler
