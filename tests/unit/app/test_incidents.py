"""What the metrics page tells of mass replacements."""

from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from broker.app.incidents import IncidentMetrics
from broker.issuance.events import Actor
from broker.issuance.incident_ports import IncidentStatus, Order, Selection
from broker.issuance.incidents import IncidentRooms, Incidents
from broker.issuance.records import JobKind
from tests.fakes.delivery_world import DeliveryWorld

ANN = Actor("operator:ann")


async def test_what_is_left_of_open_incidents_is_shown(tmp_path: Path) -> None:
    """And nothing of one that is over."""
    registry = CollectorRegistry()
    metrics = IncidentMetrics(registry)
    async with DeliveryWorld(tmp_path) as world:
        incidents = Incidents(
            IncidentRooms(
                store=world.traffic.watch(world.store, "incidents", counts=True),
                starter=world.deliveries.asking,
                dispatcher=world.dispatcher,
                clock=world.clock,
            )
        )
        world.dispatcher.on(JobKind.INCIDENT, incidents.advance)
        await (await world.node()).settled("www")
        await (await world.client()).issue("www.example.com")
        order = Order(
            selection=Selection(community="default"),
            revocation_reason=4,
            deadline=timedelta(hours=24),
        )
        made = await incidents.start(order, ANN)
        await world.settle()
        await metrics.show(world.store)
        value = registry.get_sample_value
        assert value("penstock_incidents_open") == 1
        assert value("penstock_incident_certificates_left", {"kind": "managed"}) == 1
        assert value("penstock_incident_certificates_left", {"kind": "stock"}) == 1
        assert made.deadline_at is not None
        deadline = value("penstock_incident_deadline_timestamp_seconds")
        assert deadline == made.deadline_at.timestamp()
        await incidents.change(made.incident_id, IncidentStatus.ABANDONED, ANN)
        await metrics.show(world.store)
        assert value("penstock_incidents_open") == 0
        assert value("penstock_incident_certificates_left", {"kind": "managed"}) == 0
        assert value("penstock_incident_deadline_timestamp_seconds") == 0
