"""Every metric and label, and the set-up of the log.

Metrics are fed by issuance events and by what the listeners and upstreams report.  Labels take
their values from short, fixed lists: whatever is not on them is counted as ``other``, so that no
client can make series.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Clock
from broker.issuance.records import JobKind, WorkStatus
from broker.issuance.renewal_ports import RetirementStatus
from broker.protocol.caa import CaaOutcome
from broker.protocol.problems import ProblemType
from broker.protocol.resources import OrderStatus

__all__ = ["Snapshot", "Telemetry", "set_up_log"]

OPERATIONS: Final = (
    "directory",
    "default-directory",
    "new-nonce",
    "new-account",
    "account",
    "new-order",
    "order",
    "finalize",
    "authz",
    "challenge",
    "certificate",
    "chain",
    "renewal",
    "revoke-cert",
    "orders",
    "key-change",
    "new-authz",
    "none",
)
"""What clients do, as the ACME listener names its routes."""

UPSTREAM_CALLS: Final = (
    "open-order",
    "seek-order",
    "authorize",
    "finalize",
    "read-order",
    "withdraw",
    "download",
    "download-alternates",
    "renewal-info",
    "revoke",
)
"""What an upstream is asked, one for each method of its port."""

_OF_ACME: Final = ("address", "new-accounts", "account", "new-orders", "failed-validations")
LIMITS: Final = (*_OF_ACME, "connections", "agents", "nodes")
"""What clients and agents are limited in, as their listeners name their limits."""

UPSTREAM_ERRORS: Final = ("refused", "unreachable", "broken")
"""How a call to an upstream can fail."""

ORDER_OUTCOMES: Final[Mapping[EventKind, str]] = {
    EventKind.ORDER_CREATED: "created",
    EventKind.CERTIFICATE_ISSUED: "issued",
    EventKind.CERTIFICATE_WITHHELD: "withheld",
    EventKind.ORDER_REFUSED: "refused",
    EventKind.ORDER_EXPIRED: "expired",
}
"""Which events count as an order's beginning or end."""

EXPIRY_BUCKETS: Final[Mapping[str, timedelta]] = {
    "1d": timedelta(days=1),
    "3d": timedelta(days=3),
    "7d": timedelta(days=7),
    "14d": timedelta(days=14),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
"""Within what time certificates end.  Buckets, since a series for each of 100,000 certificates
would block the event loop for a second at every scrape."""

UPSTREAM_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Bounds of upstream times, in seconds: from the built-in CA to a public one waiting for DNS."""

REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of request times, in seconds; finalize is held back for about five."""

COMMIT_KINDS: Final = ("durable", "relaxed", "failed")
"""How a commit of the store can come out: on the disk at once, with the next one, not at all."""

OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the store can tell at the moment of a scrape."""

    counts: Mapping[str, int]
    """As ``ports.EventLog.outcome_counts`` names them."""
    expiries: Sequence[datetime]
    """Ends of living certificates, soonest first."""
    suspensions: int = 0
    retirements: Mapping[str, int] = field(default_factory=dict)
    """As ``renewal_ports.RetirementStore.count_retirements`` names them."""
    commits: Mapping[str, int] = field(default_factory=dict)
    """Commits since the store was opened, by kind; see ``COMMIT_KINDS``."""
    transactions: int = 0
    """Transactions that they carried."""


class Telemetry:
    """All metrics of one broker, in a registry of its own."""

    def __init__(
        self,
        *,
        version: str,
        upstreams: Iterable[str],
        clock: Clock,
        snapshot: Callable[[], Awaitable[Snapshot]] | None = None,
    ) -> None:
        self._clock = clock
        self._snapshot = snapshot
        self._upstreams = (*upstreams, OTHER)
        self.registry = CollectorRegistry()
        """Open to those who have metrics of their own."""
        self._counted: dict[str, int] = {}
        self.find_losses: Callable[[], Sequence[tuple[str, str]]] | None = None
        """(upstream, cause) of each account that is lost, asked at each scrape."""
        self.find_ca_ends: Callable[[], Mapping[tuple[str, str], datetime]] | None = None
        """From (built-in CA, role) to the end of that certificate, asked at each scrape."""
        self.before_render: list[Callable[[], Awaitable[None] | None]] = []
        """Called at each scrape, to bring those up to date."""
        self._make_counters()
        self._make_gauges(version)
        self._start_at_zero()

    def _make_counters(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"penstock_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, bounds: Sequence[float], *labels: str) -> Histogram:
            return Histogram(
                f"penstock_{name}", text, labels, buckets=bounds, registry=self.registry
            )

        self._orders = counter("orders", "Orders by what became of them.", "outcome")
        self._events = counter("events", "Events by kind.", "kind")
        self._requests = counter(
            "acme_requests", "ACME requests by operation and class of status.", "operation", "code"
        )
        self._refusals = counter("refusals", "Refused ACME requests by problem type.", "problem")
        self._limited = counter(
            "rate_limited", "Requests and connections of clients refused for a limit.", "limit"
        )
        self._request_seconds = histogram(
            "acme_request_seconds", "Time to answer ACME requests.", REQUEST_SECONDS, "operation"
        )
        self._upstream_seconds = histogram(
            "upstream_seconds", "Time of calls to upstreams.", UPSTREAM_SECONDS, "upstream", "call"
        )
        self._upstream_errors = counter(
            "upstream_errors", "Failed calls to upstreams.", "upstream", "call", "error"
        )
        self._unaccounted = counter(
            "upstream_orders_unaccounted",
            "Upstream orders that may exist at the CA without our knowing them.",
        )
        self._caa = counter("caa_names", "Names whose CAA was looked at, by outcome.", "outcome")
        self._commits = counter("store_commits", "Commits of the store.", "kind")
        self._own_failures = counter(
            "own_certificate_failures",
            "Failed attempts to renew or reload the ACME listener's certificate.",
        )
        self._transactions = counter("store_transactions", "Transactions in those commits.")

    def _make_gauges(self, version: str) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"penstock_{name}", text, labels, registry=self.registry)

        self._order_status = gauge("orders_by_status", "Orders kept, by status.", "status")
        self._work_status = gauge(
            "upstream_orders", "Upstream orders kept, by how far they are.", "status"
        )
        self._jobs = gauge("jobs", "Durable jobs waiting, by kind.", "kind")
        self._retiring = gauge(
            "certificates_retiring",
            "Certificates with a retirement date, by whether a successor is in use.",
            "status",
        )
        self._lost = gauge(
            "upstream_account_lost", "Accounts of ours that are lost.", "upstream", "cause"
        )
        self._suspended = gauge("upstream_suspensions", "Suspended (upstream, profile) pairs.")
        self._expiring = gauge(
            "certificates_expiring", "Living certificates that end within this time.", "within"
        )
        self._soonest = gauge(
            "certificate_soonest_expiry_timestamp_seconds",
            "End of the living certificate that ends first; 0 when there is none.",
        )
        self._ca_end = gauge(
            "ca_certificate_expiry_timestamp_seconds",
            "End of a certificate of a built-in CA: root, current or next.",
            "upstream",
            "role",
        )
        self._own_end = gauge(
            "own_certificate_expiry_timestamp_seconds",
            "End of the certificate that the ACME listener serves; 0 while there is none.",
        )
        self._store_up = gauge("store_up", "Whether the store answered this scrape.")
        build = gauge("build_info", "Version of the broker and of Python.", "version", "python")
        build.labels(version, platform.python_version()).set(1)

    def _start_at_zero(self) -> None:
        """Make every series at once: a counter that appears at 1 hides its first increase."""
        for outcome in ORDER_OUTCOMES.values():
            self._orders.labels(outcome)
        for event in EventKind:
            self._events.labels(event)
        for problem in (*(each.token for each in ProblemType), OTHER):
            self._refusals.labels(problem)
        for operation in OPERATIONS:
            self._request_seconds.labels(operation)
            for code in ("2xx", "4xx", "5xx"):
                self._requests.labels(operation, code)
        for limit in (*LIMITS, OTHER):
            self._limited.labels(limit)
        for kind in COMMIT_KINDS:
            self._commits.labels(kind)
        for caa in CaaOutcome:
            self._caa.labels(caa)
        for upstream in self._upstreams[:-1]:
            for call in UPSTREAM_CALLS:
                self._upstream_seconds.labels(upstream, call)
                for error in UPSTREAM_ERRORS:
                    self._upstream_errors.labels(upstream, call, error)

    # ------------------------------------------------------------------------------- being told

    def on_events(self, events: Iterable[Event]) -> None:
        """Count what happened."""
        for event in events:
            self._events.labels(event.kind).inc()
            outcome = ORDER_OUTCOMES.get(event.kind)
            if outcome is not None:
                self._orders.labels(outcome).inc()
            if event.kind is EventKind.UPSTREAM_ORDER_LOST:
                self._unaccounted.inc()
            if event.kind is EventKind.CAA_LOOKED_AT:
                self._count_caa(event)

    def _count_caa(self, event: Event) -> None:
        names = event.data.get("names")
        for one in names if isinstance(names, list) else ():
            self._caa.labels(CaaOutcome(one["outcome"])).inc()

    def request_served(
        self, *, operation: str, status: int, problem: str | None, seconds: float
    ) -> None:
        """Count one ACME request."""
        known = operation if operation in OPERATIONS else "none"
        self._requests.labels(known, f"{status // 100}xx").inc()
        self._request_seconds.labels(known).observe(seconds)
        if problem is not None:
            is_known = any(problem == each.token for each in ProblemType)
            self._refusals.labels(problem if is_known else OTHER).inc()

    def limit_reached(self, limit: str) -> None:
        """Count one request that was refused for a limit; *limit* is one of ``LIMITS``."""
        self._limited.labels(limit if limit in LIMITS else OTHER).inc()

    def upstream_called(
        self, *, upstream: str, call: str, seconds: float, error: str | None = None
    ) -> None:
        """Count one call to an upstream; *error* is one of ``UPSTREAM_ERRORS`` or None."""
        name = upstream if upstream in self._upstreams else OTHER
        which = call if call in UPSTREAM_CALLS else OTHER
        self._upstream_seconds.labels(name, which).observe(seconds)
        if error is not None:
            kind = error if error in UPSTREAM_ERRORS else OTHER
            self._upstream_errors.labels(name, which, kind).inc()

    def own_certificate(self, *, end: datetime | None, failures: int) -> None:
        """Note the end of the listener's certificate, and how often its renewal has failed."""
        self._own_end.set(end.timestamp() if end is not None else 0)
        self._raise_to(self._own_failures, "own-failures", failures)

    # -------------------------------------------------------------------------------- rendering

    async def render(self) -> bytes:
        """Return the metrics in the Prometheus text format, as of now."""
        if self._snapshot is not None:
            try:
                self._show(await self._snapshot())
                self._store_up.set(1)
            except (Unreachable, Broken):
                self._store_up.set(0)
        if self.find_losses is not None:
            # Anew: of what is found again no cause is left.
            self._lost.clear()
            for where, cause in self.find_losses():
                self._lost.labels(where, cause).inc()
        if self.find_ca_ends is not None:
            # Anew: a role that nobody has any more is gone.
            self._ca_end.clear()
            for (upstream, role), end in self.find_ca_ends().items():
                self._ca_end.labels(upstream, role).set(end.timestamp())
        await asyncio.gather(*filter(None, [refresh() for refresh in self.before_render]))
        return await asyncio.to_thread(generate_latest, self.registry)

    def _show(self, snapshot: Snapshot) -> None:
        counts = snapshot.counts
        for status in OrderStatus:
            self._order_status.labels(status).set(counts.get(f"orders_{status}", 0))
        for work in WorkStatus:
            self._work_status.labels(work).set(counts.get(f"work_{work}", 0))
        for kind in JobKind:
            self._jobs.labels(kind).set(counts.get(f"jobs_{kind}", 0))
        self._suspended.set(snapshot.suspensions)
        for standing in RetirementStatus:
            self._retiring.labels(standing).set(snapshot.retirements.get(standing, 0))
        for name in COMMIT_KINDS:
            self._raise_to(self._commits.labels(name), name, snapshot.commits.get(name, 0))
        self._raise_to(self._transactions, "transactions", snapshot.transactions)
        now = self._clock.now()
        for bucket, within in EXPIRY_BUCKETS.items():
            ending = sum(1 for end in snapshot.expiries if end - now <= within)
            self._expiring.labels(bucket).set(ending)
        self._soonest.set(snapshot.expiries[0].timestamp() if snapshot.expiries else 0)

    def _raise_to(self, counter: Counter, name: str, total: int) -> None:
        """Raise *counter* to a total that somebody else keeps."""
        counter.inc(total - self._counted.get(name, 0))
        self._counted[name] = total


def set_up_log(*, form: str, level: str, stream: TextIO | None = None) -> None:
    """Write log lines of fields to *stream*, our own and those of libraries alike.

    *form* is json, text or auto (text for a terminal).  Tracebacks carry no local variables:
    those hold keys.
    """
    out = sys.stderr if stream is None else stream
    is_text = form == "text" or (form == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            timestamp_key="ts",
            exception_formatter=structlog.dev.plain_traceback,
        )
        if is_text
        else structlog.processors.JSONRenderer(default=str)
    )
    least = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak of every request at INFO; we have our own line for that.
    root.setLevel(max(least, logging.WARNING))
