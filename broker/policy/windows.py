"""Windows in which something may be done: days and times of a week, in UTC.

    Mon-Fri 01:00-05:00     five mornings
    Sat,Sun 22:00-04:00     two nights; each ends in the morning after
    01:00-05:00             every day
    Sun 00:00-24:00         a whole day

A text stands for the same moments at every time of the year: UTC knows no summer time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["Window", "is_open", "next_closing", "next_opening", "parse_window", "pulled_into"]

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
"""Days as they are written, in the order of `datetime.weekday`."""

_DAY: Final = timedelta(days=1)
"""From one midnight to the next: UTC has no other days."""

_WINDOW: Final = re.compile(
    r"(?:([A-Za-z,-]+) +)?([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Window:
    """Some hours of some days.  ``ends`` is counted from the same midnight as ``begins`` and lies
    past 24 hours for one that goes on over midnight."""

    days: frozenset[int]
    begins: timedelta
    ends: timedelta

    def spans_around(self, moment: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield its spans from a week before *moment* to a week after, in order."""
        at = moment.astimezone(UTC)
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        for number in range(-8, 9):
            day = midnight + number * _DAY
            if day.weekday() in self.days:
                yield day + self.begins, day + self.ends


def parse_window(text: str) -> Window:
    """Return the window that *text* stands for.

    Raises:
        ValueError: With a sentence for whoever wrote it.
    """
    shown = text[:60]
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"'{shown}' is not a window such as 'Mon-Fri 01:00-05:00' or '22:00-04:00', in UTC"
        )
    begins = _time(match[2], match[3], shown)
    ends = _time(match[4], match[5], shown)
    if begins >= _DAY:
        raise ValueError(f"'{shown}' begins at 24:00, which is 00:00 of the day after")
    if begins == ends:
        raise ValueError(f"'{shown}' has no length; a whole day is 00:00-24:00")
    if ends < begins:
        ends += _DAY
    days = frozenset(range(7)) if match[1] is None else _days(match[1], shown)
    return Window(days, begins, ends)


def _time(hours: str, minutes: str, shown: str) -> timedelta:
    found = timedelta(hours=int(hours), minutes=int(minutes))
    if int(minutes) > 59 or found > _DAY:
        raise ValueError(f"'{shown}' names the time {hours}:{minutes}, expected 00:00 to 24:00")
    return found


def _days(text: str, shown: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first, shown)
        end = _day(last, shown) if dash else begin
        # From Fri to Mon goes over the end of the week.
        days.update((begin + number) % 7 for number in range((end - begin) % 7 + 1))
    return frozenset(days)


def _day(text: str, shown: str) -> int:
    if text not in DAYS:
        raise ValueError(f"'{shown}' names the day '{text}', expected one of {', '.join(DAYS)}")
    return DAYS.index(text)


def is_open(windows: Sequence[Window], moment: datetime) -> bool:
    """Return whether *moment* lies in one of *windows*; where there are none, always."""
    return not windows or any(
        begins <= moment < ends
        for window in windows
        for begins, ends in window.spans_around(moment)
    )


def next_opening(windows: Sequence[Window], moment: datetime) -> datetime:
    """Return when one of *windows* is open at the earliest: *moment* itself, if one is."""
    if is_open(windows, moment):
        return moment
    return min(
        begins for window in windows for begins, _ in window.spans_around(moment) if begins > moment
    )


def pulled_into(
    windows: Sequence[Window], moment: datetime, *, now: datetime, seed: str
) -> datetime:
    """Return *moment*, pulled forward into the last window before it; never later than it was.

    Where in that window is decided by *seed*, so that nodes of one group keep apart.  Where no
    window lies between *now* and *moment*, it stays: what is made then waits for its window.
    """
    if is_open(windows, moment):
        return moment
    spans = [
        (max(begins, now), ends)
        for window in windows
        for begins, ends in window.spans_around(moment)
        if ends <= moment and ends > now
    ]
    if not spans:
        return moment
    begins, ends = max(spans, key=lambda span: span[1])
    return begins + (ends - begins) * _place(seed)


def _place(seed: str) -> float:
    """Return a number from 0 up to 1 that *seed* decides."""
    octets = hashlib.sha256(seed.encode("utf-8")).digest()[:6]
    return int.from_bytes(octets, "big") / (1 << 48)


def next_closing(windows: Sequence[Window], moment: datetime) -> datetime | None:
    """Return when the window that *moment* lies in closes; None where there are no windows."""
    if not windows:
        return None
    return max(
        (
            ends
            for window in windows
            for begins, ends in window.spans_around(moment)
            if begins <= moment < ends
        ),
        default=moment,
    )
