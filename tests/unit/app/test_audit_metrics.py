"""Metrics of the audit trail."""

from prometheus_client import CollectorRegistry, generate_latest

from broker.app.audit_metrics import AuditMetrics
from broker.audit.feeding import SinkState
from broker.issuance.audit_ports import CheckpointRecord, SinkPosition
from tests.fakes.clock import START


def test_sinks_and_checkpoint_are_shown() -> None:
    """Each sink with how far it is known to have come."""
    registry = CollectorRegistry()
    metrics = AuditMetrics(registry)
    up = SinkState(position=SinkPosition(name="a", seq=7), fault=None, since=None)
    down = SinkState(position=SinkPosition(name="b", seq=3), fault="away", since=START)
    newest = CheckpointRecord(number=1, seq=5, at=START, key_id="k", jws="a.b.c")
    metrics.show([up, down], newest)
    page = generate_latest(registry).decode()
    assert 'penstock_audit_sink_up{sink="a"} 1.0' in page
    assert 'penstock_audit_sink_up{sink="b"} 0.0' in page
    assert 'penstock_audit_sink_record{sink="b"} 3.0' in page
    assert "penstock_audit_checkpoint_record 5.0" in page
    metrics.show([], None)
    assert "penstock_audit_checkpoint_record 0.0" in generate_latest(registry).decode()
