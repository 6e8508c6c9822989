"""The expression language of rules: CEL, typed, with no way out and a bound on what it costs.

The Common Expression Language has no loops but over what is in the order, no functions of its
author's, no input and no output.  An expression is checked against the types of its variables
when its file is read; evaluated, it is true or false, or it failed, and then whoever asked has to
refuse.  What could make a value grow is left out, and what takes long is counted beforehand
(docs/adr/0026).  The engine is loaded only if some rule has an expression.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

__all__ = ["VARIABLES", "Expression", "ExpressionError"]

VARIABLES: Final[Mapping[str, str]] = {
    "names": "list<string>",
    "profile": "string",
    "account": "string",
    "eab": "string",
    "node": "string",
    "kube_cluster": "string",
    "kube_namespace": "string",
    "kube_service_account": "string",
    "attestation": "string",
    "address": "string",
    "owner": "string",
    "client_fingerprint": "string",
    "client_names": "list<string>",
    "is_renewal": "bool",
    "at": "timestamp",
}
"""What an expression may look at, and its type.  What there is none of is empty."""

NAME: Final = "name"
"""The variable of an expression that is asked about each name of an order apart."""

MAX_TURNS: Final = 10_000
"""Most turns that an expression may take over an order of a hundred names: two of its loops in
each other, or one for an expression that is asked about each name.  The engine stops at as many."""

MAX_TURNS_MATCHING: Final = 100
"""Most turns of an expression that matches a regular expression, which takes about 0.3 ms."""

MAX_MATCHES: Final = 5
"""Most regular expressions in one expression."""

MAX_PATTERN_CHARS: Final = 200
"""Longest regular expression, in characters, as it stands in quotes."""

MAX_REPEATS: Final = 64
"""Largest counted repetition in a regular expression, which may have one: they multiply, and what
comes of them is worked through at every match."""

MAX_LISTS: Final = 10
"""Most mentions of lists: comparing lists of lists costs what all of them hold."""

MAX_COMPILED: Final = 10_000
"""Most expressions that are kept compiled."""

NAMES_OF_AN_ORDER: Final = 100
"""Most names of an order (``protocol.requests``)."""

_ENVIRONMENT: Final = """
name: rules
stdlib:
  exclude_macros: [map, filter, has]
  exclude_functions:
    - {name: _+_, overloads: [{id: add_string}, {id: add_list}, {id: add_bytes}]}
    - {name: dyn}
    - {name: type}
    - {name: bytes}
variables:
"""
# Without growing values and without dynamic types nothing costs more than its turns.

_STRING: Final = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'")
_ODD_STRING: Final = re.compile(r"\"\"\"|'''|(?<![A-Za-z0-9_])[rRbB]{1,2}[\"']")
_ANY_STRING: Final = re.compile(f"(?P<odd>{_ODD_STRING.pattern})|{_STRING.pattern}")
_LOOP: Final = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne)\s*\(")
_LISTS: Final = re.compile(r"\b(?:names|client_names)\b")
_MATCHES: Final = re.compile(r"\bmatches\b")
_RIGHT_MATCHES: Final = re.compile(r"\.\s*matches\s*\(\s*\"\"\s*\)")
_MATCHED: Final = re.compile(
    r"\.\s*matches\s*\(\s*(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')\s*\)"
)
_REPEAT: Final = re.compile(r"\{([0-9]*),?([0-9]*)\}")
_ONE_NAME: Final = re.compile(r"(?<![.\w])name\b")
_TOLD: Final = re.compile(r"ERROR: <input>:([0-9]+):([0-9]+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")


class ExpressionError(Exception):
    """An expression could not be evaluated: refuse."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was checked; ``parse`` makes them."""

    text: str
    is_about_one_name: bool

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Return the expression that *text* stands for.

        Raises:
            ValueError: It cannot be read, its types do not fit, it is not true or false, or it
                could cost too much; with a sentence for whoever wrote it.
        """
        _check_cost(text)
        _compiled(text)
        return cls(text, _is_about_one_name(text))

    def is_true(self, variables: Mapping[str, Any]) -> bool:
        """Return whether it is true of *variables*, which are those of ``VARIABLES``.

        Raises:
            ExpressionError: It failed, or cost too much.
        """
        try:
            found = _compiled(self.text).eval(data=variables)
            value = found.value()
        except (RuntimeError, TypeError, ValueError) as error:
            raise ExpressionError(_first_line(error)) from error
        if not isinstance(value, bool):
            raise ExpressionError(_first_line(value))
        return value


@cache
def _engine() -> Any:
    """Return the module of the engine.

    Raises:
        ValueError: It is not installed.
    """
    try:
        from cel_expr_python import cel  # type: ignore[import-untyped]  # it has no py.typed
    except ImportError as error:
        raise ValueError(
            "an expression needs the engine of CEL, expected penstock[cel] to be installed"
        ) from error
    return cel


@cache
def _environment() -> Any:
    cel = _engine()
    variables = {**VARIABLES, NAME: "string"}
    listed = "".join(
        f'  - {{name: "{name}", type: "{kind}"}}\n' for name, kind in variables.items()
    )
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_ENVIRONMENT + listed))


@lru_cache(maxsize=MAX_COMPILED)
def _compiled(text: str) -> Any:
    """Return the program of *text*; raises ValueError for what is not an expression."""
    try:
        made = _environment().compile(text)
    except RuntimeError as error:
        raise ValueError(_told(str(error))) from error
    if made.return_type().name() != "BOOL":
        kind = made.return_type().name().lower()
        raise ValueError(f"expression is of type {kind}, expected one that is true or false")
    return made


# -------------------------------------------------------------------------------------------- cost


def _check_cost(text: str) -> None:
    """Refuse an expression that could take long, by its text alone.

    Raises:
        ValueError: With a sentence for whoever wrote it.
    """
    if any(found["odd"] for found in _ANY_STRING.finditer(text)):
        raise ValueError("expression has a raw, byte or triple-quoted text, expected plain quotes")
    bare = _STRING.sub('""', text)
    if "//" in bare:
        raise ValueError("expression has a comment, which belongs into 'because'")
    turns = NAMES_OF_AN_ORDER ** _depth_of_loops(bare)
    if _is_about_one_name(text):
        turns *= NAMES_OF_AN_ORDER
    if turns > MAX_TURNS:
        raise ValueError(
            f"expression may take {turns} turns over an order of {NAMES_OF_AN_ORDER} names, the "
            f"limit is {MAX_TURNS}: expected fewer loops in each other"
        )
    mentions = len(_LISTS.findall(bare))
    if mentions > MAX_LISTS:
        raise ValueError(f"expression mentions lists {mentions} times, the limit is {MAX_LISTS}")
    _check_matches(text, bare, turns)


def _check_matches(text: str, bare: str, turns: int) -> None:
    used = len(_MATCHES.findall(bare))
    if not used:
        return
    if used > MAX_MATCHES or turns > MAX_TURNS_MATCHING:
        raise ValueError(
            f"expression matches {used} regular expressions in up to {turns} turns, the limits "
            f"are {MAX_MATCHES} and {MAX_TURNS_MATCHING}: expected name patterns instead"
        )
    literals = _MATCHED.findall(text)
    if len(_RIGHT_MATCHES.findall(bare)) != used or len(literals) != used:
        raise ValueError("expected matches('…') with a text that is written out")
    for literal in literals:
        repeats = [int(number) for pair in _REPEAT.findall(literal) for number in pair if number]
        is_long = len(literal) > MAX_PATTERN_CHARS or max(repeats, default=0) > MAX_REPEATS
        if is_long or literal.count("{") > 1:
            raise ValueError(
                f"regular expression {literal[:40]} is too costly: expected at most "
                f"{MAX_PATTERN_CHARS} characters and one repetition of at most {MAX_REPEATS}"
            )
        try:
            Expression(f'"".matches({literal})', is_about_one_name=False).is_true({})
        except ExpressionError as error:
            raise ValueError(f"regular expression {literal[:40]}: {error}") from error


def _depth_of_loops(bare: str) -> int:
    """Return how many loops stand in each other at most."""
    opening = {match.end() - 1 for match in _LOOP.finditer(bare)}
    deepest, open_parentheses = 0, list[bool]()
    for place, character in enumerate(bare):
        if character == "(":
            open_parentheses.append(place in opening)
            deepest = max(deepest, sum(open_parentheses))
        elif character == ")" and open_parentheses:
            open_parentheses.pop()
    return deepest


def _is_about_one_name(text: str) -> bool:
    return _ONE_NAME.search(_STRING.sub('""', text)) is not None


# ------------------------------------------------------------------------------------------- words


def _told(message: str) -> str:
    """Return what the engine says about an expression, for whoever wrote it."""
    found = _TOLD.search(message)
    if found is None:
        return f"expression cannot be read: {_first_line(message)}"
    what = found[3].partition(" (in container")[0].rstrip()
    told = f"expression, line {found[1]}, column {found[2]}: {what}"
    undeclared = _UNDECLARED.search(what)
    if undeclared is not None:
        near = difflib.get_close_matches(undeclared[1], [*VARIABLES, NAME], n=1)
        known = (
            f"did you mean '{near[0]}'?" if near else f"known are {NAME}, {', '.join(VARIABLES)}"
        )
        told += f" ({known})"
    return told


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0][:200]
