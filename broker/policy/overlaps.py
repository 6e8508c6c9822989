"""Whether two patterns with unknown parts can ever speak of one name.

A part that is not known stands for one or more letters of a label, never for a dot.  What is unsure
can: this is asked to find what must not be, so "yes" is the careful answer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.policy.names import Reach

__all__ = ["UNKNOWN", "Loose", "has_common_name", "parse_loose"]

UNKNOWN: Final = "\0"
"""Stands in a text for a part of a label that is not known."""

_REACHES: Final = {"": Reach.EXACT, "*": Reach.ONE, "**": Reach.ANY}


@dataclass(frozen=True, slots=True)
class Loose:
    """A pattern of DNS names, or of something else, with unknown parts."""

    reach: Reach
    labels: tuple[str, ...]
    """The labels below which it reaches; none for ``**`` alone."""
    is_dns: bool = True
    """False: of addresses or e-mail, which are not told apart here."""


def parse_loose(text: str) -> Loose:
    """Return the pattern that *text* stands for, whose form was checked before."""
    text = text.lower()
    if "@" in text or "/" in text or ":" in text or text.replace(".", "").isdigit():
        return Loose(Reach.ANY, (), is_dns=False)
    first, dot, rest = text.partition(".")
    if first not in ("*", "**"):
        return Loose(Reach.EXACT, tuple(text.split(".")))
    return Loose(_REACHES[first], tuple(rest.split(".")) if dot else ())


def has_common_name(one: Loose, other: Loose) -> bool:
    """Return whether there can be a name that both speak of."""
    if not (one.is_dns and other.is_dns):
        return one.is_dns == other.is_dns
    if len(one.labels) > len(other.labels):
        one, other = other, one
    beyond = len(other.labels) - len(one.labels)
    for mine, theirs in zip(reversed(one.labels), reversed(other.labels), strict=False):
        if not _labels_meet(_tokens(mine), _tokens(theirs)):
            return False
    if one.reach is Reach.EXACT:
        return other.reach is Reach.EXACT and not beyond
    longest_is_star = other.reach is not Reach.EXACT
    if one.reach is Reach.ONE:
        return beyond == (0 if longest_is_star else 1)
    return longest_is_star or beyond > 0


def _tokens(label: str) -> tuple[str, ...]:
    """Return letters, ``.`` for any one of them and ``*`` for any number."""
    found: list[str] = []
    for letter in label:
        found += (".", "*") if letter == UNKNOWN else (letter,)
    return tuple(found)


def _labels_meet(one: Sequence[str], other: Sequence[str]) -> bool:
    @functools.cache
    def is_met(i: int, j: int) -> bool:
        if i == len(one) and j == len(other):
            return True
        if i < len(one) and one[i] == "*":
            return is_met(i + 1, j) or (j < len(other) and is_met(i, j + 1))
        if j < len(other) and other[j] == "*":
            return is_met(i, j + 1) or (i < len(one) and is_met(i + 1, j))
        if i == len(one) or j == len(other):
            return False
        return (one[i] == other[j] or "." in (one[i], other[j])) and is_met(i + 1, j + 1)

    return one == other or is_met(0, 0)
