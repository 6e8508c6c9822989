"""The form of a policy file, and the schema that is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.policy.form import KeyKind, check_references, schema
from broker.protocol.extensions import key_kind
from tests.unit.protocol.builders import private_key

POLICIES = Path(__file__).parents[3] / "policies"


def test_the_schema_is_the_one_that_is_shipped(update_golden: bool) -> None:
    """Editors read policies/schema.json; ``pytest --update-golden`` writes it anew."""
    made = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    path = POLICIES / "schema.json"
    if update_golden:
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made


def test_every_key_of_the_schema_is_closed() -> None:
    """An editor marks an unknown key as the broker would refuse it."""
    forms = [schema(), *schema()["$defs"].values()]
    objects = [form for form in forms if form.get("type") == "object"]
    assert objects
    assert all(form["additionalProperties"] is False for form in objects)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        pytest.param("ES256", KeyKind.EC_P256, id="p256"),
        pytest.param("ES384", KeyKind.EC_P384, id="p384"),
        pytest.param("rsa-2048", KeyKind.RSA_2048, id="rsa"),
    ],
)
def test_kinds_of_key_are_those_of_the_protocol(kind: str, word: KeyKind) -> None:
    """The policy's words are compared with what a CSR is laid open to."""
    assert key_kind(private_key(kind).public_key()) == word


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="list"),
        pytest.param({"profiles": ["server"], "default_profile": 1}, id="shapes"),
        pytest.param({"trusted": {"a": {"profiles": {"b": {}}}}}, id="mappings-for-lists"),
    ],
)
def test_references_in_odd_shapes_are_no_fault_here(values: object) -> None:
    """The form says what is wrong with a shape; this looks at names only."""
    assert list(check_references(values)) == []


def test_references_that_lead_somewhere_are_no_fault() -> None:
    """And one that does not is, with the nearest name."""
    values = {"profiles": {"server": {}}, "default_profile": "server"}
    assert list(check_references(values)) == []
    values["default_profile"] = "sever"
    assert list(check_references(values)) == [
        (("default_profile",), "there is no profile 'sever'", "did you mean 'server'?")
    ]
