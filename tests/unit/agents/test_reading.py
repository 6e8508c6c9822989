"""Tables of a configuration, key by key."""

from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest

from agents.reading import Table, parse_duration


class Word(StrEnum):
    """Two words."""

    ONE = "one"
    TWO = "two"


def table(members: dict[str, Any]) -> tuple[Table, list[str]]:
    """Return a table and where its faults go."""
    faults: list[str] = []
    return Table(members, file="f.toml", place="node", faults=faults), faults


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90d", 7_776_000), ("1h30m", 5_400), ("500ms", 0.5), ("2w", 1_209_600)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """A bare number would be taken for seconds by one reader and days by another."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["90", "", "d", "-1d", "1.5h", "1d ", "9999999d", "1y"])
def test_what_has_no_unit_is_no_duration(text: str) -> None:
    """It says how one looks."""
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_all_faults_come_together_each_with_file_and_key() -> None:
    """Whoever mends the file mends it once."""
    read, faults = table({"name": 3, "longest": "90", "wrd": "two", "port": True})
    read.text("name", is_needed=True)
    read.duration("longest", timedelta(days=1))
    read.choice("word", Word.ONE)
    read.number("port", 1, least=1, most=9)
    read.path("state", is_needed=True)
    read.close()
    assert faults == [
        "f.toml: node.name: is not text in quotes",
        "f.toml: node.longest: '90' is no duration such as '90d', '12h' or '1h30m'",
        "f.toml: node.port: is not a number",
        "f.toml: node.state: is missing",
        "f.toml: node.wrd: is not known, did you mean 'word'",
    ]


def test_what_is_right_is_read() -> None:
    """Each key by its type."""
    read, faults = table(
        {"a": "text", "b": ["x"], "c": 4, "d": True, "e": "1h", "f": "//x/y/", "g": "two"}
    )
    found = (
        read.text("a"),
        read.texts("b"),
        read.number("c", 1, least=1, most=9),
        read.is_true("d", default=False),
        read.duration("e", timedelta(0)),
        read.path("f"),
        read.choice("g", Word.ONE),
    )
    read.close()
    assert found == ("text", ("x",), 4, True, timedelta(hours=1), "/x/y", Word.TWO)
    assert faults == []


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a/./b", "~/x"])
def test_a_path_is_absolute_and_without_dots(path: str) -> None:
    """What it names must not depend on where the agent was started."""
    read, faults = table({"state": path})
    assert read.path("state") is None
    assert "no absolute path" in faults[0]


def test_tables_below_are_named_by_their_name() -> None:
    """So that the fault of one of 5,000 is found."""
    read, faults = table({"certificate": [{"name": "www", "nmes": []}, {}]})
    for one in read.tables("certificate"):
        one.text("name", is_needed=True)
        one.close()
    assert faults == [
        "f.toml: node.certificate[www].nmes: is not known, did you mean 'name'",
        "f.toml: node.certificate[1].name: is missing",
    ]
