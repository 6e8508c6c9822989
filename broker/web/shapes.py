"""Types as JSON has them: a schema for each, and whether a value is of it.

Arguments and answers of commands are made of few types: text, numbers, truth, nothing, lists,
mappings by name, words of a fixed list, and objects with named members (``TypedDict``).  The
description of the operator API is written from these, and what is asked of it is held against them.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["NotOfShape", "check_value", "from_text", "is_scalar", "schema_of"]

Schema = dict[str, Any]

SIMPLE: Final[Mapping[Any, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}

_LISTS: Final = (list, tuple, Sequence)
_MAPPINGS: Final = (dict, Mapping)
_UNIONS: Final = (Union, types.UnionType)
_NOTHING: Final = type(None)


class NotOfShape(ValueError):
    """A value of another type than is expected; the text tells which."""


def schema_of(shape: Any, definitions: dict[str, Schema]) -> Schema:
    """Return the JSON Schema of *shape*; objects with names are put among *definitions*.

    Raises:
        TypeError: The type is none of those that JSON is written from here.
    """
    if shape in (Any, object):
        return {}
    if shape is _NOTHING:
        return {"type": "null"}
    if shape in SIMPLE:
        return {"type": SIMPLE[shape]}
    if is_typeddict(shape):
        return _named(shape, definitions)
    words = _words(shape)
    if words is not None:
        return {"type": "string", "enum": words}
    origin, inner = get_origin(shape) or shape, get_args(shape)
    if origin in _UNIONS:
        return _either([schema_of(one, definitions) for one in inner])
    if origin in _LISTS:
        items = schema_of(inner[0], definitions) if inner else {}
        return {"type": "array", "items": items} if items else {"type": "array"}
    if origin in _MAPPINGS:
        held = schema_of(inner[1], definitions) if inner else {}
        return {"type": "object", "additionalProperties": held} if held else {"type": "object"}
    raise TypeError(f"{shape} cannot be written as JSON Schema")


def _named(shape: Any, definitions: dict[str, Schema]) -> Schema:
    name = str(shape.__name__)
    if name not in definitions:
        made: Schema = {"type": "object"}
        definitions[name] = made
        if shape.__doc__:
            made["description"] = " ".join(shape.__doc__.split())
        made["properties"] = {
            member: schema_of(kind, definitions) for member, kind in get_type_hints(shape).items()
        }
        made["required"] = sorted(shape.__required_keys__)
    return {"$ref": f"#/components/schemas/{name}"}


def _either(schemas: Sequence[Schema]) -> Schema:
    types_ = [one["type"] for one in schemas if set(one) == {"type"}]
    if len(types_) == len(schemas):
        return {"type": types_}
    if {} in schemas:
        return {}
    return {"anyOf": list(schemas)}


def _words(shape: Any) -> list[str] | None:
    if isinstance(shape, type) and issubclass(shape, Enum):
        return [str(one.value) for one in shape]
    if get_origin(shape) is Literal:
        return [str(one) for one in get_args(shape)]
    return None


def _without_nothing(shape: Any) -> tuple[Any, bool]:
    """Return what else *shape* can be, and whether it can be nothing."""
    if get_origin(shape) not in _UNIONS:
        return shape, False
    others = [one for one in get_args(shape) if one is not _NOTHING]
    return (others[0] if len(others) == 1 else Union[tuple(others)]), _NOTHING in get_args(shape)  # noqa: UP007 - made at run time


def is_scalar(shape: Any) -> bool:
    """Return whether a value of *shape* is one word, so that it can stand in a query."""
    inner, _ = _without_nothing(shape)
    return inner in SIMPLE or _words(inner) is not None


def from_text(shape: Any, text: str) -> object:
    """Return the value of a scalar *shape* that *text* is in a query.

    Raises:
        NotOfShape: It is none.
    """
    inner, _ = _without_nothing(shape)
    if inner is bool:
        if text not in ("true", "false"):
            raise NotOfShape("is neither 'true' nor 'false'")
        return text == "true"
    if inner in (int, float):
        try:
            return inner(text)
        except ValueError:
            raise NotOfShape(f"is no {SIMPLE[inner]}") from None
    return text


def check_value(shape: Any, value: object) -> None:
    """Return if *value* is of *shape*.

    Raises:
        NotOfShape: It is not.
    """
    inner, may_be_nothing = _without_nothing(shape)
    if inner in (Any, object) or (value is None and may_be_nothing):
        return
    if get_origin(inner) in _UNIONS:
        _check_either(inner, value)
        return
    words = _words(inner)
    if words is not None:
        if value not in words:
            raise NotOfShape(f"is none of {', '.join(words)}")
        return
    origin, within = get_origin(inner) or inner, get_args(inner)
    if origin in _LISTS:
        if not isinstance(value, list):
            raise NotOfShape("is no array")
        for one in value if within else ():
            check_value(within[0], one)
    elif origin in _MAPPINGS:
        if not isinstance(value, dict):
            raise NotOfShape("is no object")
        for one in value.values() if within else ():
            check_value(within[1], one)
    else:
        _check_simple(inner, value)


def _check_either(shape: Any, value: object) -> None:
    for one in get_args(shape):
        try:
            check_value(one, value)
        except NotOfShape:
            continue
        return
    raise NotOfShape("is of none of the types that it may have")


def _check_simple(shape: Any, value: object) -> None:
    if shape is float and isinstance(value, int) and not isinstance(value, bool):
        return
    # In Python a truth value is a number, and in JSON it is none.
    if (
        shape not in SIMPLE
        or not isinstance(value, shape)
        or isinstance(value, bool) != (shape is bool)
    ):
        raise NotOfShape(f"is no {SIMPLE.get(shape, 'value that is known here')}")
