"""An object that a peer sent, read member by member with its types checked.

Every reader raises `ProtocolError` with the path of the member and what was
expected there, so that an operator can show the sentence to the CA's people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from broker.protocol.encoding import parse_timestamp
from broker.protocol.problems import printable

MAX_URL_CHARS: Final = 2048
"""Longest URL that is read from a peer, in characters."""

MAX_LIST_ITEMS: Final = 1000
"""Longest list that is read from a peer, in items: ten times our largest order."""

_URL: Final = re.compile(r"https?://[\x21-\x7e]+", re.ASCII)
_T = TypeVar("_T")
_S = TypeVar("_S", bound=StrEnum)


class ProtocolError(ValueError):
    """A peer broke the protocol; says which member and what was expected."""


class Members:
    """The members of a peer's object, read one by one with their types checked."""

    def __init__(self, obj: object, what: str) -> None:
        if not isinstance(obj, Mapping):
            raise ProtocolError(f"{what}: expected an object")
        self._obj: Mapping[str, Any] = obj
        self._what = what

    def optional(self, name: str, read: Callable[[Any], _T]) -> _T | None:
        """Return a member or None; JSON null counts as absent, as Go servers write it."""
        value = self._obj.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise ProtocolError(f"{self._what}.{name}: {error}") from error

    def required(self, name: str, read: Callable[[Any], _T]) -> _T:
        """Return a member that must be there."""
        value = self.optional(name, read)
        if value is None:
            raise ProtocolError(f"{self._what}.{name}: is missing")
        return value


def read_text(value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def read_flag(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def read_url(value: Any) -> str:
    """Return an absolute URL of http or https."""
    if not isinstance(value, str) or len(value) > MAX_URL_CHARS or not _URL.fullmatch(value):
        raise ValueError("expected an absolute http or https URL")
    return value


def read_time(value: Any) -> datetime:
    """Return an RFC 3339 time in UTC."""
    return parse_timestamp(read_text(value))


def read_word(kind: type[_S]) -> Callable[[Any], _S]:
    """Return a reader of the words of *kind*."""

    def read(value: Any) -> _S:
        try:
            return kind(read_text(value))
        except ValueError:
            raise ValueError("expected one of " + ", ".join(kind)) from None

    return read


def read_list(read: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...]]:
    """Return a reader of lists whose items *read* reads."""

    def read_all(value: Any) -> tuple[_T, ...]:
        if not isinstance(value, list) or len(value) > MAX_LIST_ITEMS:
            raise ValueError(f"expected a list of at most {MAX_LIST_ITEMS} items")
        return tuple(read(item) for item in value)

    return read_all


def read_texts_by_name(value: Any) -> dict[str, str]:
    """Return an object whose members are all strings."""
    if not isinstance(value, Mapping):
        raise ValueError("expected an object")
    return {printable(name, 256): read_text(text) for name, text in value.items()}


def read_object(value: Any) -> dict[str, Any]:
    """Return an object as it is."""
    if not isinstance(value, Mapping):
        raise ValueError("expected an object")
    return dict(value)
