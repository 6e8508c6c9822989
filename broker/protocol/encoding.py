"""The encodings ACME is written in, read strictly: JSON, base64url, RFC 3339 times.

Each of the three has lenient readers everywhere, and each leniency has been
somebody's vulnerability: two parties that read the same bytes differently sign
one thing and do another.  Here a text has one meaning or is refused.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from broker.protocol.problems import Problem, ProblemType, printable

MAX_JSON_DEPTH: Final = 32
"""Deepest nesting of JSON that is read, in levels.  ACME objects need six."""

MAX_NUMBER_CHARS: Final = 32
"""Longest JSON number that is read, in characters.

ACME's only numbers are revocation reasons and statuses.  Converting long digit
strings takes quadratic time (CVE-2020-10735).
"""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
# The closing quote is optional: an unterminated string is then consumed to the end
# at once, instead of being tried again from every later quote in quadratic time.
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def is_base64url(text: str) -> bool:
    """Return whether *text* is non-empty and made of the base64url alphabet alone."""
    return text != "" and _BASE64URL.fullmatch(text) is not None


def encode_base64url(data: bytes) -> str:
    """Return *data* in base64url without padding (RFC 8555 §6.1)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_base64url(text: str) -> bytes:
    """Return the octets of a canonical, unpadded base64url text.

    RFC 8555 §6.1 refuses padding.  Unused bits that are not zero are refused as
    well: otherwise several texts would stand for the same octets.

    Raises:
        ValueError: With a sentence saying what is wrong.
    """
    if "=" in text:
        raise ValueError("is padded base64url, expected base64url without '='")
    if _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        raise ValueError("is not base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # Four characters are three octets, whatever they are; only a shorter end has unused bits.
    end = len(text) % 4
    if end and encode_base64url(data[1 - end :]) != text[-end:]:
        raise ValueError("is not canonical base64url: the unused bits of its end are not zero")
    return data


def parse_json_object(data: bytes, *, what: str = "JSON") -> dict[str, Any]:
    """Return the one JSON object that *data* is, read strictly.

    UTF-8 without byte order mark, no member twice, no NaN or infinity, no lone
    surrogate, nothing behind the object, nesting and numbers bounded.

    Raises:
        Problem: malformed, naming what is wrong.  Tell the client.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"{what} is not UTF-8 at byte {error.start}")
    if text.startswith("\ufeff"):
        _refuse(f"{what} starts with a byte order mark")
    # Most texts have fewer brackets than may be nested, and need not be looked through.
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH and _depth(data) > MAX_JSON_DEPTH:
        _refuse(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _refuse(f"{what} does not parse at character {error.pos}: {error.msg.lower()}")
    except _BadJsonError as error:
        _refuse(f"{what} {error}")
    if not isinstance(value, dict):
        _refuse(f"{what} is not an object")
    if "\\u" in text and _has_lone_surrogate(value):
        # UTF-8 itself has none: only an escape can bring one in.
        _refuse(f"{what} has a lone surrogate in a string")
    return value


def _has_lone_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


class _BadJsonError(Exception):
    """What is wrong with a JSON text that the standard reader would let through."""


def _refuse(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise _BadJsonError(f"has the member '{printable(twice, 64)}' twice")
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise _BadJsonError(f"has a number longer than {MAX_NUMBER_CHARS} characters")
    return int(text)


def _number(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS:
        raise _BadJsonError(f"has a number longer than {MAX_NUMBER_CHARS} characters")
    value = float(text)
    if not math.isfinite(value):
        raise _BadJsonError("has a number beyond the range of a double")
    return value


def _constant(text: str) -> NoReturn:
    raise _BadJsonError(f"has {text}, which is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_constant,
)


def format_timestamp(moment: datetime) -> str:
    """Return *moment* as RFC 3339 in UTC with a Z and whole seconds.

    Raises:
        ValueError: If *moment* has no time zone; that is our bug.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone cannot be written")
    utc = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return utc.isoformat(timespec="seconds") + "Z"


def parse_timestamp(text: str) -> datetime:
    """Return the moment an RFC 3339 text names, in UTC, cut to whole seconds.

    Raises:
        ValueError: If *text* is no RFC 3339 date-time.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("is not an RFC 3339 time such as 2026-01-31T12:00:00Z")
    date, clock, zone = match.groups()
    offset = "+00:00" if zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{date}T{clock}{offset}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not an RFC 3339 time that exists") from error
