"""The JSON schema of every kind of policy file, for editors.

One schema for them all: which part of it holds is told by the file's own ``kind``, so that an
editor needs one setting for a whole directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from broker.policy.case_form import PolicyCases
from broker.policy.form import PolicyForm
from broker.policy.rule_form import SharedRulesForm
from broker.policy.upstream_facts import FactsForm

__all__ = ["KINDS", "schema_of", "whole_schema"]

KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "Policy": PolicyForm,
    "SharedRules": SharedRulesForm,
    "PolicyCases": PolicyCases,
    "UpstreamFacts": FactsForm,
}
"""The form of each kind of file."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON schema of files of *kind* alone; raises KeyError for one that is not."""
    return {"$schema": _DIALECT, **_made(kind)}


def whole_schema() -> dict[str, Any]:
    """Return the JSON schema of a file of any kind."""
    definitions: dict[str, Any] = {}
    for kind in KINDS:
        made = _made(kind)
        definitions |= made.pop("$defs", {})
        definitions[kind] = made
    return {
        "$schema": _DIALECT,
        "title": "A file of a policy directory",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        # Not a choice of one among four: an editor would tell the faults of all of them.
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in KINDS
        ],
        "$defs": dict(sorted(definitions.items())),
    }


def _made(kind: str) -> dict[str, Any]:
    return KINDS[kind].model_json_schema(mode="validation", by_alias=True)
