"""One line an event to standard error, as text or JSON.

The sentence is constant and what varies stands in fields.  No key, token or CSR is ever a field.
"""

from __future__ import annotations

import json
import sys
import threading
from enum import StrEnum
from typing import Any, Final, TextIO

from agents.clock import Clock

__all__ = ["Log", "LogFormat"]

MAX_FIELD_CHARS: Final = 500
"""Longest value of a field, in characters: what a program said may be megabytes."""


class LogFormat(StrEnum):
    """AUTO is text on a terminal and JSON elsewhere, as journals and clusters want it."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class Log:
    """Writes events."""

    def __init__(
        self, clock: Clock, *, format_: LogFormat = LogFormat.AUTO, to: TextIO | None = None
    ) -> None:
        self._clock = clock
        self._to = sys.stderr if to is None else to
        is_terminal = format_ is LogFormat.AUTO and self._to.isatty()
        self._is_json = not (is_terminal or format_ is LogFormat.TEXT)
        self._lock = threading.Lock()

    def info(self, event: str, **fields: Any) -> None:
        """Tell what happened."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Tell what went wrong and is tried again."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Tell what somebody has to look at."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        at = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        told = {name: _told(value) for name, value in fields.items() if value is not None}
        if self._is_json:
            line = json.dumps({"ts": at, "level": level, "event": event, **told})
        else:
            pairs = "".join(f" {name}={_quoted(value)}" for name, value in told.items())
            line = f"{at} {level:<7} {event}{pairs}"
        with self._lock:
            try:
                self._to.write(line + "\n")
                self._to.flush()
            except (OSError, ValueError):
                pass  # whoever read the log is gone, and the certificates are not to suffer by it


def _told(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_FIELD_CHARS else text[:MAX_FIELD_CHARS] + "…"


def _quoted(value: Any) -> str:
    text = str(value)
    is_plain = text.isprintable() and " " not in text and '"' not in text and text
    return text if is_plain else json.dumps(text)
