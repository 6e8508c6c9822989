"""What the chart says of itself, as far as it can be seen without rendering it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest

from tests.standards.chart_pages import (
    CHART,
    FREE,
    config_schema,
    documented_values,
    readme,
    values,
)
from tests.standards.sources import read

SCHEMA = CHART / "values.schema.json"

KUBERNETES_OWN = {"kubernetes", "kubernetesList"}
"""Definitions of objects that Kubernetes itself checks, field by field."""


def schema() -> dict[str, Any]:
    """Return the schema of the values."""
    made: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return made


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths of all values below which there are no others that are documented."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value and path not in FREE and is_ours(path):
            yield from leaves(value, f"{path}.")
        else:
            yield path


def is_ours(path: str) -> bool:
    """Return whether what is below *path* is the chart's, and documented value by value."""
    where: Any = schema()
    for part in path.split("."):
        where = where["properties"].get(part, {})
    return "properties" in where


def test_every_value_is_documented() -> None:
    """Each has its sentence, and each sentence its value."""
    told = [one.path for one in documented_values()]
    assert sorted(told) == sorted(set(leaves(values())))


def test_readme_is_written_from_the_values(update_golden: bool) -> None:
    """Nobody has to look into values.yaml to know what there is."""
    if update_golden:
        (CHART / "README.md").write_text(readme(), "utf-8")
    assert (CHART / "README.md").read_text("utf-8") == readme()


def test_config_is_checked_by_the_brokers_own_types(update_golden: bool) -> None:
    """What the schema says of `config` is what the broker would say."""
    made = schema()
    by_hand = {
        name: one for name, one in made["definitions"].items() if "penstock.yaml" not in name
    }
    made["definitions"] = {**by_hand, **config_schema()}
    if update_golden:
        SCHEMA.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    assert json.loads(SCHEMA.read_text("utf-8")) == made


def objects(tree: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema of an object with where it stands."""
    if isinstance(tree, list):
        for number, one in enumerate(tree):
            yield from objects(one, f"{path}/{number}")
    elif isinstance(tree, dict):
        if tree.get("type") == "object":
            yield path, tree
        for name, one in tree.items():
            yield from objects(one, f"{path}/{name}")


def test_schema_is_strict_everywhere() -> None:
    """A misspelt value is refused, but in what Kubernetes checks and in the library's own."""
    open_ones = [
        path
        for path, one in objects(schema())
        if one.get("additionalProperties", True) is True
        and not any(path.startswith(f"/definitions/{name}") for name in KUBERNETES_OWN)
    ]
    assert open_ones == ["/properties/penstock-lib"]


def test_default_values_pass_the_schema_and_are_all_in_it() -> None:
    """And nothing is in the schema that no value is documented for."""
    jsonschema.validate(values(), schema())
    known = set(leaves(_shape(schema())))
    assert known - {"penstock-lib"} == set(leaves(values())) | (known & FREE)


def _shape(one: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _shape(each) if "properties" in each else None
        for name, each in one.get("properties", {}).items()
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"replicas": 2}, "replicas"),
        ({"image": {"tagg": "1"}}, "tagg"),
        ({"config": {**values()["config"], "upstream": {}}}, "upstream"),
        ({"config": {**values()["config"], "log": {"level": "loud"}}}, "loud"),
        ({"tls": {"source": "letsencrypt"}}, "letsencrypt"),
        ({"persistence": {"size": "8 GB"}}, "8 GB"),
        ({"image": {"digest": "sha256:abc"}}, "sha256:abc"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(change: dict[str, Any], what: str) -> None:
    """By name; the defaults above are the twin."""
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate({**values(), **change}, schema())
    assert what in str(refused.value)


def test_versions_of_chart_library_and_program_are_one() -> None:
    """A chart installs the version that it was made with."""
    program = read("agents/__init__.py").partition('__version__ = "')[2].partition('"')[0]
    for chart in ("helm/penstock/Chart.yaml", "helm/penstock/charts/penstock-lib/Chart.yaml"):
        assert f"\nversion: {program}\n" in read(chart)
        assert f"\nappVersion: {program}\n" in read(chart)
    assert f"    version: {program}\n" in read("helm/penstock/Chart.yaml")
