"""Strict YAML: text in, a checked model and the line of every key out.

Policy files, the facts about upstreams and the configuration are all read here, so that they
refuse the same things in the same words: a key twice, a key nobody knows, an anchor, a tag, a
number without its unit.  Every fault of a file is reported at once, with its line.  This module
never opens a file: whoever does passes the text and a name for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from broker.policy.faultwords import fault_of
from broker.policy.yamlevents import events_of

__all__ = [
    "MAX_TEXT_BYTES",
    "CrossCheck",
    "Fault",
    "Faults",
    "FileModel",
    "KeyPath",
    "Lines",
    "load_model",
    "path_text",
    "values_at",
]

MAX_TEXT_BYTES: Final = 1024 * 1024
"""Largest text that is read, in bytes.

A policy of 10,000 names measures 400 KiB; a reader that takes 50 MB of anything is a way to
stop the broker.
"""

MAX_DEPTH: Final = 20
"""Deepest nesting that is read, in levels.  Our files need eight; the parser's cost grows with
the square of the depth."""

MAX_NODES: Final = 50_000
"""Most keys and values that are read.  The parser takes about 10 µs for each, so half a second."""

MAX_NUMBER_DIGITS: Final = 15
"""Longest number that is read, in digits: what every JSON reader holds exactly."""

MAX_FAULTS: Final = 100
"""Most faults that are told of one file.  Nobody reads more; a hostile file makes thousands."""

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of a file."""

CrossCheck = Callable[[object], Iterable[tuple[KeyPath, str, str | None]]]
"""Looks at plain values; yields path, message and hint of each fault."""

M = TypeVar("M", bound=BaseModel)

_TAGGED: Final = (CollectionStartEvent, ScalarEvent)

_HIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""What of ASCII is not shown where it stands."""

_BYTE_ORDER_MARK: Final = "\ufeff"
"""Some editors begin a file with it."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# The core schema of YAML 1.2.2 §10.3.2, without infinities and not-a-number.
_CONSTANTS: Final[Mapping[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OTHER_BASE: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII
)


class FileModel(BaseModel):
    """The base of every model that is read from a file: strict, frozen, unknown keys refused."""

    # Built when the first file is read: most commands read one kind of file, and many read none.
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, populate_by_name=True, defer_build=True
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file: where it stands, what it is, and perhaps what was meant."""

    source: str
    line: int
    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}: " + (f"{self.path}: " if self.path else "")
        return place + self.message + (f" ({self.hint})" if self.hint else "")


class Faults(Exception):
    """Everything that is wrong with a file.  Whoever wrote it has to mend it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.source, fault.line)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Lines:
    """The line, from 1, at which each key and list entry of a file stands."""

    __slots__ = ("_lines", "source")

    def __init__(self, source: str, lines: Mapping[KeyPath, int]) -> None:
        self.source = source
        self._lines = lines

    def line(self, path: KeyPath) -> int:
        """Return the line of *path*, or of the nearest key around it that the file has."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def fault(self, path: KeyPath, message: str, hint: str | None = None) -> Fault:
        """Return a fault at *path*, for what a model alone cannot see."""
        return Fault(self.source, self.line(path), path_text(path), message, hint)


def path_text(path: KeyPath) -> str:
    """Return *path* as people write it: ``profiles.server.upstreams[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def load_model(
    text: str, source: str, model: type[M], *, cross_check: CrossCheck | None = None
) -> tuple[M, Lines]:
    """Return the *model* that *text* describes, and the line of every key.

    *source* names the text in faults and does nothing else.  *cross_check* looks at the plain
    values for what no field can see alone, such as a reference to a key that is not there; it
    runs even when the model refuses them, so it must bear values of any shape (``values_at``
    helps).  Scalars follow the core schema of YAML 1.2: ``no`` is a word, ``010`` is ten, a date
    is text until the model says otherwise.

    Raises:
        Faults: All that is wrong, in the order of the lines.
    """
    values, lines, faults = _Reader(source).read(text)
    if cross_check is not None:
        faults += [lines.fault(*found) for found in cross_check(values)]
    try:
        made = model.model_validate_json(json.dumps(values), strict=True, extra="forbid")
    except ValidationError as error:
        # JSON, because strict JSON input still lets text become a date, an enum or a tuple.
        for found in error.errors(include_url=False):
            path, message, hint = fault_of(found, values, model)
            faults.append(lines.fault(path, message, hint))
    else:
        if not faults:
            return made, lines
    raise Faults(list(dict.fromkeys(faults))[:MAX_FAULTS])


def values_at(values: object, *pattern: str) -> Iterator[tuple[KeyPath, object]]:
    """Yield path and value of everything that *pattern* leads to; ``*`` is any key or position.

    A value of another shape than the pattern expects leads nowhere and is no fault here.
    """
    found: list[tuple[KeyPath, object]] = [((), values)]
    for step in pattern:
        inner: list[tuple[KeyPath, object]] = []
        for path, value in found:
            if isinstance(value, Mapping):
                keys = list(value) if step == "*" else [step] if step in value else []
                inner += [((*path, key), value[key]) for key in keys]
            elif isinstance(value, list) and step == "*":
                inner += [((*path, place), entry) for place, entry in enumerate(value)]
        found = inner
    yield from found


class _Reader:
    """Turns the parser's events into plain values, noting lines and faults on the way."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[KeyPath, int] = {(): 1}
        self._faults: list[Fault] = []
        self._events: Iterator[Event] = iter(())
        self._nodes = 0

    def read(self, text: str) -> tuple[Any, Lines, list[Fault]]:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT_BYTES:
            self._stop(1, f"the text is {size} bytes long, the limit is {MAX_TEXT_BYTES} bytes")
        self._events = events_of(text)
        try:
            value = self._document()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._stop(
                mark.line + 1 if mark else 1,
                f"is not YAML: {_sentence(error.problem or error.context)}",
            )
        except (YAMLError, ValueError, OverflowError) as error:
            # ValueError: ruamel.yaml hands an escape such as "\U00110000" to chr() unchecked.
            self._stop(1, f"is not YAML: {_sentence(str(error).partition(chr(10))[0])}")
        self._refuse_hidden(text)
        return value, Lines(self._source, self._lines), self._faults

    def _refuse_hidden(self, text: str) -> None:
        """Refuse what a reviewer does not see, also in comments: a line that only YAML ends, a
        carriage return that sends a terminal back, a text that is shown from right to left."""
        if self._faults:
            return
        found = _HIDDEN.search(text)
        place = -1 if found is None else found.start()
        if place < 0 and not text.isascii():
            hidden = (n for n, c in enumerate(text) if not c.isprintable() and c not in "\t\r\n")
            place = next((n for n in hidden if n > 0 or text[0] != _BYTE_ORDER_MARK), -1)
        if place >= 0:
            line = text.count("\n", 0, place) + 1
            message = f"a character that nobody sees stands here, U+{ord(text[place]):04X}"
            self._faults.append(Fault(self._source, line, "", message, "take it away"))

    def _stop(self, line: int, message: str) -> NoReturn:
        raise Faults([*self._faults, Fault(self._source, line, "", message)])

    def _fault(self, event: Event, path: KeyPath, message: str, hint: str | None = None) -> None:
        self._faults.append(Fault(self._source, _line(event), path_text(path), message, hint))

    def _document(self) -> Any:
        next(self._events)  # start of the stream
        event = next(self._events)
        if isinstance(event, StreamEndEvent):
            self._stop(1, "the file is empty, which allows nothing and is surely not meant")
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            self._fault(event, (), "directives ('%…') are not read")
        value = self._node(next(self._events), (), 0)
        next(self._events)  # end of the document
        behind = next(self._events)
        if not isinstance(behind, StreamEndEvent):
            self._stop(_line(behind), "a second document starts here, expected one a file")
        if value is None:
            self._stop(1, "the file is empty, which allows nothing and is surely not meant")
        return value

    def _node(self, event: Event, path: KeyPath, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH:
            self._stop(_line(event), f"is nested deeper than {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            self._stop(_line(event), f"has more than {MAX_NODES} keys and values")
        self._refuse_sharing(event, path)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path, depth)
        return self._scalar(event, path)

    def _refuse_sharing(self, event: Event, path: KeyPath) -> None:
        if isinstance(event, AliasEvent):
            self._fault(event, path, f"alias '*{event.anchor[:40]}' is not read", "write it out")
        elif isinstance(event, NodeEvent) and event.anchor is not None:
            self._fault(event, path, f"anchor '&{event.anchor[:40]}' is not read", "write it out")
        elif isinstance(event, _TAGGED) and event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")[:40]
            self._fault(event, path, f"tag '{tag}' is not read", "leave it out")

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            # A key that is no text is read as a value, for its faults, and then left out.
            key = self._node(event, path, depth + 1)
            place = (*path, key) if isinstance(key, str) else path
            if isinstance(key, str) and key in made:
                first = self._lines[place]
                self._fault(event, path, f"key '{key}' stands here twice", f"first in line {first}")
                place = path
            elif isinstance(key, str):
                self._lines[place] = _line(event)
                made[key] = None
            else:
                self._fault(event, path, "a key is text, expected quotes around anything else")
            value = self._node(next(self._events), place, depth + 1)
            if place is not path:
                made[key] = value
        return made

    def _sequence(self, path: KeyPath, depth: int) -> list[Any]:
        made: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            place = (*path, len(made))
            self._lines[place] = _line(event)
            made.append(self._node(event, place, depth + 1))
        return made

    def _scalar(self, event: Event, path: KeyPath) -> str | int | float | bool | None:
        if not isinstance(event, ScalarEvent):
            return None
        text: str = event.value
        if not text.isprintable() and not all(c.isprintable() or c in "\n\t" for c in text):
            self._fault(event, path, "holds a character that cannot be printed")
            return ""
        if not event.implicit[0]:  # quoted, or a block
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        is_integer = _INTEGER.fullmatch(text) or _OTHER_BASE.fullmatch(text)
        if not is_integer and not _FLOAT.fullmatch(text):
            return text
        if sum(character.isdigit() for character in text) > MAX_NUMBER_DIGITS:
            self._fault(event, path, f"number of more than {MAX_NUMBER_DIGITS} digits")
            return 0
        if not is_integer:
            return float(text)
        return int(text, 0) if _OTHER_BASE.fullmatch(text) else int(text)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _sentence(text: str | None) -> str:
    return (text or "it cannot be parsed").strip().rstrip(".")[:200]
