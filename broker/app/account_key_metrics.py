"""What is told about account keys on the metrics page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge

from broker.issuance.key_rotation import AccountKeyView

__all__ = ["AccountKeyMetrics"]


class AccountKeyMetrics:
    """Series for each account; of one that is gone there is none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            labels = ("upstream", "community")
            return Gauge(f"penstock_account_key_{name}", text, labels, registry=registry)

        self._since = gauge(
            "since_timestamp_seconds", "Since when our account at a CA has the key that it has."
        )
        self._due = gauge(
            "rotation_due_timestamp_seconds",
            "When the key is rotated next by schedule; 0 where by command only.",
        )
        self._failures = gauge(
            "rotation_failures", "Failed attempts to rotate the key that the account has."
        )
        self._failed = gauge(
            "rotation_failed_timestamp_seconds",
            "When rotating that key failed last; 0 where it has not.",
        )
        self._unretired = gauge(
            "unretired", "Whether versions before the key could not be kept from signing so far."
        )

    def show(self, views: Sequence[AccountKeyView]) -> None:
        """Show these accounts and no others."""
        for gauge in (self._since, self._due, self._failures, self._failed, self._unretired):
            gauge.clear()
        for view in views:
            which = view.upstream, view.community
            failure = view.failure
            self._since.labels(*which).set(view.since.timestamp())
            self._due.labels(*which).set(_seconds(view.due_at))
            self._failures.labels(*which).set(failure.failures if failure is not None else 0)
            self._failed.labels(*which).set(_seconds(failure.failed_at if failure else None))
            self._unretired.labels(*which).set(view.not_retired is not None)


def _seconds(moment: datetime | None) -> float:
    return 0 if moment is None else moment.timestamp()
