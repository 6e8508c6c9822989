"""Failover put together: how CAs stand, where orders go, and certificates that are there."""

from __future__ import annotations

from broker.app.outside import Outside
from broker.app.quotas import make_quotas
from broker.issuance.caa import CaaWatch
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.failover import Failover
from broker.issuance.planning import Planner
from broker.issuance.standing import Standing
from broker.issuance.young import Young

__all__ = ["make_failover", "make_standing", "make_young"]


def make_standing(outside: Outside) -> Standing:
    """Return what knows how CAs stand."""
    return Standing(store=outside.store, accounts=outside.store, clock=outside.clock)


def make_failover(
    outside: Outside, planner: Planner, caa: CaaWatch, dispatcher: Dispatcher
) -> Failover:
    """Return what moves orders whose CA is away; they are looked at as soon as one is."""
    outside.upstreams.breakers.on_moved = dispatcher.hurry_put_off
    return Failover(
        moves=outside.store,
        orders=outside.store,
        works=outside.store,
        accounts=outside.store,
        planner=planner,
        quotas=make_quotas(outside.budget, outside.store, outside.clock),
        caa=caa,
        clock=outside.clock,
        witness=outside.lasting.witness,
    )


def make_young(outside: Outside, closing: Closing, dispatcher: Dispatcher) -> Young:
    """Return what answers the same CSR with the certificate that is there."""
    store = outside.store
    return Young(
        store=store,
        orders=store,
        works=store,
        certificates=store,
        renewals=store,
        policies=outside.policies,
        closing=closing,
        dispatcher=dispatcher,
        clock=outside.clock,
        witness=outside.lasting.witness,
    )
