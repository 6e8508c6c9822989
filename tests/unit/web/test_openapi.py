"""The description of the operator API: whole, consistent, and made from the types alone."""

from typing import Any

import jsonschema
import pytest

from broker.app.operator_access import summaries
from broker.web.openapi import describe
from broker.web.operator import COMMANDS
from broker.web.rights import RIGHTS


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The description."""
    return describe(summaries())


def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each operation by its id."""
    return {
        one["operationId"]: one for path in described["paths"].values() for one in path.values()
    }


def references(value: Any) -> set[str]:
    """Return everything that *value* points to."""
    if isinstance(value, dict):
        found = set().union(*(references(one) for one in value.values()))
        return found | ({value["$ref"]} if isinstance(value.get("$ref"), str) else set())
    if isinstance(value, list):
        return set().union(*(references(one) for one in value))
    return set()


def schemas(value: Any) -> list[Any]:
    """Return every schema that stands below *value*."""
    if isinstance(value, dict):
        own = [value["schema"]] if "schema" in value else []
        return own + [found for one in value.values() for found in schemas(one)]
    if isinstance(value, list):
        return [found for one in value for found in schemas(one)]
    return []


def test_every_command_is_described(described: dict[str, Any]) -> None:
    """By its own name, with its roles and with a sentence."""
    found = operations(described)
    assert set(found) == COMMANDS
    for name, one in found.items():
        assert one["x-penstock-roles"] == sorted(RIGHTS[name].roles)
        assert one["summary"].endswith((".", ":")) or one["summary"], name


def test_what_is_pointed_to_is_there(described: dict[str, Any]) -> None:
    """And nothing is there that nobody points to."""
    components = described["components"]
    there = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses")
        for name in components[kind]
    }
    assert references(described) == there


def test_schemas_are_json_schema(described: dict[str, Any]) -> None:
    """OpenAPI 3.1 has those of JSON Schema 2020-12."""
    found = schemas(described["paths"]) + list(described["components"]["schemas"].values())
    assert len(found) > len(COMMANDS)
    for one in found:
        jsonschema.Draft202012Validator.check_schema(one)


def test_names_are_told_once_and_ids_are_unique(described: dict[str, Any]) -> None:
    """Generators make a method of each."""
    ids = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    for one in operations(described).values():
        names = [parameter["name"] for parameter in one.get("parameters", [])]
        assert len(names) == len(set(names))


def test_answers_that_people_work_with_have_types(described: dict[str, Any]) -> None:
    """Of the rest it is told whether they are objects or lists of such."""
    found = operations(described)
    for name, kind in {
        "order_show": "OrderDetail",
        "cert_show": "CertificateDetail",
        "account_show": "Account",
        "node_show": "Node",
        "approval_show": "ApprovalDetail",
        "policy_explain": "PolicyExplanation",
        "quota_show": "Quotas",
        "upstream_show": "Upstream",
        "cert_trace": "DeliveryTrace",
        "cert_evidence": "CertificateEvidence",
    }.items():
        content = found[name]["responses"]["200"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{kind}"}


def test_every_answer_says_whether_it_is_an_object_or_a_list(described: dict[str, Any]) -> None:
    """A client that is made from the description knows what to expect of each command."""
    for name, one in operations(described).items():
        schema = one["responses"]["200"]["content"]["application/json"]["schema"]
        said = schema.get("type", "object" if "$ref" in schema else None)
        kinds = set(said) if isinstance(said, list) else {said}
        assert kinds & {"object", "array"}, name
        assert kinds <= {"object", "array", "null"}, name
        if "array" in kinds:
            assert schema["items"].keys() & {"type", "$ref"}, name


def test_routes_answer_lists_where_rows_are_left_out(described: dict[str, Any]) -> None:
    """What a person may not see is taken from a list, row by row."""
    for name, one in operations(described).items():
        if RIGHTS[name].by_rows:
            schema = one["responses"]["200"]["content"]["application/json"]["schema"]
            assert schema["type"] == "array", name
