"""What is behind the ports of one broker: its adapters, named here and nowhere else."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final, NamedTuple

from broker.app.account_key_metrics import AccountKeyMetrics
from broker.app.account_keys import key_plans
from broker.app.audit import AuditRooms, make_audit
from broker.app.authorities import Authorities, own_hosts
from broker.app.authority_register import CaRegistry, open_registry
from broker.app.keeping import BrokerKeys, open_keys
from broker.app.key_watch import KeyFaultMetrics
from broker.app.policies import PolicyWatch
from broker.app.policy_metrics import PolicyMetrics
from broker.app.publishing import AuthorityPublishing
from broker.app.quotas import make_budget
from broker.app.secrets import Secrets
from broker.app.turns import Lasting
from broker.app.upstreams import ConfiguredUpstreams
from broker.app.vault import open_vault
from broker.clock import SystemClock
from broker.config import Config
from broker.issuance.account_health import AccountHealth
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_rotation import KeyRotation
from broker.issuance.node_challenges import NodeAnswers
from broker.issuance.policy_keeping import PolicyKeeper
from broker.issuance.renewal_budget import RenewalBudget
from broker.issuance.upstream_keys import UpstreamKeys
from broker.keys.vault_session import VaultConnections
from broker.storage.sqlite import SqliteStore
from broker.telemetry import Snapshot, Telemetry
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers
from broker.web.listeners import Draining

__all__ = ["VERSION", "Outside", "go_outside", "make_state"]

VERSION: Final = version("penstock")
"""The version of this broker, as packaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is behind the ports: the adapters of one broker."""

    config: Config
    policy_watch: PolicyWatch
    """Looks whether policy files have changed."""
    clock: SystemClock
    store: SqliteStore
    telemetry: Telemetry
    authorities: Authorities
    keys: BrokerKeys
    secrets: Secrets
    vault: VaultConnections | None
    upstream_keys: UpstreamKeys
    key_rotation: KeyRotation
    account_health: AccountHealth
    answers: Http01Answers
    tls_answers: TlsAlpn01Answers
    node_answers: NodeAnswers
    upstreams: ConfiguredUpstreams
    publishing: AuthorityPublishing
    budget: RenewalBudget
    audit: AuditRooms
    lasting: Lasting = field(default_factory=Lasting)
    """What outlives this turn of the broker."""
    draining: Draining = field(default_factory=Draining)
    """The listeners of this turn."""

    @property
    def policies(self) -> PolicyKeeper:
        """Return the policies that are in force."""
        return self.policy_watch.keeper

    async def close(self) -> None:
        """Close all connections."""
        with contextlib.suppress(Unreachable, Broken):  # the store has said so itself
            await self.audit.flush()
        await self.upstreams.close()
        if self.vault is not None:
            await self.vault.close()


def make_state(config: Config) -> None:
    """Make the state directory, for its owner alone.

    Raises:
        Broken: It cannot be made.
    """
    try:
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"state directory {config.state} cannot be made: {reason}") from error


class _Tables(NamedTuple):
    """Where answers to challenges are put: two that the broker serves, and the nodes."""

    answers: Http01Answers
    tls_answers: TlsAlpn01Answers
    node_answers: NodeAnswers


def go_outside(
    config: Config, policies: PolicyKeeper, store: SqliteStore, lasting: Lasting
) -> Outside:
    """Return the adapters of one broker over its store; nothing is asked of anybody yet."""
    clock = SystemClock()
    telemetry = _telemetry(config, store, clock, policies)
    vault = open_vault(config, clock, telemetry, lasting.vault)
    secrets = Secrets(config, vault, clock, lasting.vault.secrets(config.vault, clock.now()))
    keys = _keys(config, store, vault, secrets, telemetry)
    registry = open_registry(config, store, keys.rings, clock, places=keys.places)
    tables = _Tables(Http01Answers(), TlsAlpn01Answers(clock), NodeAnswers(store, store))
    upstreams = ConfiguredUpstreams(
        config,
        facts=policies.facts,
        registry=registry,
        secrets=secrets,
        signer=keys.rings,
        places=keys.places,
        store=store,
        clock=clock,
        telemetry=telemetry,
        **tables._asdict(),
        user_agent=f"penstock/{VERSION}",
    )
    return Outside(
        config=config,
        policy_watch=PolicyWatch(policies, store),
        clock=clock,
        store=store,
        telemetry=telemetry,
        authorities=_authorities(config, registry),
        upstream_keys=(changes := _upstream_keys(upstreams, store, keys)),
        key_rotation=_key_rotation(config, changes, store, keys, telemetry),
        account_health=_account_health(upstreams, store, clock, telemetry),
        keys=keys,
        secrets=secrets,
        vault=vault,
        **tables._asdict(),
        upstreams=upstreams,
        publishing=_publishing(config, upstreams, clock, telemetry),
        budget=make_budget(config, policies.facts, store, clock),
        audit=_audit(config, store, keys, vault, telemetry),
        lasting=lasting,
    )


def _authorities(config: Config, registry: CaRegistry) -> Authorities:
    return Authorities(registry, own_hosts=own_hosts(config), upstreams=tuple(config.upstreams))


def _publishing(
    config: Config, upstreams: ConfiguredUpstreams, clock: SystemClock, telemetry: Telemetry
) -> AuthorityPublishing:
    publishing = AuthorityPublishing(config, upstreams.authorities, clock)
    telemetry.find_ca_ends = publishing.end_times
    return publishing


def _audit(
    config: Config,
    store: SqliteStore,
    keys: BrokerKeys,
    vault: VaultConnections | None,
    telemetry: Telemetry,
) -> AuditRooms:
    clock = SystemClock()
    return make_audit(config, store, keys.rings, vault=vault, telemetry=telemetry, clock=clock)


def _keys(
    config: Config,
    store: SqliteStore,
    vault: VaultConnections | None,
    secrets: Secrets,
    telemetry: Telemetry,
) -> BrokerKeys:
    keys = open_keys(config, store, vault, secrets)
    metrics = KeyFaultMetrics(telemetry.registry)
    telemetry.before_render.append(lambda: metrics.show(keys.watch.count_faults()))
    return keys


def _upstream_keys(
    upstreams: ConfiguredUpstreams, store: SqliteStore, keys: BrokerKeys
) -> UpstreamKeys:
    return UpstreamKeys(
        store,
        store,
        ring=keys.rings,
        places=keys.places,
        accounts=upstreams.accounts_at_cas,
        clock=SystemClock(),
    )


def _key_rotation(
    config: Config,
    upstream_keys: UpstreamKeys,
    store: SqliteStore,
    keys: BrokerKeys,
    telemetry: Telemetry,
) -> KeyRotation:
    rotation = KeyRotation(
        upstream_keys,
        store,
        stores=keys.rings,
        plans=key_plans(config),
        clock=SystemClock(),
    )
    metrics = AccountKeyMetrics(telemetry.registry)
    telemetry.before_render.append(lambda: metrics.show(rotation.known))
    return rotation


def _account_health(
    upstreams: ConfiguredUpstreams, store: SqliteStore, clock: SystemClock, telemetry: Telemetry
) -> AccountHealth:
    health = AccountHealth(
        asked=upstreams.accounts_looked_at,
        records=store,
        successors=store,
        log_=store,
        clock=clock,
    )
    telemetry.find_losses = lambda: [(one.upstream, str(one.cause)) for one in health.losses()]
    return health


def _telemetry(
    config: Config, store: SqliteStore, clock: SystemClock, policies: PolicyKeeper
) -> Telemetry:
    telemetry = Telemetry(
        version=VERSION,
        upstreams=config.upstreams,
        clock=clock,
        snapshot=lambda: _snapshot(store, clock),
    )
    store.on_committed = telemetry.on_events
    metrics = PolicyMetrics(telemetry.registry)
    telemetry.before_render.append(lambda: metrics.show(policies))
    return telemetry


async def _snapshot(store: SqliteStore, clock: SystemClock) -> Snapshot:
    stats = store.stats()
    return Snapshot(
        counts=await store.outcome_counts(),
        expiries=await store.soonest_expiries(clock.now()),
        suspensions=len(await store.suspensions()),
        retirements=await store.count_retirements(),
        commits={
            "durable": stats.durable_commits,
            "relaxed": stats.relaxed_commits,
            "failed": stats.failed_commits,
        },
        transactions=stats.units,
    )
