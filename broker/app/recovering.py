"""What goes on by itself after a start: a restored store, and the broker's own certificate."""

from __future__ import annotations

from broker.app.identity import own_names
from broker.app.outside import Outside
from broker.app.upstreams import ConfiguredUpstreams
from broker.config import Config
from broker.config.upstreams import AcmeUpstream
from broker.issuance.account_recovery import AccountRecoveries
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.own_certificate import OwnCertificates
from broker.issuance.planning import Planner
from broker.issuance.ports import Clock, Policies
from broker.issuance.reconciliation import Reconciliation
from broker.issuance.standstill import Standstill
from broker.operations import Recovery
from broker.storage.sqlite import SqliteStore

__all__ = ["make_account_recoveries", "make_recovery", "own_certificates"]


async def make_recovery(
    store: SqliteStore, upstreams: ConfiguredUpstreams, dispatcher: Dispatcher, clock: Clock
) -> Recovery:
    """Return what a restored store needs; on any other its standstill holds nothing."""
    standstill = Standstill(await store.open_restoration())
    reconciliation = Reconciliation(
        store=store,
        works=store,
        orders=store,
        keys=store,
        upstreams=upstreams,
        ledger=upstreams,
        dispatcher=dispatcher,
        standstill=standstill,
        clock=clock,
    )
    return Recovery(standstill=standstill, reconciliation=reconciliation, dispatcher=dispatcher)


def make_account_recoveries(
    outside: Outside, recovery: Recovery, dispatcher: Dispatcher
) -> AccountRecoveries:
    """Return what recovers our accounts at CAs, and have what waits for one go on once it may."""
    outside.account_health.dispatcher = dispatcher
    return AccountRecoveries(
        health=outside.account_health,
        asked=outside.upstreams.accounts_looked_at,
        registrar=outside.upstreams.registrar,
        former=outside.store,
        records=outside.store,
        works=outside.store,
        keys=outside.upstream_keys,
        standstill=recovery.standstill,
        dispatcher=dispatcher,
        clock=outside.clock,
    )


def own_certificates(
    config: Config,
    store: SqliteStore,
    *,
    policies: Policies,
    planner: Planner,
    dispatcher: Dispatcher,
    clock: Clock,
) -> OwnCertificates | None:
    """Return who orders the listener's certificate; None unless an ACME upstream issues it."""
    issuer = config.listen.acme.issued_by
    section = config.upstreams.get(issuer or "")
    if issuer is None or not isinstance(section, AcmeUpstream):
        return None
    return OwnCertificates(
        upstream=issuer,
        community=section.communities[0],
        names=own_names(config),
        accounts=store,
        orders=store,
        certificates=store,
        renewals=store,
        log=store,
        planner=planner,
        policies=policies,
        dispatcher=dispatcher,
        clock=clock,
    )
