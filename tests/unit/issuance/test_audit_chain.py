"""How a record is written down, and what its digest is of."""

import hashlib
import json

import pytest

from broker.issuance.audit_chain import (
    GENESIS,
    ChainedRecord,
    EventColumns,
    canonical,
    digest_of,
    earlier_text,
    parse_line,
    record_text,
)
from broker.issuance.errors import Broken
from broker.issuance.events import EventKind

COLUMNS: EventColumns = (
    "order-created",
    1_772_366_400_250_000,
    "account:a1",
    None,
    "default",
    "a1",
    "o1",
    None,
    canonical({"identifiers": ["dns:é.example"], "n": 1.5, "nested": {"b": 1, "a": [True, None]}}),
)


def chained(seq: int, columns: EventColumns = COLUMNS, previous: bytes = GENESIS) -> ChainedRecord:
    """Return a record as the store would have it."""
    digest = digest_of(record_text(seq, columns, previous))
    return ChainedRecord(seq=seq, columns=columns, digest=digest, previous=previous)


def test_text_is_canonical_json() -> None:
    """Put together by hand it is what the encoder would have written."""
    text = record_text(7, COLUMNS, bytes(range(32)))
    assert canonical(json.loads(text)) == text
    assert json.loads(text)["at"] == "2026-03-01T12:00:00.250000Z"
    assert text.isascii()


def test_digest_is_sha256_of_the_text() -> None:
    """Any other tool comes to the same."""
    assert digest_of("x") == hashlib.sha256(b"x").digest()


@pytest.mark.parametrize("member", range(9), ids=lambda number: f"column {number}")
def test_every_member_counts(member: int) -> None:
    """Whichever of them is changed, the digest is another."""
    changed: list[object] = list(COLUMNS)
    changed[member] = {1: 1_772_366_400_250_001, 8: canonical({})}.get(member, "changed")
    other: EventColumns = tuple(changed)  # type: ignore[assignment]
    assert digest_of(record_text(1, COLUMNS, GENESIS)) != digest_of(record_text(1, other, GENESIS))


def test_number_and_predecessor_count() -> None:
    """A record cannot stand elsewhere, nor after another one."""
    here = digest_of(record_text(2, COLUMNS, GENESIS))
    assert here != digest_of(record_text(3, COLUMNS, GENESIS))
    assert here != digest_of(record_text(2, COLUMNS, bytes([1]) * 32))


def test_line_is_read_back() -> None:
    """What a sink wrote is the record that was chained."""
    record = chained(7, previous=bytes(range(32)))
    assert parse_line(record.line(bytes(range(32)))) == record


def test_line_may_be_written_anew() -> None:
    """A collector that spaces or sorts JSON its own way breaks nothing."""
    record = chained(7)
    anew = json.dumps(json.loads(record.line(GENESIS)), indent=1)
    assert parse_line(anew) == record


def test_record_from_before_the_chain_has_no_digest() -> None:
    """And says so in its line."""
    record = ChainedRecord(seq=1, columns=COLUMNS, digest=None)
    assert parse_line(record.line(GENESIS)).digest is None
    assert earlier_text(1, COLUMNS).endswith(b"}\n")


LINE = json.loads(chained(7).line(GENESIS))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("no json", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="empty"),
        pytest.param(json.dumps({**LINE, "more": 1}), id="another member"),
        pytest.param(json.dumps({**LINE, "digest": "AB" * 32}), id="upper case"),
        pytest.param(
            json.dumps({**LINE, "record": {**LINE["record"], "form": 2}}), id="another form"
        ),
        pytest.param(
            json.dumps({**LINE, "record": {**LINE["record"], "seq": True}}),
            id="number is a boolean",
        ),
        pytest.param(
            json.dumps({**LINE, "record": {**LINE["record"], "reason": 1}}), id="reason is a number"
        ),
        pytest.param(
            json.dumps({**LINE, "record": {**LINE["record"], "data": []}}), id="data is a list"
        ),
        pytest.param(
            json.dumps({**LINE, "record": {**LINE["record"], "at": "2026-03-01T12:00:00Z"}}),
            id="time without its fraction",
        ),
        pytest.param(
            chained(7).line(GENESIS).replace('"seq":7', '"seq":6,"seq":7'), id="a member twice"
        ),
    ],
)
def test_other_lines_are_refused(line: str) -> None:
    """Nothing is guessed at, and a member that stands there twice hides nothing."""
    with pytest.raises(Broken):
        parse_line(line)


def test_data_that_is_none_is_empty() -> None:
    """A row that somebody spoilt is shown, and found by its digest."""
    spoilt: EventColumns = (*COLUMNS[:8], "{")
    assert ChainedRecord(seq=1, columns=spoilt, digest=GENESIS).data == {}


def test_every_kind_is_a_word_that_syslog_takes() -> None:
    """MSGID has at most 32 characters (RFC 5424 §6)."""
    assert [kind for kind in EventKind if len(kind) > 32] == []
