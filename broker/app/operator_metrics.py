"""How the operator API is used, and whether its people could be read, on the metrics page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["OperatorMetrics"]


class OperatorMetrics:
    """Counts answers by status, and tells of a file that cannot be read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "penstock_operator_api_answers",
            "Answers of the operator API.",
            ("status",),
            registry=registry,
        )
        self._unread = Gauge(
            "penstock_operators_unread",
            "1 while the section operators cannot be read again: people stay as they were.",
            registry=registry,
        )

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._answers.labels(str(status)).inc()

    def show_failures(self, failures: int) -> None:
        """Tell how often in a row the file could not be read."""
        self._unread.set(1 if failures else 0)
