"""The chain that events are made into: how a record is written down, and what its digest is of.

A record is an event with its number and the digest of the record before it, as canonical JSON;
its digest is the SHA-256 of those octets.  Whoever changes, removes or adds one record changes
every digest after it (docs/adr/0031).  Pure: it knows neither the store nor the time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final

from broker.issuance.errors import Broken

__all__ = [
    "FORM",
    "GENESIS",
    "ChainedRecord",
    "EventColumns",
    "canonical",
    "digest_of",
    "earlier_text",
    "parse_line",
    "record_text",
]

FORM: Final = 1
"""Version of the form of a record.  Whoever changes what is hashed raises it, and goes on being
able to read the earlier ones."""

GENESIS: Final = bytes(32)
"""What stands before the first record, in place of a digest: 32 octets of zero."""

DIGEST_CHARS: Final = 64
"""Characters of a SHA-256 in hexadecimal."""

EventColumns = tuple[str, int, str, str | None, str | None, str | None, str | None, str | None, str]
"""kind, time in microseconds since 1970, actor, reason, community, account, order, upstream, and
data as canonical JSON: an event as the store has it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Writes a value as canonical JSON: ASCII, members sorted, nothing between them."""


@dataclass(frozen=True, slots=True)
class ChainedRecord:
    """One record as it is kept or was exported, not verified yet."""

    seq: int
    columns: EventColumns
    digest: bytes | None
    """The digest that stands beside it; None for an event from before the chain."""
    previous: bytes | None = None
    """What it says about its predecessor; None where only the predecessor itself can tell."""

    @property
    def kind(self) -> str:
        """Return the event's kind, as it is written: a later version may know more of them."""
        return self.columns[0]

    @property
    def at(self) -> datetime:
        """Return when it happened; the beginning of 1970 where that is no time any more."""
        try:
            return _EPOCH + timedelta(microseconds=self.columns[1])
        except OverflowError:
            return _EPOCH

    @property
    def data(self) -> Mapping[str, Any]:
        """Return the event's data; empty where that is no object any more."""
        try:
            found = json.loads(self.columns[8])
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def text(self, previous: bytes) -> str:
        """Return the record after *previous*, as it is hashed."""
        return record_text(self.seq, self.columns, previous)

    def line(self, previous: bytes) -> str:
        """Return the record as one line of JSON, without a line break."""
        digest = "null" if self.digest is None else f'"{self.digest.hex()}"'
        return f'{{"digest":{digest},"record":{self.text(previous)}}}'


def record_text(seq: int, columns: EventColumns, previous: bytes) -> str:
    """Return a record as canonical JSON.

    It is put together by hand, since this is done in the writer's transaction: a third of the
    time that the encoder takes for the same text.
    """
    kind, at, actor, reason, community, account_id, order_id, upstream, data = columns
    return (
        f'{{"account":{_text(account_id)},"actor":{_quoted(actor)},"at":"{_time(at)}",'
        f'"community":{_text(community)},"data":{data},"form":{FORM},"kind":{_quoted(kind)},'
        f'"order":{_text(order_id)},"previous":"{previous.hex()}","reason":{_text(reason)},'
        f'"seq":{seq},"upstream":{_text(upstream)}}}'
    )


def digest_of(text: str) -> bytes:
    """Return the digest of a record's text."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def earlier_text(seq: int, columns: EventColumns) -> bytes:
    """Return an event from before the chain as it goes into the digest over all of them."""
    return record_text(seq, columns, GENESIS).encode("utf-8") + b"\n"


def parse_line(line: str) -> ChainedRecord:
    """Return the record that `ChainedRecord.line` wrote, perhaps written anew by a collector.

    Raises:
        Broken: It is no such line.
    """
    try:
        document = json.loads(line, object_pairs_hook=_unique)
        digest, record = document["digest"], document["record"]
        if set(document) != {"digest", "record"} or set(record) != _MEMBERS:
            raise ValueError("other members than a record has")
        if record["form"] != FORM:
            raise Broken(f"record is of form {record['form']}, known here: {FORM}")
        return ChainedRecord(
            seq=_number(record["seq"]),
            columns=_columns(record),
            digest=None if digest is None else _digest(digest),
            previous=_digest(record["previous"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Broken("it is no record of the audit chain") from error


_MEMBERS: Final = frozenset(
    {
        "account",
        "actor",
        "at",
        "community",
        "data",
        "form",
        "kind",
        "order",
        "previous",
        "reason",
        "seq",
        "upstream",
    }
)


def _columns(record: Mapping[str, Any]) -> EventColumns:
    optional = [record[name] for name in ("reason", "community", "account", "order", "upstream")]
    if any(one is not None and not isinstance(one, str) for one in optional):
        raise TypeError("expected texts")
    if not isinstance(record["data"], dict):
        raise TypeError("expected an object")
    return (
        _plain(record["kind"]),
        _microseconds(_plain(record["at"])),
        _plain(record["actor"]),
        *optional,
        canonical(record["data"]),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands there twice")
    return found


def _plain(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected a number from 1")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != DIGEST_CHARS or value != value.lower():
        raise ValueError("expected a SHA-256 in lower case")
    return bytes.fromhex(value)


def _text(value: str | None) -> str:
    return "null" if value is None else _quoted(value)


def _time(microseconds: int) -> str:
    try:
        moment = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return str(microseconds)  # somebody wrote it there: it fits no digest, and stops no reader
    return f"{moment.isoformat(timespec='microseconds')[:-6]}Z"


def _microseconds(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    number = (moment - _EPOCH) // timedelta(microseconds=1)
    if _time(number) != text:
        raise ValueError("expected a time in UTC with microseconds")
    return number
