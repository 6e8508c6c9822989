"""Metrics of the operator API."""

from prometheus_client import CollectorRegistry

from broker.app.operator_metrics import OperatorMetrics


def test_answers_are_counted_by_status() -> None:
    """A rise of 401 or 403 is somebody at the door."""
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    for status in (200, 403, 403):
        metrics.answered(status)
    found = registry.get_sample_value("penstock_operator_api_answers_total", {"status": "403"})
    assert found == 2


def test_file_that_cannot_be_read_is_seen_until_it_can() -> None:
    """Somebody who was taken out may still be in."""
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    for failures, shown in ((0, 0), (3, 1), (0, 0)):
        metrics.show_failures(failures)
        assert registry.get_sample_value("penstock_operators_unread") == shown
