"""What the chart gives to Prometheus and Grafana, as it is rendered."""

import copy
import functools
import json
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.packaging.charts import VALUE_SETS, rendered
from tests.peers.helm import Document, Rendered
from tests.peers.published import PROMETHEUS_KINDS, published
from tests.standards.promql import exposed, faults

pytestmark = pytest.mark.peers


@functools.cache
def definition(kind: str) -> dict[str, Any]:
    """Return the schema of *kind* as its operator publishes it, in which no field is unknown."""
    made = YAML(typ="safe", pure=True).load(published(kind).read_text("utf-8"))
    (version,) = [one for one in made["spec"]["versions"] if one["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    strict(schema)
    found: dict[str, Any] = schema
    return found


def strict(schema: Any) -> None:
    """Refuse what a schema does not name, where it names something."""
    if isinstance(schema, list):
        for one in schema:
            strict(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            strict(one)


def refusal(document: Document) -> str:
    """Return why the operator would not take *document*; empty where it would."""
    found = jsonschema.Draft202012Validator(definition(document["kind"])).iter_errors(document)
    return "; ".join(f"{one.json_path}: {one.message}" for one in found)


def rule_texts(made: Rendered) -> list[tuple[str, str]]:
    """Return every expression that is rendered, with what is shown of its labels."""
    texts = [
        (rule["expr"], " ".join(rule["annotations"].values()))
        for one in made.all("PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ]
    for one in made.all("ConfigMap"):
        if "penstock.json" in one.get("data", {}):
            panels = json.loads(one["data"]["penstock.json"])["panels"]
            targets = [target for panel in panels for target in panel.get("targets", ())]
            texts += [(each["expr"], each.get("legendFormat", "")) for each in targets]
    return texts


@pytest.mark.parametrize("name", VALUE_SETS)
def test_operator_of_prometheus_takes_what_is_rendered(name: str) -> None:
    """By the definitions that it publishes; ``everything`` has both kinds."""
    found = [one for one in rendered(name).documents if one["kind"] in PROMETHEUS_KINDS]
    assert name != "everything" or {one["kind"] for one in found} == set(PROMETHEUS_KINDS)
    assert [refusal(one) for one in found if refusal(one)] == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "seen"),
    [
        ("ServiceMonitor", ("spec", "endpoints", 0), {"ports": "metrics"}, "'ports'"),
        ("ServiceMonitor", ("spec", "endpoints", 0), {"interval": "30 s"}, "'30 s'"),
        ("ServiceMonitor", ("spec",), {"namespaceSelector": ["penstock"]}, "['penstock']"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), {"exprs": "1"}, "'exprs'"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), {"for": "soon"}, "'soon'"),
        ("PrometheusRule", ("spec", "groups", 0), {"rules": {}}, "$.spec.groups[0].rules"),
    ],
)
def test_object_that_is_wrong_would_be_seen(
    kind: str, path: tuple[str | int, ...], value: dict[str, Any], seen: str
) -> None:
    """The twin: a field that is not there, or a value that cannot be."""
    (found,) = rendered("everything").all(kind)
    wrong: Any = copy.deepcopy(found)
    at = wrong
    for part in path:
        at = at[part]
    at.update(value)
    assert refusal(found) == ""
    assert seen in refusal(wrong)


def test_field_that_is_needed_would_be_missed() -> None:
    """A monitor without its endpoints."""
    (found,) = rendered("everything").all("ServiceMonitor")
    spec = {name: one for name, one in found["spec"].items() if name != "endpoints"}
    assert "'endpoints' is a required property" in refusal({**found, "spec": spec})


def test_rendered_expressions_ask_for_what_is_there() -> None:
    """Filled in by Helm, of alerts and dashboard."""
    texts = rule_texts(rendered("everything"))
    assert len(texts) > 40
    assert not [text for text, _ in texts if "SELECTOR" in text]
    assert [one for text, shown in texts for one in faults(text, shown, known=exposed())] == []
