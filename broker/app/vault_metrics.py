"""What is told about Vault on the metrics page and by ``/readyz``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.keys.vault_answers import VaultState
from broker.keys.vault_health import VaultHealth

__all__ = ["VaultMetrics"]

REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of request times, in seconds: a signature takes two milliseconds, the limit is five
seconds for each address unless something else is configured."""

ANSWERED: Final = "answered"
"""Outcome of a request that Vault refused for its content."""

ALARM: Final = "alarm"
"""Outcome of a login whose wrapping token may have been opened by somebody else."""


class VaultMetrics:
    """Implements ``keys.vault_health.VaultObserver``; every series is there from the start."""

    def __init__(self, registry: CollectorRegistry, identities: Iterable[str]) -> None:
        self._up = Gauge(
            "penstock_vault_up",
            "Whether Vault can be used as this identity, as far as is known.",
            ("identity",),
            registry=registry,
        )
        self._state = Gauge(
            "penstock_vault_state",
            "How Vault stands towards an identity: 1 for the state that it is in.",
            ("identity", "state"),
            registry=registry,
        )
        self._since = Gauge(
            "penstock_vault_down_since_timestamp_seconds",
            "Since when Vault cannot be used as this identity; 0 while it can.",
            ("identity",),
            registry=registry,
        )
        self._seconds = Histogram(
            "penstock_vault_request_seconds",
            "Time of requests to Vault, by outcome.",
            ("identity", "outcome"),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._logins = self._counter(registry, "logins", "Logins to Vault, by outcome.")
        self._renewals = self._counter(registry, "renewals", "Renewals of tokens, by outcome.")
        self._alarms = Counter(
            "penstock_vault_interception_alarms",
            "Wrapping tokens that somebody else may have opened.",
            ("identity",),
            registry=registry,
        )
        self._start_at_zero(tuple(identities))

    def _counter(self, registry: CollectorRegistry, name: str, text: str) -> Counter:
        return Counter(f"penstock_vault_{name}", text, ("identity", "outcome"), registry=registry)

    def _start_at_zero(self, identities: tuple[str, ...]) -> None:
        for identity in identities:
            self._up.labels(identity).set(1)
            self._since.labels(identity).set(0)
            self._alarms.labels(identity)
            for outcome in ("ok", "denied", ALARM):
                self._logins.labels(identity, outcome)
            for outcome in ("ok", "denied"):
                self._renewals.labels(identity, outcome)
            for state in VaultState:
                self._state.labels(identity, state).set(state is VaultState.UNTRIED)
            for outcome in ("ok", ANSWERED):
                self._seconds.labels(identity, outcome)

    # ------------------------------------------------------------------------------ being told

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """Count one request of an identity."""
        self._seconds.labels(identity, outcome).observe(seconds)

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """Count one login."""
        self._logins.labels(identity, outcome).inc()

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """Count one renewal of a token."""
        self._renewals.labels(identity, outcome).inc()

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """Count one possible interception; the reason is in the log."""
        del reason
        self._alarms.labels(identity).inc()

    def show(self, health: VaultHealth) -> None:
        """Set the gauges to what is known now."""
        for one in health.identities:
            self._up.labels(one.identity).set(one.is_up)
            self._since.labels(one.identity).set(0 if one.is_up else one.since.timestamp())
            for state in VaultState:
                self._state.labels(one.identity, state).set(state is one.state)
