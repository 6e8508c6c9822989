"""What is told about the configuration on the metrics page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome

__all__ = ["ConfigMetrics"]


class ConfigMetrics:
    """Series about the configuration that is in force and the one that is not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"penstock_config_{name}", text, labels, registry=registry)

        self._info = gauge(
            "info", "1 for the configuration that is in force, by its SHA-256.", "sha256"
        )
        self._since = gauge(
            "in_force_timestamp_seconds", "Since when the configuration in force is in force."
        )
        self._refused = gauge("refused", "Whether the configuration file is refused.")
        self._refused_since = gauge(
            "refused_timestamp_seconds", "Since when it is; 0 where it is not."
        )
        self._last_good = gauge(
            "last_good", "Whether the file was unfit at the start and the kept one is in force."
        )
        self._changes = Counter(
            "penstock_config_changes",
            "Changed configurations, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self._counted = dict.fromkeys(ConfigOutcome, 0)
        for outcome in ConfigOutcome:
            self._changes.labels(outcome.value)

    def show(self, keeper: ConfigKeeper) -> None:
        """Show how it stands now."""
        refusal = keeper.refusal
        self._info.clear()
        self._info.labels(keeper.in_force.sha256).set(1)
        self._since.set(keeper.since.timestamp())
        self._refused.set(refusal is not None)
        self._refused_since.set(0 if refusal is None else refusal.since.timestamp())
        self._last_good.set(keeper.is_last_good)
        for outcome in ConfigOutcome:
            count = keeper.counts[outcome]
            self._changes.labels(outcome.value).inc(count - self._counted[outcome])
            self._counted[outcome] = count
