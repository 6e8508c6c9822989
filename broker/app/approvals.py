"""Approvals, put together."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from broker.app.outside import Outside
from broker.config import Config
from broker.issuance.admissions import Admissions
from broker.issuance.approval_gate import ApprovalGate, ApprovalUrl
from broker.issuance.approval_people import People
from broker.issuance.approval_ports import ApprovalLists, ApprovalStatus
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.records import JobKind
from broker.issuance.registration import RegistrationAuthority
from broker.issuance.withdrawals import Withdrawals
from broker.web.links import Links

__all__ = ["ApprovalMetrics", "ApprovalRooms", "approval_url", "make_approvals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRooms:
    """What asks people, and what takes their answers."""

    gate: ApprovalGate
    admissions: Admissions
    authority: RegistrationAuthority


def approval_url(config: Config) -> ApprovalUrl:
    """Return what tells the URL that a person may visit."""
    links = Links(config.external_url, config.communities)
    return lambda community, approval_id: links.of(community).approval(approval_id)


def make_approvals(outside: Outside, dispatcher: Dispatcher) -> ApprovalRooms:
    """Put them together, and have the dispatcher know who does their jobs."""
    store, clock = outside.store, outside.clock
    people = People(store)
    withdrawals = Withdrawals(store, dispatcher, clock)
    dispatcher.on(JobKind.WITHDRAW, withdrawals.carry_out)
    metrics = ApprovalMetrics(outside.telemetry.registry)

    async def show() -> None:
        with suppress(Unreachable, Broken):
            await metrics.show(store)

    outside.telemetry.before_render.append(show)
    gate = ApprovalGate(store, people, clock, approval_url(outside.config))
    return ApprovalRooms(
        gate=gate,
        admissions=Admissions(store, gate, outside.policies, clock),
        authority=RegistrationAuthority(store, people, dispatcher, clock),
    )


class ApprovalMetrics:
    """The queue of requests, and the approvals that come to their end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts = Gauge(
            "penstock_approvals",
            "Requests that people answer, and the approvals that came of them, by state.",
            ("status",),
            registry=registry,
        )
        self._oldest = Gauge(
            "penstock_approval_oldest_waiting_timestamp_seconds",
            "When the request was filed that has waited longest; 0 where none waits.",
            registry=registry,
        )
        self._soonest = Gauge(
            "penstock_approval_soonest_end_timestamp_seconds",
            "When the next approval ends or has to be proofed anew; 0 where none does.",
            registry=registry,
        )
        for status in ApprovalStatus:
            self._counts.labels(str(status))

    async def show(self, store: ApprovalLists) -> None:
        """Show them as they are now."""
        found = await store.approval_figures()
        for status, number in found.counts.items():
            self._counts.labels(str(status)).set(number)
        self._oldest.set(found.oldest_waiting.timestamp() if found.oldest_waiting else 0)
        self._soonest.set(found.soonest_end.timestamp() if found.soonest_end else 0)
