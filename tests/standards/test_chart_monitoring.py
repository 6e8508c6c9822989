"""Alerts and dashboard of the chart: what they ask Prometheus for is there to be asked for."""

import json
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.standards.chart_pages import CHART
from tests.standards.promql import exposed, faults, filled
from tests.standards.sources import read, table_rows


def alerts() -> list[dict[str, Any]]:
    """Return the alerts of the chart."""
    text = (CHART / "files" / "alerts.yaml").read_text("utf-8")
    (group,) = YAML(typ="safe", pure=True).load(text)["groups"]
    made: list[dict[str, Any]] = group["rules"]
    return made


def dashboard() -> dict[str, Any]:
    """Return the dashboard of the chart."""
    made: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
    return made


def expressions() -> dict[str, list[tuple[str, str]]]:
    """Return every expression with what is shown of its labels, by the panel or alert."""
    found = {
        f"panel {panel['title']}": [
            (target["expr"], target.get("legendFormat", "")) for target in panel["targets"]
        ]
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }
    return found | {
        one["alert"]: [(one["expr"], " ".join(one["annotations"].values()))] for one in alerts()
    }


@pytest.mark.parametrize("of", sorted(expressions()))
def test_expression_parses_and_asks_for_what_is_there(of: str) -> None:
    """A misspelt name would be silent for ever."""
    asked = expressions()[of]
    assert asked
    assert [one for text, shown in asked for one in faults(text, shown, known=exposed())] == []


RATE = "rate(penstock_orders_total{SELECTOR}[5m])"


@pytest.mark.parametrize(
    ("text", "shown", "fault"),
    [
        (f"sum by (outcome) ({RATE}", "", "does not parse"),
        ("rate(penstock_orders_total{SELECTOR})", "", "does not parse"),
        ("penstock_jobs{SELECTOR} >> 3", "", "does not parse"),
        ("penstock_job{SELECTOR} > 3", "", "metric penstock_job is not there"),
        ("absent(up{SELECTOR})", "", "metric up is not there"),
        ("penstock_delivery_seconds{SELECTOR}", "", "metric penstock_delivery_seconds is not"),
        ('penstock_jobs{SELECTOR, kid="fulfil"}', "", "label kid is not there"),
        ('penstock_jobs{SELECTOR, le="1"}', "", "label le is not there"),
        (f"sum by (result) ({RATE})", "", "label result is not there"),
        (
            "histogram_quantile(0.5, sum(rate(penstock_delivery_seconds_bucket{SELECTOR}[5m])))",
            "",
            "label le is not there",
        ),
        (
            "penstock_jobs{SELECTOR} / on (status) penstock_nodes{SELECTOR}",
            "",
            "label status is not there",
        ),
        (f"sum ({RATE})", "{{outcome}}", "label outcome is shown"),
        ("penstock_jobs{SELECTOR}", "of {{ $labels.upstream }}", "label upstream is shown"),
    ],
)
def test_wrong_expression_would_be_seen(text: str, shown: str, fault: str) -> None:
    """The twin: by what is wrong with it."""
    assert any(one.startswith(fault) for one in faults(text, shown, known=exposed()))


def test_alert_that_asks_for_another_metric_would_be_seen() -> None:
    """Of each, its first metric with one letter more, or without its last bracket."""
    asked = [text for texts in expressions().values() for text, _ in texts]
    for text in asked:
        more = re.sub(r"(penstock_\w+)", r"\1x", text, count=1)
        assert any("is not there" in one for one in faults(more, known=exposed())), text
        head, _, tail = text.rpartition("}")
        (fault,) = faults(head + tail, known=exposed())
        assert fault.startswith("does not parse"), text


def test_variables_of_grafana_are_filled_in() -> None:
    """Times by a time, all others by a word."""
    text = 'rate(x{namespace="$namespace", a=~"${a}"}[$__rate_interval])'
    assert filled(text) == 'rate(x{namespace="penstock", a=~"penstock"}[5m])'


def test_choices_of_the_dashboard_are_made_of_metrics_that_are_there() -> None:
    """As the one of namespaces, which is no expression but Grafana's own."""
    asked = [
        re.fullmatch(r"label_values\((\w+), (\w+)\)", one["query"]["query"])
        for one in dashboard()["templating"]["list"]
        if one["type"] == "query"
    ]
    assert asked
    for one in asked:
        assert one is not None
        assert one[2] in exposed()[one[1]]


def test_alerts_are_told_with_what_to_do() -> None:
    """Each has its row on the page, a severity, a sentence, and a page that is there."""
    told = [row[0].strip("`") for row in table_rows("docs/operations/alerts.md", "Alert")]
    assert told == [one["alert"] for one in alerts()]
    for one in alerts():
        assert one["labels"]["severity"] in {"warning", "critical"}
        page, _, heading = (
            one["annotations"]["runbook_url"].removeprefix("RUNBOOKS/").partition("#")
        )
        text = read(f"docs/{page.removesuffix('.html')}.md")
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}


def test_panels_of_the_dashboard_stand_beside_each_other() -> None:
    """No two overlap, and none is wider than the page."""
    taken = set[tuple[int, int]]()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
