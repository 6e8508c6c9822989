"""Strict YAML: what is refused, in which words, and where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from enum import StrEnum

import pytest
from pydantic import Field

from broker.policy.units import Duration
from broker.policy.yamlfile import (
    MAX_DEPTH,
    MAX_FAULTS,
    MAX_NODES,
    MAX_TEXT_BYTES,
    Faults,
    FileModel,
    KeyPath,
    load_model,
    path_text,
    values_at,
)


class Colour(StrEnum):
    """Two words."""

    RED = "red"
    GREEN = "green"


class Inner(FileModel):
    """What stands below."""

    max_validity: Duration
    when: date | None = None
    colours: tuple[Colour, ...] = ()


class Outer(FileModel):
    """The top of a file."""

    api_version: str = Field(alias="apiVersion")
    parts: dict[str, Inner] = Field(default={})
    text: str | None = None
    number: int | None = None
    is_on: bool = False


class Anything(FileModel):
    """One value of one kind or another."""

    text: str | None = None
    number: int | float | None = None
    truth: bool | None = None


def faults_of(text: str) -> list[str]:
    """Return the faults of *text* as people read them."""
    with pytest.raises(Faults) as caught:
        load_model(text, "f.yaml", Outer)
    return [str(fault) for fault in caught.value.faults]


GOOD = """\
apiVersion: v1
parts:
  a:
    max_validity: 90d
    when: 2026-01-31
    colours: [red, green]
is_on: true
"""


def test_a_good_file_becomes_its_model() -> None:
    """Dates, enums and tuples come from text and lists."""
    made, _ = load_model(GOOD, "f.yaml", Outer)
    part = made.parts["a"]
    assert (made.api_version, made.is_on) == ("v1", True)
    assert (part.when, part.colours) == (date(2026, 1, 31), (Colour.RED, Colour.GREEN))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param((), 1, id="top"),
        pytest.param(("parts", "a"), 3, id="key"),
        pytest.param(("parts", "a", "colours", 1), 6, id="entry"),
        pytest.param(("parts", "a", "missing", "deeper"), 3, id="nearest-key-around"),
    ],
)
def test_every_key_knows_its_line(path: KeyPath, line: int) -> None:
    """Lines count from one."""
    _, lines = load_model(GOOD, "f.yaml", Outer)
    assert lines.line(path) == line


def test_all_faults_are_told_at_once_in_the_order_of_lines() -> None:
    """Nobody wants to mend a file one fault at a time."""
    assert faults_of(
        "apiVersion: 1\n"
        "parts:\n"
        "  a:\n"
        "    max_valdity: 90d\n"
        "    when: tomorrow\n"
        "    colours: [gren]\n"
        "  b:\n"
        "    max_validity: 90\n"
        "  b: {}\n"
        "is_on: no\n"
    ) == [
        "f.yaml:1: apiVersion: expected text, found the number 1",
        "f.yaml:3: parts.a: missing key 'max_validity'",
        "f.yaml:4: parts.a.max_valdity: unknown key 'max_valdity' (did you mean 'max_validity'?)",
        "f.yaml:5: parts.a.when: expected a date such as 2026-01-31, found 'tomorrow'",
        (
            "f.yaml:6: parts.a.colours[0]: expected 'red' or 'green', found 'gren' "
            "(did you mean 'green'?)"
        ),
        (
            "f.yaml:8: parts.b.max_validity: 90 has no unit, expected a duration such as '90d' or "
            "'1h30m'"
        ),
        "f.yaml:9: parts: key 'b' stands here twice (first in line 7)",
        "f.yaml:10: is_on: expected true or false, found 'no'",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("# nothing\n", "the file is empty", id="comment-only"),
        pytest.param("---\n...\n", "the file is empty", id="document-without-value"),
        pytest.param("null", "the file is empty", id="null"),
        pytest.param("[]", "expected a mapping from keys to values, found a list", id="list"),
        pytest.param("a: b: c", "is not YAML: mapping values are not allowed", id="syntax"),
        pytest.param("a: [1,", "is not YAML", id="cut-off"),
        pytest.param("a: 'x", "is not YAML", id="open-quote"),
        pytest.param("a:\n\t- b", "is not YAML", id="tab"),
        pytest.param("a: \x00", "is not YAML: unacceptable character", id="nul"),
        pytest.param('a: "\\U00110000"', "is not YAML", id="escape-past-unicode"),
        pytest.param('text: "\\ud800"', "cannot be printed", id="lone-surrogate"),
        pytest.param('text: "\\x1b[31m"', "cannot be printed", id="terminal-escape"),
        pytest.param('text: "a\\u202eb"', "cannot be printed", id="bidirectional-override"),
        pytest.param("a: &x 1", "anchor '&x' is not read", id="anchor"),
        pytest.param("a: &x [1]\nb: *x", "alias '*x' is not read", id="alias"),
        pytest.param("<<: {a: 1}", "unknown key '<<'", id="merge-key"),
        pytest.param("a: !!python/object:os.system x", "tag '!!python/object:os.s", id="tag"),
        pytest.param("a: !x y", "tag '!x' is not read", id="own-tag"),
        pytest.param("%YAML 1.1\n---\na: 1", "directives", id="directive"),
        pytest.param("apiVersion: v1\n---\na: 1", "a second document starts", id="two-documents"),
        pytest.param("1: x", "a key is text", id="number-as-key"),
        pytest.param("true: x", "a key is text", id="truth-as-key"),
        pytest.param("? [a]\n: x", "a key is text", id="list-as-key"),
        pytest.param("number: 1234567890123456", "more than 15 digits", id="long-number"),
        pytest.param("a: " + "[" * 30, f"deeper than {MAX_DEPTH} levels", id="deep"),
        pytest.param("- " * 100_000, f"deeper than {MAX_DEPTH} levels", id="deep-and-long"),
        pytest.param(
            "a: [" + "1," * MAX_NODES + "]", f"more than {MAX_NODES} keys and values", id="many"
        ),
        pytest.param("#" * (MAX_TEXT_BYTES + 1), "bytes long, the limit is", id="huge"),
        pytest.param("ü" * (MAX_TEXT_BYTES // 2 + 1), "bytes long, the limit is", id="huge-utf8"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(text: str, fault: str) -> None:
    """No fault of a file raises anything but Faults."""
    assert any(fault in told for told in faults_of(text)), faults_of(text)


def test_the_bomb_of_aliases_stays_small() -> None:
    """Aliases are refused where they stand and never expanded."""
    text = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
    )
    told = faults_of(text)
    assert any("anchor '&a0' is not read" in fault for fault in told)
    assert any("alias '*a0' is not read" in fault for fault in told)


def test_faults_are_bounded() -> None:
    """A hostile file does not make an endless report."""
    with pytest.raises(Faults) as caught:
        load_model("".join(f"k{n}: 1\n" for n in range(2 * MAX_FAULTS)), "f.yaml", Outer)
    assert len(caught.value.faults) == MAX_FAULTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("text: no", "no", id="no-is-a-word"),
        pytest.param("text: 2026-01-31", "2026-01-31", id="date-is-text"),
        pytest.param("text: 1:30", "1:30", id="no-sexagesimal"),
        pytest.param("text: '90'", "90", id="quoted-number"),
        pytest.param("text: 1_000", "1_000", id="no-underscores"),
        pytest.param("text: .inf", ".inf", id="no-infinity"),
        pytest.param("text: 0b1", "0b1", id="no-binary"),
        pytest.param("text: 1e400", "1e400", id="no-three-digit-exponent"),
        pytest.param("text: |\n  a\n  b\n", "a\nb\n", id="block"),
        pytest.param("text:", None, id="nothing"),
        pytest.param("text: ~", None, id="tilde"),
    ],
)
def test_words_stay_words(text: str, expected: str | None) -> None:
    """YAML 1.2, where only true and false are truths and dates are text."""
    assert load_model(text, "f.yaml", Anything)[0].text == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("number: 010", 10, id="no-octal-by-zero"),
        pytest.param("number: 0o10", 8, id="octal"),
        pytest.param("number: 0x1F", 31, id="hexadecimal"),
        pytest.param("number: -5", -5, id="negative"),
        pytest.param("number: 1.5e3", 1500.0, id="float"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, expected: float) -> None:
    """A leading zero means nothing."""
    assert load_model(text, "f.yaml", Anything)[0].number == expected


def test_a_number_is_no_truth_and_a_text_is_no_number() -> None:
    """Nothing is turned into something else."""
    with pytest.raises(Faults) as caught:
        load_model("truth: 1\ntext: 5\nnumber: 'x'\n", "f.yaml", Anything)
    assert [fault.path for fault in caught.value.faults][:2] == ["truth", "text"]
    assert "number" in str(caught.value)


def test_a_cross_check_is_told_together_with_the_rest() -> None:
    """It runs on plain values, also when the model refuses them."""

    def check(values: object) -> Iterator[tuple[KeyPath, str, str | None]]:
        for path, value in values_at(values, "parts", "*", "colours", "*"):
            yield path, f"{value} is out of season", "wait"

    text = "apiVersion: v1\nparts:\n  a:\n    colours: [red]\n    max_validity: 9\n"
    with pytest.raises(Faults) as caught:
        load_model(text, "f.yaml", Outer, cross_check=check)
    told = [str(fault) for fault in caught.value.faults]
    assert told[0] == "f.yaml:4: parts.a.colours[0]: red is out of season (wait)"
    assert "9 has no unit" in told[1]


def test_a_cross_check_alone_refuses_a_file() -> None:
    """A model that validates is not enough."""
    with pytest.raises(Faults, match="not today"):
        load_model(GOOD, "f.yaml", Outer, cross_check=lambda _: [((), "not today", None)])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param((), "", id="top"),
        pytest.param(("a", "b-c", 0), "a.b-c[0]", id="plain"),
        pytest.param(("a", "x.y"), 'a["x.y"]', id="quoted"),
        pytest.param((0, "a"), "[0].a", id="list-first"),
    ],
)
def test_a_path_is_written_as_people_write_it(path: KeyPath, text: str) -> None:
    """Keys with dots in them are quoted."""
    assert path_text(path) == text


HIDDEN = {
    "next-line": "{a: 1,\n# harmless\x85 b: 2\n}\n",
    "line-separator": "{a: 1,\n# harmless\u2028\n}\n",
    "carriage-return": "a: 1\n# harmless\rb: 2\n",
    "right-to-left": "a: 1\n# harmless \u202eb: 2\n",
    "zero-width": "a: 1\n# harm\u200bless\n",
    "no-break-space": "a: 1\n# harmless\u00a0\n",
    "mark-within": "a: 1\n# \ufeff\n",
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_what_a_reviewer_does_not_see_is_refused_in_comments_too(text: str) -> None:
    """Such a character can end a comment for YAML and not for people, or show it otherwise."""
    with pytest.raises(Faults, match="a character that nobody sees stands here, U\\+") as refused:
        load_model(text, "f", Numbers)
    assert refused.value.faults[0].line == 2


@pytest.mark.parametrize(
    "text",
    ["\ufeffa: 1\n# naïve — 日本 🙂\n", "a: 1\r\n# one\r\nb: 2\r\n", "a: 1\n#\tone\n"],
    ids=["letters-and-a-mark-in-front", "crlf", "tab"],
)
def test_what_is_seen_is_read(text: str) -> None:
    """The twin."""
    made, _ = load_model(text, "f", Numbers)
    assert made.a == 1


class Numbers(FileModel):
    """Two numbers."""

    a: int
    b: int | None = None
