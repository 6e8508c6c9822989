"""Warnings of rules on the metrics page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from broker.app.rule_metrics import MAX_RULES, RuleMetrics
from broker.issuance.events import Event, EventKind

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
SERIES = "penstock_rule_warnings_total"


def warned(*rules: str | None, kind: EventKind = EventKind.RULE_WARNED) -> Event:
    """Return an event of these rules."""
    told: list[Any] = [{"rule": None if one is None else f"x.yaml:7 {one}"} for one in rules]
    return Event(kind=kind, at=AT, community="default", data={"warnings": told})


def test_each_rule_is_counted_once_an_order() -> None:
    """However many of its names a rule would refuse."""
    registry = CollectorRegistry()
    made = RuleMetrics(registry)
    made.on_events([warned("rule 'a'", "rule 'a'", "rule 'b'"), warned("rule 'a'")])
    made.on_events([warned("rule 'a'", kind=EventKind.ORDER_CREATED)])
    labels = {"community": "default", "rule": "rule 'a'"}
    assert registry.get_sample_value(SERIES, labels) == 2
    assert registry.get_sample_value(SERIES, {**labels, "rule": "rule 'b'"}) == 1


def test_series_are_bounded() -> None:
    """A policy of thousands of rules that warn does not fill the page."""
    registry = CollectorRegistry()
    made = RuleMetrics(registry)
    made.on_events(warned(f"rule 'r{number}'") for number in range(MAX_RULES + 50))
    labels = {"community": "default", "rule": "other"}
    assert registry.get_sample_value(SERIES, labels) == 50
    made.on_events([warned(None)])
    assert registry.get_sample_value(SERIES, labels) == 51
