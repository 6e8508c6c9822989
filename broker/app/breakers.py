"""The circuit breakers of the CAs: made, looked after, and told of on the metrics page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import Gauge

from broker.issuance.ports import Clock, Store
from broker.issuance.quota_ports import BreakerRecord, BreakerState
from broker.telemetry import Telemetry
from broker.upstreams.breaker import Breaker
from broker.upstreams.budget import Budget
from broker.upstreams.client import AcmeClient

__all__ = ["Breakers"]

STATES: Final = {None: 0, BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
"""How a state is shown as a number, the worst highest."""


class Breakers:
    """One for each CA that speaks ACME."""

    def __init__(
        self,
        clients: Mapping[str, AcmeClient],
        *,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._clients = clients
        self._store = store
        self._clock = clock
        self._made: dict[str, Breaker] = {}
        self.on_moved: Callable[[], None] = lambda: None
        """Called when a CA is left alone or answers again: what waits may go on elsewhere, or
        there."""
        self._state = Gauge(
            "penstock_upstream_breaker_state",
            "Whether a CA is asked: 0 it is, 1 one request looks whether it is back, 2 it is not.",
            ("upstream",),
            registry=telemetry.registry,
        )
        telemetry.before_render.append(self.show)

    def make(self, upstream: str) -> Breaker:
        """Return the breaker of a CA, which stands before every request to it."""
        breaker = Breaker(upstream, self._store, self._clock)
        breaker.on_moved = lambda _: self.on_moved()
        self._made[upstream] = breaker
        return breaker

    def budget(self, upstream: str) -> Budget:
        """Return what knows when a CA may be asked again."""
        return Budget(self._clock, upstream=upstream, store=self._store)

    async def look(self) -> None:
        """Look whether CAs that are left alone are back, where it is time for that."""
        now = self._clock.now()
        for record in await self._store.breakers():
            client = self._clients.get(record.upstream)
            if client is not None and record.until <= now:
                await client.look()

    def warning(self) -> str | None:
        """Return which CAs are left alone, None where none is."""
        away = {name: breaker.known for name, breaker in self._made.items()}
        told = [
            f"upstream '{name}' does not answer since {record.since:%Y-%m-%dT%H:%M:%SZ}"
            for name, record in away.items()
            if record is not None
        ]
        return "; ".join(told) or None

    def show(self) -> None:
        """Show what is known of each on the metrics page."""
        for name, breaker in self._made.items():
            known: BreakerRecord | None = breaker.known
            self._state.labels(name).set(STATES[None if known is None else known.state])
