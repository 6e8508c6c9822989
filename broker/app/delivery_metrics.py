"""What is told about renewals at nodes, and at clients that renew by themselves, on the metrics
page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import DeliveryStage

__all__ = ["DeliveryMetrics"]

SECONDS: Final = (1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 14400, 86400)
"""Bounds of the time from issued to seen, in seconds: from a push that is not held up to one that
waited for its rollout's window."""

OUTCOMES: Final[Mapping[EventKind, str | None]] = {
    EventKind.DELIVERY_SEEN: "seen",
    EventKind.DELIVERY_FAILED: None,
    EventKind.DELIVERY_WITHDRAWN: "withdrawn",
    EventKind.DELIVERY_SUPERSEDED: "superseded",
}
"""Which events end a delivery; None: as the event's stage says."""

ALERTS: Final = (
    EventKind.DELIVERY_HELD,
    EventKind.DELIVERY_FAILED,
    EventKind.DELIVERY_NOT_SEEN,
    EventKind.RENEWAL_LATE,
    EventKind.MANAGED_REFUSED,
    EventKind.CERTIFICATE_NOT_RENEWED,
)
"""What somebody should look at."""


class DeliveryMetrics:
    """Deliveries by stage and outcome; none is labelled by node."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"penstock_{name}", text, registry=registry)

        self._stages = Gauge(
            "penstock_deliveries",
            "Certificates on their way to nodes, by stage.",
            ("stage",),
            registry=registry,
        )
        self._ends = Counter(
            "penstock_deliveries_ended",
            "Deliveries that ended, by outcome.",
            ("outcome",),
            registry=registry,
        )
        self._alerts = Counter(
            "penstock_renewal_alerts",
            "What somebody should look at, by kind of event.",
            ("kind",),
            registry=registry,
        )
        self._seconds = Histogram(
            "penstock_delivery_seconds",
            "Time from issued to seen served.",
            buckets=SECONDS,
            registry=registry,
        )
        self._oldest = gauge(
            "delivery_oldest_push_timestamp_seconds",
            "When the oldest certificate was pushed that was not seen yet; 0: there is none.",
        )
        self._due = gauge("managed_due", "Certificates at nodes that are due to be looked at.")
        self._overdue = gauge(
            "managed_overdue", "Certificates at nodes whose renewal has begun and not succeeded."
        )
        self._unrenewed = gauge(
            "certificates_not_renewed",
            "Certificates of clients that should have been renewed and were not.",
        )
        for outcome in ("seen", "refused", "failed", "restored", "withdrawn", "superseded"):
            self._ends.labels(outcome)
        for kind in ALERTS:
            self._alerts.labels(kind.value)

    def on_events(self, events: Sequence[Event]) -> None:
        """Count what happened."""
        for event in events:
            if event.kind in OUTCOMES:
                outcome = OUTCOMES[event.kind] or str(event.data.get("stage"))
                self._ends.labels(outcome).inc()
            if event.kind in ALERTS:
                self._alerts.labels(event.kind.value).inc()
            seconds = event.data.get("seconds")
            if event.kind is EventKind.DELIVERY_SEEN and isinstance(seconds, int | float):
                self._seconds.observe(seconds)

    def show(
        self,
        stages: Mapping[DeliveryStage, int],
        managed: Mapping[str, int],
        *,
        oldest: datetime | None,
        unrenewed: int,
    ) -> None:
        """Show these figures."""
        for stage, number in stages.items():
            self._stages.labels(stage.value).set(number)
        self._oldest.set(0 if oldest is None else oldest.timestamp())
        self._due.set(managed.get("due", 0))
        self._overdue.set(managed.get("overdue", 0))
        self._unrenewed.set(unrenewed)
