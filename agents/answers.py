"""What the broker answered: its members, or the problem that it names.

Knows no connections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.errors import NotKnown, Refused, Unreachable

__all__ = ["Answer", "judge", "printable"]

MAX_RETRY_SECONDS: Final = 900.0
"""Longest wait that the broker can ask for, in seconds: a day's would be an outage."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker answered, with a status below 300."""

    status: int
    body: bytes
    retry_seconds: float | None = None

    def members(self) -> dict[str, Any]:
        """Return the body, which has to be a JSON object; raises Unreachable."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable("the answer is no JSON object: something else answers for the broker")
        return found


def judge(status: int, fields: Mapping[str, str], octets: bytes) -> Answer:
    """Return the answer, or raise what it says: Refused, NotKnown, Unreachable."""
    retry = _retry_seconds(fields.get("retry-after"))
    if 200 <= status < 300:
        return Answer(status, octets, retry)
    type_, detail = _problem(octets)
    if status in (401, 403):
        raise NotKnown(status, type_, detail)
    if status in (408, 425, 429) or status >= 500:
        raise Unreachable(f"answered {status} {type_}: {detail}".rstrip(": "), retry)
    raise Refused(status, type_, detail)


def _problem(octets: bytes) -> tuple[str, str]:
    """Return the last part of a problem's type and its detail, in a length fit for a log."""
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    type_, detail = found.get("type"), found.get("detail")
    last = type_.replace("/", ":").rpartition(":")[2] if isinstance(type_, str) else ""
    return printable(last, 60), printable(detail, 300) if isinstance(detail, str) else ""


def printable(text: str, limit: int) -> str:
    """Return what is fit for a log of the first *limit* characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])


def _retry_seconds(header: str | None) -> float | None:
    if header is None or not (header.isascii() and header.isdigit() and len(header) < 10):
        return None
    return min(float(header), MAX_RETRY_SECONDS)
