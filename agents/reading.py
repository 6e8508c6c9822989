"""Reads tables of a configuration file: each key by its type, all faults together.

Knows neither which keys there are nor where the file lies.  A table that was read is closed, and
closing it tells which keys nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

__all__ = ["ConfigFault", "Table", "parse_duration", "read_address"]

UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds in each unit that a duration may be written in."""

_DURATION: Final = re.compile(r"(?:\d{1,6}(?:ms|[smhdw]))+")
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_PART: Final = re.compile(r"(\d+)(ms|[smhdw])")

Choice = TypeVar("Choice", bound=StrEnum)


class ConfigFault(Exception):
    """The configuration cannot be used; ``faults`` tells all that is wrong, each with its place."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* names, as ``90d`` or ``1h30m``; raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no duration such as '90d', '12h' or '1h30m'")
    return timedelta(seconds=sum(int(n) * UNITS[unit] for n, unit in _PART.findall(text)))


class Table:
    """One table of a file, read key by key.  A key with a fault reads as its default."""

    def __init__(
        self, members: Mapping[str, Any], *, file: str, place: str, faults: list[str]
    ) -> None:
        self._members = members
        self._file = file
        self._place = place
        self._faults = faults
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def fault(self, key: str, sentence: str) -> None:
        """Keep a fault of *key*; an empty key is the table itself."""
        place = ".".join(part for part in (self._place, key) if part)
        self._faults.append(f"{self._file}: {place}: {sentence}" if place else sentence)

    def text(self, key: str, default: str = "", *, is_needed: bool = False) -> str:
        """Return the text of *key*."""
        found = str(self._take(key, str, "text in quotes", default, is_needed=is_needed))
        if is_needed and self._members.get(key) == "":
            self.fault(key, "is empty")
        if "\x00" in found:
            self.fault(key, "holds a NUL")
            return default
        return found

    def texts(self, key: str, *, is_needed: bool = False) -> tuple[str, ...]:
        """Return the list of texts of *key*."""
        found = self._take(key, list, "a list of texts", [], is_needed=is_needed)
        if not all(isinstance(one, str) and one and "\x00" not in one for one in found):
            self.fault(key, "is a list with something else than text in it")
            return ()
        if is_needed and self._members.get(key) == []:
            self.fault(key, "is empty")
        return tuple(found)

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return the count of *key*."""
        found = self._take(key, int, "a number", default)
        if isinstance(found, bool) or not least <= found <= most:
            self.fault(key, f"{found} is not a number from {least} to {most}")
            return default
        return int(found)

    def is_true(self, key: str, *, default: bool) -> bool:
        """Return whether *key* is true."""
        return bool(self._take(key, bool, "true or false", default))

    def duration(self, key: str, default: timedelta) -> timedelta:
        """Return the duration of *key*."""
        return self.optional_duration(key) or default

    def optional_duration(self, key: str) -> timedelta | None:
        """Return the duration of *key*, or None when it is not given."""
        found = self._take(key, str, "a duration in quotes such as '90d'", "")
        if not found:
            return None
        try:
            return parse_duration(found)
        except ValueError as error:
            self.fault(key, str(error))
            return None

    def path(self, key: str, default: str | None = None, *, is_needed: bool = False) -> str | None:
        """Return the absolute path of *key*, without dots or doubled strokes in it."""
        found = self.text(key, default or "", is_needed=is_needed)
        if not found:
            return None
        parts = found.split("/")
        if not found.startswith("/") or "." in parts or ".." in parts:
            self.fault(key, f"{found!r} is no absolute path without dots")
            return default
        return "/" + "/".join(part for part in parts if part)

    def choice(self, key: str, default: Choice) -> Choice:
        """Return the word of *key*, one of those of the default's kind."""
        words = type(default)
        found = self.text(key, str(default))
        try:
            return words(found)
        except ValueError:
            self.fault(key, f"{found!r} is none of {', '.join(str(one) for one in words)}")
            return default

    def table(self, key: str, *, is_needed: bool = False) -> Table:
        """Return the table of *key*, an empty one when it is not given."""
        found = self._take(key, dict, "a table", {}, is_needed=is_needed)
        return self._below(found, key)

    def tables(self, key: str) -> list[Table]:
        """Return the tables of the list of *key*, written as ``[[key]]``."""
        found = self._take(key, list, f"a list of tables, each under [[{key}]]", [])
        if not all(isinstance(one, dict) for one in found):
            self.fault(key, "is a list with something else than tables in it")
            return []
        return [
            self._below(one, f"{key}[{one.get('name', number)}]")
            for number, one in enumerate(found)
        ]

    def close(self) -> None:
        """Report each key that nobody asked for."""
        for key in self._members:
            if key not in self._asked:
                self.fault(key, f"is not known{self._nearest(key)}")

    def _below(self, members: Mapping[str, Any], key: str) -> Table:
        place = f"{self._place}.{key}" if self._place else key
        return Table(members, file=self._file, place=place, faults=self._faults)

    def _nearest(self, key: str) -> str:
        import difflib  # only for a file with a fault, so not kept in the resident process

        found = difflib.get_close_matches(key, sorted(self._asked), 1)
        return f", did you mean {found[0]!r}" if found else ""

    def _take(
        self, key: str, kind: type, meant: str, default: Any, *, is_needed: bool = False
    ) -> Any:
        self._asked.add(key)
        if key not in self._members:
            if is_needed:
                self.fault(key, "is missing")
            return default
        found = self._members[key]
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            self.fault(key, f"is not {meant}")
            return default
        return found


def read_address(table: Table, key: str, text: str) -> tuple[str, int]:
    """Return host and port of a text HOST:PORT; what is none is a fault of the table."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[2]) < 65_536:
        if text:
            table.fault(key, f"{text[:80]!r} is no HOST:PORT")
        return "", 0
    return found[1].strip("[]"), int(found[2])
