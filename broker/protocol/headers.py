"""The few HTTP headers whose values ACME gives a meaning, read as values.

A peer chose every byte here.  What does not parse is as good as absent: RFC 9110 leaves a
recipient no better choice, and a wrong guess would steer when and whom we ask next.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

MAX_RETRY_AFTER: Final = timedelta(hours=24)
"""Longest wait that a peer may ask for; a CA that says ten years is asked again tomorrow."""

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_CLOCK: Final = r"(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
_DATES: Final = (
    # RFC 9110 §5.6.7: the form to send, and the two obsolete ones that must be read.
    rf"[A-Za-z]{{3}}, (?P<day>\d{{2}}) (?P<month>[A-Za-z]{{3}}) (?P<year>\d{{4}}) {_CLOCK} GMT",
    rf"[A-Za-z]{{6,9}}, (?P<day>\d{{2}})-(?P<month>[A-Za-z]{{3}})-(?P<year>\d{{2}}) {_CLOCK} GMT",
    rf"[A-Za-z]{{3}} (?P<month>[A-Za-z]{{3}}) (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",
)
_DATE_PATTERNS: Final = tuple(re.compile(pattern, re.ASCII) for pattern in _DATES)
_SECONDS: Final = re.compile(r"\d{1,100}", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_LINK: Final = re.compile(
    r"""<(?P<target>[^<>]*+)>(?P<parameters>(?:\s*+;\s*+[\w!#$%&'*+.^`|~-]++\s*+"""
    r"""(?:=\s*+(?:"[^"]*+"|[^\s;,"]*+))?+)*+)""",
    re.ASCII,
)
_RELATION: Final = re.compile(r""";\s*+rel\s*+=\s*+(?:"([^"]*+)"|([^\s;,"]++))""", re.ASCII | re.I)


def parse_retry_after(
    value: str | None, now: datetime, *, limit: timedelta = MAX_RETRY_AFTER
) -> datetime | None:
    """Return the time that a Retry-After header names, at most *limit* from *now*.

    Both forms of RFC 9110 §10.2.3 are read, seconds and date.  A date that has passed means
    *now*.  None for an absent header and for nonsense, negative seconds included.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        # Cut before it becomes a number: nine digits are over thirty years already.
        seconds = int(text) if len(text.lstrip("0")) <= 9 else limit.total_seconds()
        return now + min(timedelta(seconds=seconds), limit)
    moment = parse_http_date(text, now)
    if moment is None:
        return None
    return min(max(moment, now), now + limit)


def parse_http_date(text: str, now: datetime) -> datetime | None:
    """Return the moment that an HTTP date names, or None for anything else.

    *now* decides the century of a year with two digits: one that would lie more than fifty
    years ahead belongs to the past (RFC 9110 §5.6.7).
    """
    match = next((found for p in _DATE_PATTERNS if (found := p.fullmatch(text))), None)
    if match is None or match["month"].lower() not in _MONTHS:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += now.year - now.year % 100
        if year > now.year + 50:
            year -= 100
    try:
        return datetime(
            year,
            _MONTHS.index(match["month"].lower()) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59),  # 60 is a leap second, which datetime cannot hold
            tzinfo=UTC,
        )
    except ValueError:
        return None


def parse_media_type(value: str | None) -> str | None:
    """Return the media type of a Content-Type header in lower case, without parameters."""
    text = (value or "").partition(";")[0].strip()
    return text.lower() if _MEDIA_TYPE.fullmatch(text) else None


def parse_links(values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return (relation, target) of each Link header value (RFC 8288 §3), targets as written."""
    found: list[tuple[str, str]] = []
    for value in values:
        for link in _LINK.finditer(value):
            relation = _RELATION.search(link["parameters"])
            if relation is not None:
                names = (relation[1] or relation[2] or "").lower().split()
                found.extend((name, link["target"]) for name in names)
    return tuple(found)
