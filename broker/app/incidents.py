"""Mass replacement, put together."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.incident_ports import IncidentStatus, IncidentStore, ItemKind, ItemStatus
from broker.issuance.incidents import IncidentRooms, Incidents
from broker.issuance.node_ports import ReplacementStarter
from broker.issuance.records import JobKind
from broker.protocol.problems import Problem, ProblemType

if TYPE_CHECKING:
    from broker.app.agents import AgentRooms
    from broker.app.workshop import Workshop

__all__ = ["IncidentMetrics", "make_incidents"]

MOST_SHOWN: Final = 100
"""Most mass replacements that are looked through for those that are open; a year has a few."""


def make_incidents(made: Workshop, rooms: AgentRooms | None) -> Incidents:
    """Put it together, and have the dispatcher know who does its jobs."""
    starter: ReplacementStarter = _NoNodes() if rooms is None else rooms.deliveries.asking
    incidents = Incidents(
        IncidentRooms(
            store=made.outside.store,
            starter=starter,
            dispatcher=made.dispatcher,
            clock=made.outside.clock,
            is_canary=(lambda _node: False) if rooms is None else rooms.fleet.rollouts.is_canary,
        )
    )
    made.dispatcher.on(JobKind.INCIDENT, incidents.advance)
    metrics = IncidentMetrics(made.outside.telemetry.registry)

    async def show() -> None:
        with suppress(Unreachable, Broken):
            await metrics.show(made.outside.store)

    made.outside.telemetry.before_render.append(show)
    return incidents


class IncidentMetrics:
    """What is left of the mass replacements that are open."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge(
            "penstock_incidents_open", "Mass replacements under way or paused.", registry=registry
        )
        self._left = Gauge(
            "penstock_incident_certificates_left",
            "Certificates that open mass replacements have not done with, by who renews them.",
            ("kind",),
            registry=registry,
        )
        self._deadline = Gauge(
            "penstock_incident_deadline_timestamp_seconds",
            "The soonest deadline of those that are open; 0 where there is none.",
            registry=registry,
        )

    async def show(self, store: IncidentStore) -> None:
        """Show those that are open now."""
        open_ones = [
            one
            for one in await store.list_incidents(MOST_SHOWN)
            if one.status in (IncidentStatus.OPEN, IncidentStatus.PAUSED)
        ]
        left = dict.fromkeys(ItemKind, 0)
        for one in open_ones:
            for kind, counts in (await store.count_items(one.incident_id)).items():
                left[kind] += sum(
                    counts.get(status, 0) for status in ItemStatus if not status.is_end
                )
        deadlines = [one.deadline_at for one in open_ones if one.deadline_at is not None]
        self._open.set(len(open_ones))
        for kind, number in left.items():
            self._left.labels(kind).set(number)
        self._deadline.set(min(deadlines).timestamp() if deadlines else 0)


class _NoNodes:
    """Stands where the configuration has no agents any more."""

    async def begin(
        self,
        managed_id: str,  # noqa: ARG002 - the port's signature
        *,
        reason: str,  # noqa: ARG002 - the port's signature
        incident_id: str | None,  # noqa: ARG002 - the port's signature
    ) -> str:
        """Refuse."""
        raise Problem(ProblemType.MALFORMED, "this broker serves no nodes, so nothing is replaced")
