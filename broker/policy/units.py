"""Durations, sizes and rates as people write them: a number never stands without its unit.

``Duration``, ``Size`` and ``Rate`` are for the models of ``yamlfile``: the file says ``"90d"`` or
``"64KiB"``, the model holds a ``timedelta`` or a count of bytes.  Nothing here knows what
a duration is for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

__all__ = [
    "MAX_DURATION",
    "Duration",
    "Rate",
    "RateText",
    "Size",
    "format_duration",
    "format_rate",
    "format_size",
    "parse_duration",
    "parse_rate",
    "parse_size",
]

MAX_DURATION: Final = timedelta(days=36_500)
"""Longest duration that is read: a century of days.

Past it, adding to today's date would come near the year 9999, where dates end.
"""

_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_DURATION: Final = (
    r"(?=[0-9])(?:([0-9]{1,9})w)?(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?"
    r"(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)
_DURATION_RE: Final = re.compile(_DURATION, re.ASCII)

_SIZES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE: Final = r"([0-9]{1,9})(B|KiB|MiB|GiB)"
_SIZE_RE: Final = re.compile(_SIZE, re.ASCII)


OFF: Final = "off"
"""How a rate says that there is no limit."""

_RATE: Final = r"([1-9][0-9]{0,8})/(.+)"
_RATE_RE: Final = re.compile(_RATE, re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may happen: ``count`` times at once, and as often again in ``period``."""

    count: int
    period: timedelta


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* such as ``90d12h30m`` stands for.

    Units are w, d, h, m, s and ms, the larger before the smaller, each at most once.

    Raises:
        ValueError: If it has no unit, an unknown one, is zero, or is longer than
            ``MAX_DURATION``; with a sentence for whoever wrote it.
    """
    match = _DURATION_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:40]}' is not a duration such as '90d' or '1h30m'")
    parts = zip(match.groups(), _UNITS.values(), strict=True)
    try:
        total = sum((int(count) * unit for count, unit in parts if count), timedelta())
    except OverflowError:
        total = timedelta.max
    if not total:
        raise ValueError(f"'{text}' is zero, expected a duration longer than that")
    if total > MAX_DURATION:
        raise ValueError(f"'{text}' is longer than {MAX_DURATION.days}d, the longest that is read")
    return total


def format_duration(duration: timedelta) -> str:
    """Return *duration* as ``parse_duration`` reads it, in days at most: ``90d12h30m``.

    What is finer than a millisecond is cut; zero is ``0s`` and a negative one has a minus in
    front, which only people read.
    """
    if duration < timedelta():
        return "-" + format_duration(-duration)
    rest = duration
    text = ""
    for unit, length in _UNITS.items():
        if unit != "w":
            count, rest = divmod(rest, length)
            text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """Return the number of bytes that *text* such as ``64KiB`` stands for.

    Raises:
        ValueError: If it has no unit, an unknown one, or is zero; with a sentence for whoever
            wrote it.
    """
    match = _SIZE_RE.fullmatch(text)
    if match is None:
        units = ", ".join(_SIZES)
        raise ValueError(f"'{text[:40]}' is not a size such as '64KiB'; units are {units}")
    size = int(match[1]) * _SIZES[match[2]]
    if not size:
        raise ValueError(f"'{text}' is zero, expected a size larger than that")
    return size


def format_size(size: int) -> str:
    """Return *size* in bytes as ``parse_size`` reads it, in the largest unit that fits exactly."""
    unit = next(unit for unit in reversed(_SIZES) if size % _SIZES[unit] == 0)
    return f"{size // _SIZES[unit]}{unit}"


def parse_rate(text: str) -> Rate | None:
    """Return the rate that *text* such as ``600/1m`` stands for; None for ``off``.

    Raises:
        ValueError: If it is neither; with a sentence for whoever wrote it.
    """
    if text == OFF:
        return None
    match = _RATE_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:40]}' is not a rate such as '600/1m', nor 'off'")
    return Rate(int(match[1]), parse_duration(match[2]))


def format_rate(rate: Rate | None) -> str:
    """Return *rate* as ``parse_rate`` reads it."""
    return OFF if rate is None else f"{rate.count}/{format_duration(rate.period)}"


def _read_rate(value: object) -> Rate | None:
    if value is None or isinstance(value, Rate):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a rate such as '600/1m', or 'off' in quotes")
    return parse_rate(value)


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit, expected a duration such as '{value}d' or '1h30m'")
    if not isinstance(value, str):
        raise ValueError("expected a duration such as '90d' or '1h30m'")
    return parse_duration(value)


def _read_size(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit, expected a size such as '{value}KiB'")
    if not isinstance(value, str):
        raise ValueError("expected a size such as '64KiB'")
    return parse_size(value)


Duration = Annotated[
    timedelta,
    PlainValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["90d", "1h30m"]}),
]
"""A positive duration with its unit, for models of ``yamlfile``."""

Size = Annotated[
    int,
    PlainValidator(_read_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE}$", "examples": ["64KiB"]}),
]
"""A positive number of bytes with its unit, for models of ``yamlfile``."""

RateText = Annotated[
    Rate | None,
    PlainValidator(_read_rate),
    PlainSerializer(format_rate, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["600/1m", OFF]}),
]
"""How often something may happen, or ``off``, for models of ``yamlfile``."""
