"""What a parser of YAML says of a text, in values that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import Event

__all__ = ["told", "told_by_ruamel"]


def told_by_ruamel(text: str) -> list[tuple[Any, ...]]:
    """Return what ruamel.yaml says."""
    return told(YAML(typ="safe", pure=True).parse, text)


def told(events_of: Callable[[str], Iterable[Event]], text: str) -> list[tuple[Any, ...]]:
    """Return every event with its places, and how it ended."""
    found: list[tuple[Any, ...]] = []
    try:
        found += (_facts(event) for event in events_of(text))
    except MarkedYAMLError as error:
        marks = (error.problem_mark, error.context_mark)
        found.append((error.problem, error.context, *(mark and mark.line for mark in marks)))
    except (YAMLError, ValueError, OverflowError) as error:
        found.append((type(error).__name__, str(error)))
    return found


def _facts(event: Event) -> tuple[Any, ...]:
    places = [(mark.line, mark.column, mark.index) for mark in (event.start_mark, event.end_mark)]
    more = [str(getattr(event, name, None)) for name in ("value", "implicit", "tag", "anchor")]
    return (type(event).__name__, *places, *more)
