"""How values lie in a row; that every record comes back is the contract suite's."""

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.issuance.errors import Broken
from broker.issuance.events import EventKind
from broker.storage import rows
from broker.storage.rows import RowCodec, event_of, event_values, json_of, moment_of, time_of
from tests.contract.storage import given

CODECS = [one for one in vars(rows).values() if isinstance(one, RowCodec)]


def test_time_is_whole_microseconds_in_utc() -> None:
    """The same moment is the same number, from whatever zone it comes, and comes back in UTC."""
    moment = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=-7)))
    assert time_of(moment) == time_of(elsewhere) == 1_772_366_400_000_001
    assert moment_of(time_of(elsewhere)) == moment
    assert moment_of(0).tzinfo is UTC


def test_time_before_1970_comes_back() -> None:
    """No sign is lost."""
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert time_of(moment) == -1
    assert moment_of(-1) == moment


def test_time_without_a_zone_is_our_bug() -> None:
    """It is not guessed at."""
    with pytest.raises(TypeError):
        time_of(datetime(2026, 3, 1))  # noqa: DTZ001 - what is refused


def test_json_has_one_spelling() -> None:
    """Members sorted, no spaces, ASCII: equal values are equal texts."""
    assert json_of({"b": [1, None], "a": "ü"}) == '{"a":"\\u00fc","b":[1,null]}'


def test_json_refuses_what_is_not_json() -> None:
    """NaN would be read back by nobody else."""
    with pytest.raises(ValueError, match="Out of range"):
        json_of(float("nan"))


def test_identifier_is_type_and_value() -> None:
    """A JSON list of two, in the row as in lists of identifiers."""
    order = given.order(
        given.account(), identifiers=(given.dns("a.example"), given.dns("*.b.example"))
    )
    row = dict(zip(rows.ORDERS.columns, rows.ORDERS.values(order), strict=True))
    assert json.loads(row["identifiers"]) == [["dns", "a.example"], ["dns", "*.b.example"]]
    part = given.authorization(order)
    row = dict(zip(rows.AUTHORIZATIONS.columns, rows.AUTHORIZATIONS.values(part), strict=True))
    assert row["identifier"] == '["dns","a.example"]'


def test_words_and_flags_are_plain(connection: sqlite3.Connection) -> None:
    """Only SQLite's own types go into a row: no enumeration, no bool."""
    order = given.order(given.account())
    kinds = {type(value) for value in rows.ORDERS.values(order)}
    assert kinds == {str, int, type(None)}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.table)
def test_columns_are_those_of_the_table(
    codec: RowCodec[object], connection: sqlite3.Connection
) -> None:
    """Every field has its column; a table has no other but keys and the order of its rows."""
    found = {row[1] for row in connection.execute(f"PRAGMA table_info({codec.table})")}
    assert set(codec.columns) <= found
    apart = {"challenges": {"authorization_id", "position"}, "ca_members": {"position"}}
    assert found - set(codec.columns) == apart.get(codec.table, set())


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.table)
def test_column_may_be_null_where_the_field_may_be_none(
    codec: RowCodec[object], connection: sqlite3.Connection
) -> None:
    """An owner, or anything else that a record cannot do without, is NOT NULL in the schema."""
    not_null = {
        row[1]: bool(row[3]) for row in connection.execute(f"PRAGMA table_info({codec.table})")
    }
    annotations = codec._record.__annotations__
    for column in codec.columns:
        assert not_null[column] != annotations[column].endswith("| None"), column


def test_every_table_is_strict(connection: sqlite3.Connection) -> None:
    """A value of another type is refused, never converted."""
    tables = connection.execute("PRAGMA table_list").fetchall()
    ours = [row for row in tables if row[2] == "table" and not row[1].startswith("sqlite_")]
    assert len(ours) >= len(CODECS)
    assert [row[1] for row in ours if not row[5]] == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "sleeping"),
        ("identifiers", "not json"),
        ("identifiers", '[["dns"]]'),
        ("identifiers", '[["dns","UPPER.example"]]'),
        ("created_at", 2**62),
    ],
    ids=["word", "json", "shape", "spelling", "time"],
)
def test_row_that_cannot_be_read_is_broken(column: str, value: object) -> None:
    """It is told as the store's fault, with the table, never passed on as something else."""
    row = rows.ORDERS.values(given.order(given.account()))
    row[rows.ORDERS.columns.index(column)] = value
    with pytest.raises(Broken, match="unreadable row in orders"):
        rows.ORDERS.read(tuple(row))


@pytest.mark.parametrize(("place", "value"), [(9, "{"), (2, 2**62)])
def test_event_that_cannot_be_read_is_broken(place: int, value: object) -> None:
    """Data and time each have their form; a kind may be a later version's."""
    row: list[object] = [1, *event_values(given.event())]
    assert event_of(tuple(row)) == (1, given.event())
    row[place] = value
    with pytest.raises(Broken, match="unreadable row in events"):
        event_of(tuple(row))
    row[1:] = event_values(given.event())
    row[1] = "unheard-of"
    assert event_of(tuple(row))[1].kind.value == "unheard-of"


def test_event_kinds_are_kept_by_their_word() -> None:
    """Queries outside the broker are built on it."""
    assert event_values(given.event(EventKind.CA_CREATED))[0] == "ca-created"


def test_field_of_a_type_without_a_spelling_is_noticed_at_import() -> None:
    """A record cannot get a field that nobody taught the store to write."""

    @dataclass(frozen=True)
    class Odd:
        share: complex

    with pytest.raises(KeyError):
        RowCodec("odd", Odd)
