"""Renewal information (RFC 9773): identifiers of certificates, and windows as arithmetic.

Serves both of our sides.  It knows no clock: moments come as arguments.  What a window is made of
beyond the certificate (policy, retirement, what the CA said) is put together in ``issuance``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from broker.protocol.encoding import format_timestamp, parse_base64url
from broker.protocol.members import Members, ProtocolError, read_text, read_time, read_url
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = [
    "DEFAULT_RENEW_AT",
    "LONGEST_POLL",
    "SHORTEST_POLL",
    "RenewalInfo",
    "RenewalWindow",
    "latest_end",
    "own_window",
    "parse_cert_id",
    "poll_at",
    "pulled_before",
    "window_past",
]

MAX_CERT_ID_CHARS: Final = 256
"""Longest CertID that is read, in characters; a SHA-1 key id with a long serial takes 56."""

MAX_KEY_ID_BYTES: Final = 64
"""Longest authority key identifier, in bytes: no hash that CAs build one from is longer."""

MAX_SERIAL_BYTES: Final = 21
"""Longest serial number in bytes: 20 (RFC 5280 §4.1.2.2) and the zero that keeps it positive."""

DEFAULT_RENEW_AT: Final = 2 / 3
"""Share of a lifetime after which its renewal is suggested where nobody says otherwise.

A third is left for whatever goes wrong: 30 of 90 days, two of six, 16 of 47.
"""

SPREAD_SHARE: Final = 1 / 10
"""Share of a lifetime over which windows of one age are spread: a thousand certificates that were
made in one night come back over nine days of their ninety, not in one night."""

WIDTH_SHARE: Final = 1 / 50
"""Width of a window as a share of the lifetime: 43 hours of 90 days, wide enough for clients that
wake twice a day."""

LAST_SHARE: Final = 1 / 20
"""Share of the lifetime that a window always leaves before the end, whoever named it."""

SHORTEST_WINDOW: Final = timedelta(seconds=1)
"""Shortest window that is told: timestamps have whole seconds, and an end that equals its start
is no window (RFC 9773 §4.2)."""

WIDEST_PULLED: Final = timedelta(days=30)
"""Widest that a window stays when it is moved: a month is room enough, and a CA that named the
whole calendar must not carry its start before the beginning of it."""

SHORTEST_POLL: Final = timedelta(minutes=1)
"""Soonest that a window is asked for again, whatever the CA says (RFC 9773 §4.3.2)."""

LONGEST_POLL: Final = timedelta(days=1)
"""Latest that a window is asked for again, whatever the CA says (RFC 9773 §4.3.2)."""

_CERT_ID: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)


def parse_cert_id(text: str) -> str:
    """Return *text*, proven to be the one spelling of a CertID (RFC 9773 §4.1).

    Two parts of unpadded base64url that decode without leftover bits; the second the content of
    a DER INTEGER that is positive and has no octet too many.

    Raises:
        Problem: malformed.  Tell the client.
    """
    match = _CERT_ID.fullmatch(text) if len(text) <= MAX_CERT_ID_CHARS else None
    if match is None:
        raise _malformed(text, "expected two parts of base64url with a dot between")
    try:
        key_id, serial = (parse_base64url(part) for part in match.groups())
    except ValueError as error:
        raise _malformed(text, str(error)) from None
    if len(key_id) > MAX_KEY_ID_BYTES:
        raise _malformed(text, f"its key identifier has more than {MAX_KEY_ID_BYTES} bytes")
    if len(serial) > MAX_SERIAL_BYTES:
        raise _malformed(text, f"its serial has more than {MAX_SERIAL_BYTES} bytes")
    if serial[0] & 0x80 or serial == b"\x00":
        raise _malformed(text, "its serial is not positive")
    if serial[0] == 0 and not serial[1] & 0x80:
        raise _malformed(text, "its serial has a zero too many, so it is not DER")
    return text


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """The time in which a certificate should be renewed; its end lies after its start."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"window ends {self.end}, not after its start {self.start}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalInfo:
    """The RenewalInfo object (RFC 9773 §4.2)."""

    window: RenewalWindow
    explanation_url: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the object, its times in whole seconds."""
        start = format_timestamp(self.window.start)
        end = format_timestamp(max(self.window.end, self.window.start + SHORTEST_WINDOW))
        document: dict[str, object] = {"suggestedWindow": {"start": start, "end": end}}
        if self.explanation_url is not None:
            document["explanationURL"] = self.explanation_url
        return document

    @classmethod
    def from_json(cls, obj: object) -> RenewalInfo:
        """Read what a CA sends.

        Raises:
            ProtocolError: A time is missing or none, or the window has no length.
        """
        members = Members(obj, "renewalInfo")
        window = members.required("suggestedWindow", _read_window)
        # The page is for people, so one that cannot be read is only left out.
        return cls(window=window, explanation_url=members.optional("explanationURL", _read_page))


def own_window(
    not_before: datetime, end: datetime, *, seed: str, renew_at: float = DEFAULT_RENEW_AT
) -> RenewalWindow:
    """Return the window for a certificate that is good from *not_before* to *end*.

    It lies around the share *renew_at* of that time, at a place that *seed* alone decides: the
    same for every question, another for every certificate.
    """
    lifetime = max(end - not_before, SHORTEST_WINDOW * 2)
    width = max(lifetime * WIDTH_SHARE, SHORTEST_WINDOW)
    room = max(lifetime * SPREAD_SHARE - width, timedelta())
    start = not_before + lifetime * renew_at - (room + width) / 2 + room * _place(seed)
    return pulled_before(RenewalWindow(start, start + width), latest_end(not_before, end))


def latest_end(not_before: datetime, end: datetime) -> datetime:
    """Return the latest end of any window for a certificate good from *not_before* to *end*."""
    return end - (end - not_before) * LAST_SHARE


def pulled_before(window: RenewalWindow, limit: datetime) -> RenewalWindow:
    """Return *window*, moved earlier as a whole so far that it ends at *limit* or before."""
    if window.end <= limit:
        return window
    width = min(window.end - window.start, WIDEST_PULLED)
    return RenewalWindow(min(window.start, limit - width), limit)


def window_past(moment: datetime) -> RenewalWindow:
    """Return a window that is over by *moment*: renew at once."""
    return RenewalWindow(moment - timedelta(hours=1), moment)


def poll_at(now: datetime, named: datetime | None) -> datetime | None:
    """Return when to ask again after an answer that named *named*, within the bounds; None
    for an answer that names no time, which counts as a long-term error (RFC 9773 §4.3.3)."""
    if named is None:
        return None
    return min(max(named, now + SHORTEST_POLL), now + LONGEST_POLL)


def _place(seed: str) -> float:
    """Return a number from 0 to 1 that *seed* decides, evenly over all seeds."""
    octets = hashlib.sha256(seed.encode("utf-8")).digest()[:6]
    return int.from_bytes(octets, "big") / (1 << 48)


def _read_window(value: Any) -> RenewalWindow:
    members = Members(value, "suggestedWindow")
    start, end = members.required("start", read_time), members.required("end", read_time)
    try:
        return RenewalWindow(start, end)
    except ValueError:
        raise ProtocolError("suggestedWindow ends before it begins") from None


def _read_page(value: Any) -> str | None:
    try:
        return read_url(read_text(value))
    except (ProtocolError, ValueError, TypeError):
        return None


def _malformed(text: str, why: str) -> Problem:
    return Problem(
        ProblemType.MALFORMED,
        f"'{printable(text, 80)}' is no certificate identifier of RFC 9773 §4.1: {why}",
    )
