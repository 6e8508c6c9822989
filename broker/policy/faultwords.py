"""The words for what a model finds wrong with a file.

pydantic says *Input should be a valid string*; a person who mends a policy wants to hear what
stands there, what was expected and which key comes nearest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

__all__ = ["fault_of"]

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping from keys to values",
    "model_type": "a mapping from keys to values",
    "model_attributes_type": "a mapping from keys to values",
    "date_type": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "datetime_type": "a time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
}
"""What was expected, for each type of pydantic's errors that says only that."""


def fault_of(
    found: ErrorDetails, values: object, model: type[BaseModel]
) -> tuple[tuple[str | int, ...], str, str | None]:
    """Return path, message and hint for one error that *model* found in *values*."""
    place = tuple(found["loc"])
    kind = found["type"]
    context: Mapping[str, Any] = found.get("ctx", {})
    if kind == "extra_forbidden":
        path = _real_path(place[:-1], values)
        known = sorted(_keys_at(model.model_json_schema(), path))
        return (*path, str(place[-1])), f"unknown key '{place[-1]}'", _nearest(place[-1], known)
    if kind == "missing":
        return _real_path(place[:-1], values), f"missing key '{place[-1]}'", None
    path = _real_path(place, values)
    value = found["input"]
    if kind in _EXPECTED:
        return path, f"expected {_EXPECTED[kind]}, found {_described(value)}", None
    if kind in {"enum", "literal_error"}:
        expected = str(context["expected"])
        words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
        return path, f"expected {expected}, found {_described(value)}", _close(value, words)
    if kind in {"value_error", "assertion_error"}:
        return path, str(context["error"]), None
    return path, _lowered(found["msg"]), None


def _real_path(place: tuple[str | int, ...], values: Any) -> tuple[str | int, ...]:
    """Leave out of pydantic's location what is no key of the file, such as a union's member."""
    path: list[str | int] = []
    for part in place:
        is_key = isinstance(values, Mapping) and part in values
        is_place = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if is_key or is_place:
            values = values[part]
            path.append(part)
    return tuple(path)


def _keys_at(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> set[str]:
    """Return the keys that the JSON schema knows at *path*, in any of its alternatives."""
    definitions = schema.get("$defs", {})
    nodes = list(_alternatives(schema, definitions))
    for part in path:
        steps: list[Any] = []
        for node in nodes:
            if isinstance(part, int):
                steps.append(node.get("items"))
            elif part in node.get("properties", {}):
                steps.append(node["properties"][part])
            else:
                steps.append(node.get("additionalProperties"))
                steps += node.get("patternProperties", {}).values()
        nodes = [found for step in steps for found in _alternatives(step, definitions)]
    return {key for node in nodes for key in node.get("properties", {})}


def _alternatives(node: object, definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(node, Mapping):
        return
    if "$ref" in node:
        yield from _alternatives(definitions.get(node["$ref"].rpartition("/")[2]), definitions)
    for keyword in ("anyOf", "oneOf", "allOf"):
        for member in node.get(keyword, ()):
            yield from _alternatives(member, definitions)
    yield node


def _nearest(key: object, known: list[str]) -> str | None:
    return _close(key, known) or (f"known here: {', '.join(known)}" if known else None)


def _close(word: object, known: list[str]) -> str | None:
    folded = {name.lower().replace("-", "_"): name for name in known}
    wanted = str(word).lower().replace("-", "_")
    found = difflib.get_close_matches(wanted[:80], folded, n=1, cutoff=0.6)
    return f"did you mean '{folded[found[0]]}'?" if found else None


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else f"'{value[:40]}…'"
    return "a list" if isinstance(value, list) else "a mapping"


def _lowered(message: str) -> str:
    return (message[:1].lower() + message[1:]).rstrip(".")
