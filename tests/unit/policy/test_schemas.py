"""The JSON schema of policy files, as editors read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.policy.schemas import KINDS, schema_of, whole_schema

POLICIES = Path(__file__).parents[3] / "policies"


def test_the_schema_is_the_one_that_is_shipped(update_golden: bool) -> None:
    """Editors read policies/schema.json; ``pytest --update-golden`` writes it anew."""
    made = json.dumps(whole_schema(), indent=2, ensure_ascii=False) + "\n"
    path = POLICIES / "schema.json"
    if update_golden:
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made


def test_every_kind_of_file_is_told_by_its_kind() -> None:
    """One setting of an editor serves a whole directory."""
    made = whole_schema()
    assert made["properties"]["kind"]["enum"] == list(KINDS)
    for part in made["allOf"]:
        kind = part["if"]["properties"]["kind"]["const"]
        assert part["then"] == {"$ref": f"#/$defs/{kind}"}
        assert made["$defs"][kind]["properties"]["kind"]["const"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_the_schema_is_closed(kind: str) -> None:
    """An editor marks an unknown key as the broker would refuse it."""
    made = schema_of(kind)
    forms = [made, *made["$defs"].values()]
    objects = [form for form in forms if form.get("type") == "object" and "properties" in form]
    assert objects
    assert all(form["additionalProperties"] is False for form in objects)


def test_every_reference_leads_somewhere() -> None:
    """Kinds share definitions, which are collected once."""
    made = whole_schema()
    references = set(_references(made))
    assert references
    assert {name.removeprefix("#/$defs/") for name in references} <= set(made["$defs"])


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []
