"""All rooms put together: the one place where a port meets its adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from broker.app.authorities import Authorities
from broker.app.settings import issuance_settings, validation_settings
from broker.app.upstreams import ConfiguredUpstreams
from broker.clock import SystemClock
from broker.config import Config, LoadedPolicies, load_policies
from broker.issuance.accounts import Accounts
from broker.issuance.authorizations import Authorizations
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Broken
from broker.issuance.fulfilment import Fulfilment
from broker.issuance.orders import Orders
from broker.issuance.planning import Planner
from broker.issuance.records import JobKind
from broker.issuance.release import Gate
from broker.issuance.revocations import Revocations
from broker.issuance.settings import IssuanceSettings
from broker.keys.keyfile import KeyFileSigner
from broker.keys.suffixes import PackagedPublicSuffixes
from broker.keys.weakness import OfflineKeyInspector
from broker.operations import OperatorDesk, Rooms
from broker.storage.sqlite import SqliteStore
from broker.telemetry import Snapshot, Telemetry
from broker.upstreams.http01 import Http01Answers
from broker.validation.validators import Validators
from broker.web.workflows import Workflows

__all__ = ["Broker", "assembled"]

VERSION: Final = version("penstock")
"""The version of this broker, as packaged."""

DATABASE: Final = "penstock.db"
"""Name of the store in the state directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is behind the ports: the adapters of one broker."""

    config: Config
    policies: LoadedPolicies
    clock: SystemClock
    store: SqliteStore
    telemetry: Telemetry
    authorities: Authorities
    answers: Http01Answers
    upstreams: ConfiguredUpstreams


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker, assembled and not yet listening."""

    outside: Outside
    dispatcher: Dispatcher
    orders: Orders
    workflows: Workflows
    operations: OperatorDesk


@asynccontextmanager
async def assembled(config: Config) -> AsyncIterator[Broker]:
    """Assemble a broker over its store, whose exclusive lock is held for as long.

    Raises:
        Broken: Something in the configuration or the state cannot be used, or another process
            works on the store.
        Unreachable: The store cannot be opened now.
    """
    policies = load_policies(config)
    _make_state(config)
    store = await SqliteStore.open(config.state / DATABASE)
    try:
        outside = _go_outside(config, policies, store)
        try:
            broker = await _assemble(outside)
            try:
                yield broker
            finally:
                await broker.dispatcher.stop()
        finally:
            await outside.upstreams.close()
    finally:
        await store.close()


def _make_state(config: Config) -> None:
    try:
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"state directory {config.state} cannot be made: {reason}") from error


def _go_outside(config: Config, policies: LoadedPolicies, store: SqliteStore) -> Outside:
    clock = SystemClock()
    telemetry = Telemetry(
        version=VERSION,
        upstreams=config.upstreams,
        clock=clock,
        snapshot=lambda: _snapshot(store, clock),
    )
    store.on_committed = telemetry.on_events
    signer = KeyFileSigner(config.state / "keys", config.keys.passphrase.resolve())
    authorities = Authorities(
        config.state, signer=signer, clock=clock, own_hosts=_own_hosts(config)
    )
    answers = Http01Answers()
    upstreams = ConfiguredUpstreams(
        config,
        facts=policies.facts,
        authorities=authorities,
        signer=signer,
        store=store,
        clock=clock,
        telemetry=telemetry,
        answers=answers,
        user_agent=f"penstock/{VERSION}",
    )
    return Outside(
        config=config,
        policies=policies,
        clock=clock,
        store=store,
        telemetry=telemetry,
        authorities=authorities,
        answers=answers,
        upstreams=upstreams,
    )


async def _assemble(outside: Outside) -> Broker:
    store, clock = outside.store, outside.clock
    await outside.upstreams.load_accounts()
    settings = issuance_settings(outside.config)
    enrollment = Enrollment(store, clock, settings)
    await enrollment.keep_declared()
    dispatcher = Dispatcher(store, clock)
    planner = Planner(
        policies=outside.policies,
        enrollment=enrollment,
        upstreams=outside.upstreams,
        upstream_store=store,
        suffixes=PackagedPublicSuffixes(),
        clock=clock,
    )
    accounts = Accounts(store, enrollment, clock, settings)
    orders = _orders(outside, planner, dispatcher, settings)
    authorizations = _authorizations(outside, planner, dispatcher, settings)
    revocations = Revocations(store, store, outside.upstreams, dispatcher, clock)
    fulfilment = _fulfilment(outside, dispatcher, settings)
    dispatcher.on(JobKind.VALIDATE, authorizations.validate)
    dispatcher.on(JobKind.PREPARE, fulfilment.prepare)
    dispatcher.on(JobKind.FULFIL, fulfilment.fulfil)
    dispatcher.on(JobKind.REVOKE, revocations.carry_out)
    return Broker(
        outside=outside,
        dispatcher=dispatcher,
        orders=orders,
        workflows=Workflows(
            accounts=accounts,
            orders=orders,
            authorizations=authorizations,
            revocations=revocations,
        ),
        operations=_desk(
            outside,
            accounts=accounts,
            enrollment=enrollment,
            planner=planner,
            revocations=revocations,
        ),
    )


def _orders(
    outside: Outside, planner: Planner, dispatcher: Dispatcher, settings: IssuanceSettings
) -> Orders:
    return Orders(
        orders=outside.store,
        accounts=outside.store,
        certificates=outside.store,
        log=outside.store,
        planner=planner,
        policies=outside.policies,
        inspector=OfflineKeyInspector(outside.config.weak_keys.blocklists),
        dispatcher=dispatcher,
        clock=outside.clock,
        settings=settings,
    )


def _authorizations(
    outside: Outside, planner: Planner, dispatcher: Dispatcher, settings: IssuanceSettings
) -> Authorizations:
    return Authorizations(
        orders=outside.store,
        accounts=outside.store,
        planner=planner,
        validator=Validators(validation_settings(outside.config)),
        dispatcher=dispatcher,
        clock=outside.clock,
        settings=settings,
    )


def _fulfilment(outside: Outside, dispatcher: Dispatcher, settings: IssuanceSettings) -> Fulfilment:
    store, clock = outside.store, outside.clock
    return Fulfilment(
        orders=store,
        works=store,
        upstream_store=store,
        upstreams=outside.upstreams,
        gate=Gate(store, outside.policies, outside.upstreams, clock),
        closing=Closing(store, store, dispatcher, clock),
        dispatcher=dispatcher,
        clock=clock,
        settings=settings,
    )


def _desk(
    outside: Outside,
    *,
    accounts: Accounts,
    enrollment: Enrollment,
    planner: Planner,
    revocations: Revocations,
) -> OperatorDesk:
    return OperatorDesk(
        Rooms(
            store=outside.store,
            accounts=accounts,
            enrollment=enrollment,
            revocations=revocations,
            planner=planner,
            policies=outside.policies,
            upstreams=outside.upstreams,
            authorities=outside.authorities,
            clock=outside.clock,
            communities=tuple(outside.config.communities),
            version=VERSION,
        )
    )


async def _snapshot(store: SqliteStore, clock: SystemClock) -> Snapshot:
    stats = store.stats()
    return Snapshot(
        counts=await store.outcome_counts(),
        expiries=await store.soonest_expiries(clock.now()),
        suspensions=len(await store.suspensions()),
        commits={
            "durable": stats.durable_commits,
            "relaxed": stats.relaxed_commits,
            "failed": stats.failed_commits,
        },
        transactions=stats.units,
    )


def _own_hosts(config: Config) -> Mapping[str, str]:
    """Return the broker's own host for the built-in CA that issues its TLS certificate."""
    issuer = config.listen.acme.issued_by
    host = urlsplit(config.external_url).hostname
    return {} if issuer is None or host is None else {issuer: host}
