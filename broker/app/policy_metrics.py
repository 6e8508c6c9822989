"""What is told about policies on the metrics page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.issuance.policy_keeping import PolicyKeeper
from broker.issuance.policy_ports import PolicyOutcome

__all__ = ["PolicyMetrics"]


class PolicyMetrics:
    """Series about the set that is in force and the one that is not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"penstock_policy_{name}", text, labels, registry=registry)

        self._info = gauge(
            "info", "1 for the set of policy files that is in force, by its SHA-256.", "sha256"
        )
        self._version = gauge(
            "version", "Version of the signed policies in force; 0 where none are demanded."
        )
        self._since = gauge(
            "in_force_timestamp_seconds", "Since when the policies in force are in force."
        )
        self._refused = gauge("refused", "Whether the policy files that lie there now are refused.")
        self._refused_since = gauge(
            "refused_timestamp_seconds", "Since when they are; 0 where they are not."
        )
        self._last_good = gauge(
            "last_good", "Whether the files were unfit at the start and the kept set is in force."
        )
        self._sets = Counter(
            "penstock_policy_sets",
            "Changed sets of policy files, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self._counted = dict.fromkeys(PolicyOutcome, 0)
        for outcome in PolicyOutcome:
            self._sets.labels(outcome.value)
        self._files = gauge("files", "Policy files in force, cases included.")
        self._took = gauge(
            "reload_seconds", "How long reading and taking the last set took; 0 before the first."
        )

    def show(self, keeper: PolicyKeeper) -> None:
        """Show how it stands now."""
        loaded, refusal = keeper.loaded, keeper.refusal
        self._info.clear()
        self._info.labels(loaded.texts.sha256).set(1)
        self._version.set(0 if loaded.seal is None else loaded.seal.version)
        self._since.set(keeper.since.timestamp())
        self._refused.set(refusal is not None)
        self._refused_since.set(0 if refusal is None else refusal.since.timestamp())
        self._last_good.set(keeper.is_last_good)
        for outcome in PolicyOutcome:
            count = keeper.counts[outcome]
            self._sets.labels(outcome.value).inc(count - self._counted[outcome])
            self._counted[outcome] = count
        self._files.set(len(loaded.texts.files))
        self._took.set(0 if keeper.took is None else keeper.took.total_seconds())
