"""Entries as syslog messages (RFC 5424), framed by their length (RFC 5425 §4.3).  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.audit.feeding import Entry
from broker.issuance.audit_chain import canonical
from broker.protocol.problems import printable

__all__ = ["SyslogForm", "frame", "message_of"]

INFORMATIONAL: Final = 6
"""Severity of what went as it should (RFC 5424 §6.2.1)."""

NOTICE: Final = 5
"""Severity of a checkpoint, and of what somebody refused or took back."""

WARNING: Final = 4
"""Severity of what a person may have to look at."""

NOTICED: Final = ("refused", "denied", "revoked", "cancelled", "withdrawn", "checkpoint")
WARNED: Final = ("withheld", "lost", "failed", "late", "overdue", "suspended", "restored", "halted")
"""Words in the name of an event that say so."""

MAX_MSGID_CHARS: Final = 32
"""Longest MSGID, in characters (RFC 5424 §6)."""

MAX_HOSTNAME_CHARS: Final = 255
"""Longest HOSTNAME, in characters (RFC 5424 §6)."""

MAX_VALUE_CHARS: Final = 255
"""Longest value of a parameter of ours, in characters; the whole of it is in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogForm:
    """What stays the same in every message."""

    hostname: str
    process: str
    facility: int
    enterprise: int
    """Private enterprise number in the name of the structured data."""
    max_bytes: int
    """Longest message, in bytes; in a longer one the event's data is left out."""


def message_of(entry: Entry, form: SyslogForm) -> bytes:
    """Return one message: the record's marks as structured data, the record itself as text.

    Where it would be longer than the collector takes, what is left out is said; its digest still
    covers it, and ``penstock audit export`` has it.
    """
    message = _message(entry, form, entry.line)
    if len(message) <= form.max_bytes:
        return message
    short = canonical({"left_out": "record", "record_bytes": len(entry.line), "seq": entry.seq})
    return _message(entry, form, short)


def frame(message: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425 §4.3)."""
    return b"%d %b" % (len(message), message)


def _message(entry: Entry, form: SyslogForm, text: str) -> bytes:
    priority = form.facility * 8 + _severity(entry.kind)
    at = entry.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    header = " ".join(
        (
            f"<{priority}>1",
            at,
            _word(form.hostname, MAX_HOSTNAME_CHARS),
            "penstock",
            _word(form.process, 128),
            _word(entry.kind, MAX_MSGID_CHARS),
        )
    )
    parameters = "".join(f' {name}="{_escaped(value)}"' for name, value in _marks(entry).items())
    return f"{header} [penstock@{form.enterprise}{parameters}] {text}".encode()


def _marks(entry: Entry) -> Mapping[str, str]:
    """Return what a collector sorts by, above all the number: a repeated record is seen by it."""
    marks: dict[str, str | None] = {"seq": str(entry.seq)}
    record = entry.record
    if record is not None:
        _, _, actor, _, community, account_id, order_id, upstream, _ = record.columns
        marks |= {
            "digest": None if record.digest is None else record.digest.hex(),
            "actor": actor,
            "community": community,
            "account": account_id,
            "order": order_id,
            "upstream": upstream,
        }
    return {name: value for name, value in marks.items() if value is not None}


def _severity(kind: str) -> int:
    if any(word in kind for word in WARNED):
        return WARNING
    return NOTICE if any(word in kind for word in NOTICED) else INFORMATIONAL


def _word(text: str, limit: int) -> str:
    """Return *text* as a word of the header: printable ASCII without spaces, ``-`` for none."""
    kept = "".join(char for char in text if "!" <= char <= "~")
    return kept[:limit] or "-"


def _escaped(value: str) -> str:
    """Return a parameter's value, escaped as RFC 5424 §6.3.3 asks."""
    shown = printable(value, MAX_VALUE_CHARS)
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
