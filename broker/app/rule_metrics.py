"""How often rules that only warn would have refused or narrowed, on the metrics page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from broker.issuance.events import Event, EventKind

__all__ = ["RuleMetrics"]

MAX_RULES: Final = 200
"""Most rules with a series of their own; those beyond share the one called ``other``."""

OTHER: Final = "other"


class RuleMetrics:
    """Counts warnings by rule."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._warnings = Counter(
            "penstock_rule_warnings",
            "Orders that a rule which only warns would have refused or narrowed.",
            ("community", "rule"),
            registry=registry,
        )
        self._known: set[tuple[str, str]] = set()

    def on_events(self, events: Iterable[Event]) -> None:
        """Count what happened."""
        for event in events:
            if event.kind is EventKind.RULE_WARNED:
                for rule in _rules(event.data):
                    self._count(event.community or "", rule)

    def _count(self, community: str, rule: str) -> None:
        if (community, rule) not in self._known:
            if len(self._known) >= MAX_RULES:
                rule = OTHER
            self._known.add((community, rule))
        self._warnings.labels(community, rule).inc()


def _rules(data: Mapping[str, object]) -> Iterable[str]:
    """Return each rule that warned once, as ``rule 'name'``."""
    warnings = data.get("warnings")
    told = warnings if isinstance(warnings, list) else []
    places = [str(one.get("rule") or "") for one in told if isinstance(one, Mapping)]
    return dict.fromkeys(place.partition(" ")[2] or OTHER for place in places)
