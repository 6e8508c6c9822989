"""How each record lies in a row: one column per field, in the order of the fields.

A codec is derived from the record's own type hints, so there is no second list of fields to
drift from the first.  Times are whole microseconds since 1970 in UTC: they come back exactly as
they went in, and compare and index as the integers they are.  Lists and mappings are JSON with
sorted members, an identifier is the JSON list [type, value].
"""

from __future__ import annotations

import json
import operator
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from broker.issuance.adoption_ports import AdoptedCertificate
from broker.issuance.audit_chain import EventColumns
from broker.issuance.errors import Broken
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CaCertificateRecord,
    CaMember,
    CertificateRecord,
    ChallengeRecord,
    EabKeyRecord,
    Job,
    OrderRecord,
    RestorationRecord,
    Suspension,
    UpstreamAccountRecord,
    WorkRecord,
)
from broker.issuance.upstream_key_ports import KeyRotationFailure, UpstreamKeyChange
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = [
    "ACCOUNTS",
    "ADOPTED_CERTIFICATES",
    "AUTHORIZATIONS",
    "CA_CERTIFICATES",
    "CA_MEMBERS",
    "CERTIFICATES",
    "CHALLENGES",
    "EAB_KEYS",
    "EVENT_INSERT",
    "EVENT_SELECT",
    "JOBS",
    "ORDERS",
    "RESTORATIONS",
    "SUSPENSIONS",
    "UPSTREAM_ACCOUNTS",
    "UPSTREAM_KEY_CHANGES",
    "UPSTREAM_KEY_FAILURES",
    "WORK",
    "RowCodec",
    "event_of",
    "event_values",
    "json_of",
    "moment_of",
    "time_of",
]

R = TypeVar("R")
Convert = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
"""Unit of a time in a row: the finest that datetime knows, so that nothing is rounded."""


def time_of(moment: datetime) -> int:
    """Return *moment* in microseconds since 1970.

    Raises:
        TypeError: For a time without a zone; that is our bug.
    """
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """Return the moment, in UTC, that `time_of` wrote."""
    return _EPOCH + timedelta(microseconds=microseconds)


json_of: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Writes a value as JSON: ASCII, members sorted, no NaN."""

_read_json: Final = json.JSONDecoder().decode


def _identifier_json(identifier: Identifier) -> str:
    return json_of((identifier.type, identifier.value))


def _identifiers_json(identifiers: tuple[Identifier, ...]) -> str:
    return json_of([(one.type, one.value) for one in identifiers])


def _read_identifier(text: str) -> Identifier:
    kind, value = _read_json(text)
    return Identifier(IdentifierType(kind), value)


def _read_identifiers(text: str) -> tuple[Identifier, ...]:
    return tuple(Identifier(IdentifierType(kind), value) for kind, value in _read_json(text))


def _read_texts(text: str) -> tuple[str, ...]:
    return tuple(_read_json(text))


def _plain_mapping(value: Mapping[str, object]) -> str:
    return json_of(dict(value))


_CONVERSIONS: Final[Mapping[Any, tuple[Convert | None, Convert | None]]] = {
    str: (None, None),
    bytes: (None, None),
    int: (None, None),
    float: (None, None),
    bool: (int, bool),
    datetime: (time_of, moment_of),
    Identifier: (_identifier_json, _read_identifier),
    tuple[Identifier, ...]: (_identifiers_json, _read_identifiers),
    tuple[str, ...]: (json_of, _read_texts),
    Mapping[str, object]: (_plain_mapping, _read_json),
}
"""Type of a field → how it is written and how it is read; None: as it is."""


def _optional(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _conversion(hint: Any) -> tuple[Convert | None, Convert | None]:
    """Return how a field of type *hint* is written and read."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (one for one in get_args(hint) if one is not type(None))
        write, read = _conversion(inner)
        return _optional(write), _optional(read)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        # The bare word: the database module adapts a subclass of str slowly.
        return operator.attrgetter("value"), hint
    return _CONVERSIONS[hint]


class RowCodec(Generic[R]):
    """Turns records of one type into rows of one table, and back.

    ``select`` and ``insert`` name every column, so a column that a later migration adds for
    its own purposes changes nothing here.
    """

    def __init__(self, table: str, record: type[R], *, apart: str | None = None) -> None:
        """Derive the codec; the field *apart* lies in a table of its own."""
        hints = get_type_hints(record)
        named = [one.name for one in fields(record) if one.name != apart]  # type: ignore[arg-type]
        conversions = [_conversion(hints[name]) for name in named]
        self.table = table
        self.columns = tuple(named)
        self.select = " ".join(("SELECT", ", ".join(named), "FROM", table))
        places = ", ".join("?" * len(named))
        self.insert = " ".join(
            ("INSERT INTO", table, f"({', '.join(named)})", "VALUES", f"({places})")
        )
        self._record = record
        self._get = operator.attrgetter(*named)
        self._writers = [write for write, _ in conversions]
        self._readers = [read for _, read in conversions]

    def values(self, record: R) -> list[Any]:
        """Return the row of *record*, in the order of ``columns``."""
        return [
            value if write is None else write(value)
            for write, value in zip(self._writers, self._get(record), strict=True)
        ]

    def read(self, row: tuple[Any, ...], **apart: object) -> R:
        """Return the record that *row*, in the order of ``columns``, holds.

        Raises:
            Broken: The row holds what no version of ours wrote there.
        """
        try:
            members = {
                name: value if read is None else read(value)
                for name, read, value in zip(self.columns, self._readers, row, strict=True)
            }
            return self._record(**members, **apart)
        except (ValueError, TypeError, OverflowError) as error:
            raise Broken(f"store has an unreadable row in {self.table}: {error}") from error

    def read_all(self, rows: list[tuple[Any, ...]]) -> list[R]:
        """Return the records of *rows*."""
        return [self.read(row) for row in rows]


ACCOUNTS: Final = RowCodec("accounts", AccountRecord)
EAB_KEYS: Final = RowCodec("eab_keys", EabKeyRecord)
ORDERS: Final = RowCodec("orders", OrderRecord)
AUTHORIZATIONS: Final = RowCodec("authorizations", AuthorizationRecord, apart="challenges")
CHALLENGES: Final = RowCodec("challenges", ChallengeRecord)
WORK: Final = RowCodec("work", WorkRecord)
CERTIFICATES: Final = RowCodec("certificates", CertificateRecord)
JOBS: Final = RowCodec("jobs", Job)
SUSPENSIONS: Final = RowCodec("suspensions", Suspension)
UPSTREAM_ACCOUNTS: Final = RowCodec("upstream_accounts", UpstreamAccountRecord)
ADOPTED_CERTIFICATES: Final = RowCodec("adopted_certificates", AdoptedCertificate)
UPSTREAM_KEY_CHANGES: Final = RowCodec("upstream_key_changes", UpstreamKeyChange)
UPSTREAM_KEY_FAILURES: Final = RowCodec("upstream_key_failures", KeyRotationFailure)
CA_CERTIFICATES: Final = RowCodec("ca_certificates", CaCertificateRecord)
RESTORATIONS: Final = RowCodec("restorations", RestorationRecord)
CA_MEMBERS: Final = RowCodec("ca_members", CaMember)

EVENT_SELECT: Final = (
    "SELECT seq, kind, at, actor, reason, community, account_id, order_id, upstream, data"
    " FROM events"
)
EVENT_INSERT: Final = (
    "INSERT INTO events"
    " (seq, kind, at, actor, reason, community, account_id, order_id, upstream, data, digest)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def event_values(event: Event) -> EventColumns:
    """Return the parameters of EVENT_INSERT for *event*, without its number and its digest."""
    return (
        event.kind.value,
        time_of(event.at),
        event.actor.name,
        event.actor.reason,
        event.community,
        event.account_id,
        event.order_id,
        event.upstream,
        _plain_mapping(event.data),
    )


def event_of(row: tuple[Any, ...]) -> tuple[int, Event]:
    """Return the sequence number and the event that a row of EVENT_SELECT holds.

    Raises:
        Broken: The row holds what no version of ours wrote there.
    """
    seq, kind, at, actor, reason, community, account_id, order_id, upstream, data = row
    try:
        return seq, Event(
            kind=EventKind.written(kind),
            at=moment_of(at),
            actor=Actor(actor, reason),
            community=community,
            account_id=account_id,
            order_id=order_id,
            upstream=upstream,
            data=_read_json(data),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise Broken(f"store has an unreadable row in events: {error}") from error
