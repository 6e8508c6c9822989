"""Expressions of Prometheus, taken apart by a parser and held against docs/metrics.md.

Knows neither chart nor dashboard: it gets a text and says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import promql_parser as promql

from tests.standards.sources import table_rows

__all__ = ["exposed", "faults", "filled"]

TARGET_LABELS: Final = frozenset(
    {"namespace", "pod", "container", "service", "endpoint", "job", "instance"}
)
"""What Prometheus adds to each series that it scrapes by a ServiceMonitor."""

_GRAFANA_TIMES: Final = re.compile(r"\$(?:__(?:rate_interval|interval|range)\b|\{__\w+\})")
_GRAFANA_NAMES: Final = re.compile(r"\$(?:\{\w+\}|[a-z]\w*)")

Exposed = Mapping[str, frozenset[str]]
"""Series → the labels that it has."""


def exposed() -> Exposed:
    """Return every series that docs/metrics.md tells of, the parts of histograms by themselves."""
    found: dict[str, frozenset[str]] = {}
    for name, kind, labels, *_ in table_rows("docs/metrics.md", "Metric"):
        bare = name.strip("`")
        own = frozenset(re.findall(r"`(\w+)`", labels)) | TARGET_LABELS
        if kind == "histogram":
            found |= {f"{bare}_bucket": own | {"le"}, f"{bare}_sum": own, f"{bare}_count": own}
        else:
            found[bare] = own
    return found


def filled(text: str) -> str:
    """Return *text* with values in the place of the chart's and of Grafana's variables."""
    text = text.replace("SELECTOR", 'namespace="penstock"')
    return _GRAFANA_NAMES.sub("penstock", _GRAFANA_TIMES.sub("5m", text))


def faults(text: str, shown: str = "", *, known: Exposed) -> list[str]:
    """Return what is wrong with the expression *text*, of whose labels *shown* makes use.

    That is a legend (``{{outcome}}``) or a sentence (``{{ $labels.outcome }}``).
    """
    try:
        parsed = promql.parse(filled(text))
    except ValueError as error:
        return [f"does not parse: {error}"]
    found: list[str] = []
    carried = _carried(parsed, known, found)
    used = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", shown)
    return found + [f"label {one} is shown and not there" for one in used if one not in carried]


def _carried(node: Any, known: Exposed, found: list[str]) -> frozenset[str]:
    """Return the labels that the outcome of *node* can have; faults are added to *found*."""
    match node:
        case promql.MatrixSelector():
            return _carried(node.vector_selector, known, found)
        case promql.VectorSelector():
            return _selected(node, known, found)
        case promql.AggregateExpr():
            return _aggregated(node, known, found)
        case promql.BinaryExpr():
            return _matched(node, known, found)
        case promql.Call():
            parts = [_carried(one, known, found) for one in node.args]
            labels = frozenset[str]().union(*parts)
            if node.func.name == "histogram_quantile":
                found += _absent(["le"], labels)
                labels -= {"le"}
            return labels
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _carried(node.expr, known, found)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
    raise AssertionError(f"nothing is known of {type(node).__name__}")


def _selected(node: Any, known: Exposed, found: list[str]) -> frozenset[str]:
    if node.name not in known:
        found.append(f"metric {node.name} is not there")
        return TARGET_LABELS
    groups = [node.matchers.matchers, *node.matchers.or_matchers]
    found += _absent([one.name for group in groups for one in group], known[node.name])
    return known[node.name]


def _matched(node: Any, known: Exposed, found: list[str]) -> frozenset[str]:
    left, right = _carried(node.lhs, known, found), _carried(node.rhs, known, found)
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is not None:
        is_on = matching.type == promql.LabelModifierType.Include
        found += _absent(matching.labels, left & right if is_on else left | right)
    return left | right


def _aggregated(node: Any, known: Exposed, found: list[str]) -> frozenset[str]:
    inner = _carried(node.expr, known, found)
    if node.modifier is None:
        return frozenset()
    found += _absent(node.modifier.labels, inner)
    named = frozenset(node.modifier.labels)
    return inner & named if node.modifier.type == promql.AggModifierType.By else inner - named


def _absent(names: list[str], labels: frozenset[str]) -> list[str]:
    return [f"label {one} is not there" for one in names if one not in labels]
