"""How admission is doing, as metrics: fixed names, and labels from short lists."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from broker.admission.reviews import Outcome

__all__ = ["WEBHOOKS", "AdmissionMetrics"]

WEBHOOKS: Final = ("mutate", "validate")
"""What is asked, by path."""

OUTCOMES: Final = (
    Outcome.INJECTED,
    Outcome.UNTOUCHED,
    Outcome.ACCEPTED,
    Outcome.REFUSED,
    Outcome.UNANSWERED,
    "malformed",
)
"""How requests end."""

WRITES: Final = ("copy", "ca-bundle")
"""What is written into the cluster."""

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of the time of an answer, in seconds; API servers wait for ten."""


class AdmissionMetrics:
    """All metrics of one admission process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "penstock_admission_requests",
            "Requests of the API server, by what became of them.",
            ("webhook", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "penstock_admission_seconds",
            "Time to answer the API server, the broker's included.",
            ("webhook",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._writes = Counter(
            "penstock_admission_roots_writes",
            "Copies of the roots, and CA bundles of webhooks, that were written.",
            ("what", "result"),
            registry=self.registry,
        )
        self._end = self._gauge(
            "certificate_not_after_timestamp_seconds",
            "End of the certificate that is served to the API server; 0 while there is none.",
        )
        self._following = self._gauge(
            "following", "Whether what the cluster has is followed, 1 or 0.", "what"
        )
        self._due = self._gauge(
            "copies_due", "Namespaces that opted in and whose copy of the roots is not in place."
        )
        build = self._gauge("build_info", "Version of Penstock and of Python.", "version", "python")
        build.labels(version, platform.python_version()).set(1)
        for webhook in WEBHOOKS:
            self._seconds.labels(webhook)
            for outcome in OUTCOMES:
                self._requests.labels(webhook, outcome)
        for what in WRITES:
            for result in ("written", "failed"):
                self._writes.labels(what, result)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"penstock_admission_{name}", text, labels, registry=self.registry)

    def answered(self, webhook: str, outcome: str, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(webhook, outcome).inc()
        self._seconds.labels(webhook).observe(seconds)

    def wrote(self, what: str, result: str) -> None:
        """Count a write into the cluster."""
        self._writes.labels(what, result).inc()

    def show(self, *, end: datetime | None, following: Mapping[str, bool], due: int) -> None:
        """Tell how things are now."""
        self._end.set(0 if end is None else end.timestamp())
        for what, is_followed in following.items():
            self._following.labels(what).set(1 if is_followed else 0)
        self._due.set(due)

    def render(self) -> bytes:
        """Return them in the text format of Prometheus."""
        return generate_latest(self.registry)
