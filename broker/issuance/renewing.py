"""The workflows around a certificate's renewal, put together."""

from __future__ import annotations

from dataclasses import dataclass

from broker.issuance.dispatcher import Dispatcher
from broker.issuance.handover import Handover
from broker.issuance.ports import Clock, Policies, Store, Upstreams
from broker.issuance.records import JobKind
from broker.issuance.renewals import Renewals, RenewalWatch
from broker.issuance.retirements import Retirements

__all__ = ["Renewing", "make_renewing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewing:
    """What knows when a certificate is to be renewed, and what becomes of the one before."""

    renewals: Renewals
    watch: RenewalWatch
    retirements: Retirements
    handover: Handover


def make_renewing(
    store: Store,
    *,
    policies: Policies,
    upstreams: Upstreams,
    dispatcher: Dispatcher,
    clock: Clock,
) -> Renewing:
    """Put them together, and have the dispatcher know who retires certificates."""
    retirements = Retirements(
        retirements=store, certificates=store, orders=store, dispatcher=dispatcher, clock=clock
    )
    dispatcher.on(JobKind.RETIRE, retirements.carry_out)
    return Renewing(
        renewals=Renewals(store, policies, clock),
        watch=RenewalWatch(store, upstreams, clock),
        retirements=retirements,
        handover=Handover(store, retirements),
    )
