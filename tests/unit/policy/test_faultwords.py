"""The words for what a model finds wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, ValidationError

from broker.policy.faultwords import fault_of
from broker.policy.yamlfile import FileModel


def refuse(value: str) -> str:
    """Refuse every value."""
    raise ValueError(f"{value} is not today's")


class Cat(FileModel):
    """One kind of animal."""

    kind: Literal["cat"]
    whiskers: int


class Dog(FileModel):
    """Another."""

    kind: Literal["dog"]
    barks: bool


class Farm(FileModel):
    """A model with one of everything."""

    name: Annotated[str, Field(max_length=5)] = ""
    day: Annotated[str, AfterValidator(refuse)] = ""
    at: datetime | None = None
    level: Literal["low", "high"] = "low"
    tags: tuple[str, ...] = ()
    rooms: dict[str, dict[str, int]] = Field(default={})
    animals: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()
    guard: Dog | None = None
    stalls: dict[Annotated[str, Field(pattern="^s")], Dog] = Field(default={})


def told(values: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str, str | None]]:
    """Return what is wrong with *values*."""
    with pytest.raises(ValidationError) as caught:
        Farm.model_validate(values, strict=False)
    return [fault_of(found, values, Farm) for found in caught.value.errors()]


@pytest.mark.parametrize(
    ("values", "path", "message", "hint"),
    [
        pytest.param(
            {"nmae": 1}, ("nmae",), "unknown key 'nmae'", "did you mean 'name'?", id="near"
        ),
        pytest.param(
            {"xyzzy": 1},
            ("xyzzy",),
            "unknown key 'xyzzy'",
            "known here: animals, at, day, guard, level, name, rooms, stalls, tags",
            id="nothing-near",
        ),
        pytest.param(
            {"guard": {"kind": "dog", "barks": True, "bark": 1}},
            ("guard", "bark"),
            "unknown key 'bark'",
            "did you mean 'barks'?",
            id="below-an-optional-model",
        ),
        pytest.param(
            {"animals": [{"kind": "cat", "whiskers": 1, "wiskers": 2}]},
            ("animals", 0, "wiskers"),
            "unknown key 'wiskers'",
            "did you mean 'whiskers'?",
            id="in-a-union-in-a-list",
        ),
        pytest.param(
            {"stalls": {"s1": {"kind": "dog", "barks": True, "braks": 1}}},
            ("stalls", "s1", "braks"),
            "unknown key 'braks'",
            "did you mean 'barks'?",
            id="below-a-key-of-a-pattern",
        ),
        pytest.param(
            {"guard": {"kind": "dog"}}, ("guard",), "missing key 'barks'", None, id="missing"
        ),
        pytest.param({"tags": "x"}, ("tags",), "expected a list, found 'x'", None, id="list"),
        pytest.param(
            {"tags": ["a" * 50, 1]},
            ("tags", 1),
            "expected text, found the number 1",
            None,
            id="entry",
        ),
        pytest.param(
            {"rooms": {"a": {"b": [1]}}},
            ("rooms", "a", "b"),
            "expected a whole number, found a list",
            None,
            id="mapping",
        ),
        pytest.param(
            {"guard": 3},
            ("guard",),
            "expected a mapping from keys to values, found the number 3",
            None,
            id="model",
        ),
        pytest.param(
            {"level": "hihg"},
            ("level",),
            "expected 'low' or 'high', found 'hihg'",
            "did you mean 'high'?",
            id="word",
        ),
        pytest.param(
            {"level": None},
            ("level",),
            "expected 'low' or 'high', found nothing",
            None,
            id="nothing",
        ),
        pytest.param({"day": "noon"}, ("day",), "noon is not today's", None, id="own-sentence"),
        pytest.param(
            {"at": "x" * 50},
            ("at",),
            f"expected a time such as 2026-01-31T12:00:00Z, found '{'x' * 40}…'",
            None,
            id="clipped",
        ),
        pytest.param(
            {"name": "toolong"},
            ("name",),
            "string should have at most 5 characters",
            None,
            id="the-library's-words-in-our-case",
        ),
    ],
)
def test_a_fault_says_what_stands_there_and_what_was_expected(
    values: dict[str, Any], path: tuple[str | int, ...], message: str, hint: str | None
) -> None:
    """Path, message and hint."""
    assert told(values) == [(path, message, hint)]


def test_an_unknown_member_of_a_union_has_the_path_of_the_file() -> None:
    """A union's tag is no key of the file."""
    [(path, message, _)] = told({"animals": [{"kind": "cow"}]})
    assert path == ("animals", 0)
    assert "cow" in message
