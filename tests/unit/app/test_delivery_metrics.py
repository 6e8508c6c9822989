"""What the metrics page tells of renewals."""

from prometheus_client import CollectorRegistry, generate_latest

from broker.app.delivery_metrics import DeliveryMetrics
from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import DeliveryStage
from tests.fakes.clock import START


def event(kind: EventKind, **data: object) -> Event:
    """Return an event."""
    return Event(kind=kind, at=START, data=data)


def test_ends_and_alerts_are_counted_and_the_time_is_measured() -> None:
    """Each by its outcome; nothing is labelled by node."""
    registry = CollectorRegistry()
    metrics = DeliveryMetrics(registry)
    metrics.on_events(
        [
            event(EventKind.DELIVERY_SEEN, seconds=2.5, node="web-01"),
            event(EventKind.DELIVERY_FAILED, stage="restored"),
            event(EventKind.DELIVERY_HELD),
            event(EventKind.ORDER_CREATED),
        ]
    )
    text = generate_latest(registry).decode()
    assert 'penstock_deliveries_ended_total{outcome="seen"} 1.0' in text
    assert 'penstock_deliveries_ended_total{outcome="restored"} 1.0' in text
    assert 'penstock_renewal_alerts_total{kind="delivery-held"} 1.0' in text
    assert "penstock_delivery_seconds_sum 2.5" in text
    assert "web-01" not in text


def test_gauges_show_what_is_kept() -> None:
    """Those that are under way by stage, and the oldest push."""
    registry = CollectorRegistry()
    DeliveryMetrics(registry).show(
        {DeliveryStage.HELD: 3}, {"due": 4, "overdue": 5}, oldest=START, unrenewed=6
    )
    text = generate_latest(registry).decode()
    assert 'penstock_deliveries{stage="held"} 3.0' in text
    assert "penstock_managed_due 4.0" in text
    assert "penstock_managed_overdue 5.0" in text
    assert "penstock_certificates_not_renewed 6.0" in text
    assert (
        registry.get_sample_value("penstock_delivery_oldest_push_timestamp_seconds")
        == START.timestamp()
    )
