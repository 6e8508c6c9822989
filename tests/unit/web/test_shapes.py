"""Types as JSON has them: schemas, values that are of them, and those that are not."""

from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from broker.web.shapes import NotOfShape, check_value, from_text, is_scalar, schema_of


class Colour(StrEnum):
    """Words."""

    RED = "red"
    GREEN = "green"


class Inner(TypedDict):
    """An object."""

    name: str
    colour: NotRequired[Colour]


class Outer(Inner):
    """One that has more."""

    held: list[Inner]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (Any, {}),
        (str | None, {"type": ["string", "null"]}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (list[Any], {"type": "array"}),
        (dict[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (dict[str, Any], {"type": "object"}),
        (Colour, {"type": "string", "enum": ["red", "green"]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (list[str] | None, {"anyOf": [{"type": "array", "items": {"type": "string"}},
                                      {"type": "null"}]}),
        (Inner, {"$ref": "#/components/schemas/Inner"}),
    ],
    ids=str,
)  # fmt: skip
def test_schema_says_what_a_type_is(shape: Any, expected: dict[str, Any]) -> None:
    """Each of the types that commands are made of."""
    assert schema_of(shape, {}) == expected


def test_objects_are_defined_once_with_their_members() -> None:
    """And with those of what they extend; one that may be missing is not required."""
    definitions: dict[str, Any] = {}
    assert schema_of(list[Outer], definitions)["items"] == {"$ref": "#/components/schemas/Outer"}
    assert set(definitions) == {"Outer", "Inner"}
    assert definitions["Outer"]["required"] == ["held", "name"]
    assert definitions["Inner"]["properties"]["colour"]["enum"] == ["red", "green"]


def test_type_that_json_does_not_have_is_an_error_of_ours() -> None:
    """It would be described as anything at all."""
    with pytest.raises(TypeError, match="cannot be written"):
        schema_of(bytes, {})


GOOD = [
    (str, "x"), (int, 1), (float, 1), (float, 1.5), (bool, True), (str | None, None),
    (list[str], []), (list[str], ["a"]), (dict[str, str], {"a": "b"}), (Colour, "red"),
    (Any, {"a": 1}), (str | list[str], ["a"]),
]  # fmt: skip
BAD = [
    (str, 1), (str, None), (int, True), (int, 1.5), (int, "1"), (float, True), (bool, 1),
    (list[str], "a"), (list[str], [1]), (dict[str, str], []), (dict[str, str], {"a": 1}),
    (Colour, "blue"), (Colour, 1), (str | list[str], 5), (Colour, []),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "value"), GOOD, ids=str)
def test_value_of_its_type_passes(shape: Any, value: object) -> None:
    """As JSON has it."""
    check_value(shape, value)


@pytest.mark.parametrize(("shape", "value"), BAD, ids=str)
def test_value_of_another_type_is_refused(shape: Any, value: object) -> None:
    """Before a command meets it."""
    with pytest.raises(NotOfShape):
        check_value(shape, value)


@pytest.mark.parametrize(
    ("shape", "text", "value"),
    [(str, "x", "x"), (int | None, "5", 5), (bool, "true", True), (bool, "false", False),
     (float, "1.5", 1.5), (Colour, "red", "red")],
    ids=["text", "number", "true", "false", "fraction", "word"],
)  # fmt: skip
def test_word_of_a_query_has_its_value(shape: Any, text: str, value: object) -> None:
    """Queries have text alone."""
    assert is_scalar(shape)
    assert from_text(shape, text) == value


@pytest.mark.parametrize(("shape", "text"), [(int, "five"), (bool, "1"), (int, "")], ids=str)
def test_word_that_has_no_value_is_refused(shape: Any, text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(NotOfShape):
        from_text(shape, text)


@pytest.mark.parametrize("shape", [list[str], dict[str, str], Any], ids=str)
def test_what_is_more_than_a_word_stands_in_no_query(shape: Any) -> None:
    """It goes into a body."""
    assert not is_scalar(shape)
