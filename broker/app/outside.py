"""What is behind the ports of one broker: its adapters, named here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from broker.app.authorities import Authorities, own_hosts
from broker.app.authority_register import open_registry
from broker.app.publishing import AuthorityPublishing
from broker.app.upstreams import ConfiguredUpstreams
from broker.clock import SystemClock
from broker.config import Config, LoadedPolicies
from broker.issuance.errors import Broken
from broker.issuance.upstream_keys import UpstreamKeys
from broker.keys.keyfile import KeyFileSigner
from broker.storage.sqlite import SqliteStore
from broker.telemetry import Snapshot, Telemetry
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers

__all__ = ["VERSION", "Outside", "go_outside", "make_state"]

VERSION: Final = version("penstock")
"""The version of this broker, as packaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is behind the ports: the adapters of one broker."""

    config: Config
    policies: LoadedPolicies
    clock: SystemClock
    store: SqliteStore
    telemetry: Telemetry
    authorities: Authorities
    upstream_keys: UpstreamKeys
    answers: Http01Answers
    tls_answers: TlsAlpn01Answers
    upstreams: ConfiguredUpstreams
    publishing: AuthorityPublishing


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


def go_outside(config: Config, policies: LoadedPolicies, store: SqliteStore) -> Outside:
    """Return the adapters of one broker over its store; nothing is asked of anybody yet."""
    clock = SystemClock()
    telemetry = _telemetry(config, store, clock)
    signer = KeyFileSigner(config.state / "keys", config.keys.passphrase.resolve())
    registry = open_registry(config, store, signer, clock)
    answers = Http01Answers()
    tls_answers = TlsAlpn01Answers(clock)
    upstreams = ConfiguredUpstreams(
        config,
        facts=policies.facts,
        registry=registry,
        signer=signer,
        store=store,
        clock=clock,
        telemetry=telemetry,
        answers=answers,
        tls_answers=tls_answers,
        user_agent=f"penstock/{VERSION}",
    )
    publishing = AuthorityPublishing(config, upstreams.authorities, clock)
    telemetry.find_ca_ends = publishing.end_times
    return Outside(
        config=config,
        policies=policies,
        clock=clock,
        store=store,
        telemetry=telemetry,
        authorities=Authorities(registry, own_hosts=own_hosts(config)),
        upstream_keys=UpstreamKeys(
            store, store, ring=signer, accounts=upstreams.accounts_at_cas, clock=clock
        ),
        answers=answers,
        tls_answers=tls_answers,
        upstreams=upstreams,
        publishing=publishing,
    )


def _telemetry(config: Config, store: SqliteStore, clock: SystemClock) -> Telemetry:
    telemetry = Telemetry(
        version=VERSION,
        upstreams=config.upstreams,
        clock=clock,
        snapshot=lambda: _snapshot(store, clock),
    )
    store.on_committed = telemetry.on_events
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
