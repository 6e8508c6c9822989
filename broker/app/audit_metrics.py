"""What is told about the audit trail on the metrics page."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from broker.audit.feeding import SinkState
from broker.issuance.audit_ports import CheckpointRecord

__all__ = ["AuditMetrics"]


class AuditMetrics:
    """Series for each sink, and for the last checkpoint."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"penstock_audit_{name}", text, labels, registry=registry)

        self._up = gauge("sink_up", "Whether a sink takes records.", ["sink"])
        self._record = gauge(
            "sink_record", "Number of the last record that a sink is known to have.", ["sink"]
        )
        self._covered = gauge(
            "checkpoint_record", "Last record that a checkpoint of this run covers; 0 before it."
        )
        self._at = gauge(
            "checkpoint_timestamp_seconds", "When that checkpoint was signed; 0 before it."
        )

    def show(self, sinks: Sequence[SinkState], newest: CheckpointRecord | None) -> None:
        """Show these sinks and no others."""
        self._up.clear()
        self._record.clear()
        for sink in sinks:
            self._up.labels(sink.position.name).set(sink.fault is None)
            self._record.labels(sink.position.name).set(sink.position.seq)
        self._covered.set(0 if newest is None else newest.seq)
        self._at.set(0 if newest is None else newest.at.timestamp())
