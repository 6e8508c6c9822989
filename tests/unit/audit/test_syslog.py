"""Messages as RFC 5424 wants them, framed as RFC 5425 does."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.audit.feeding import Entry, entries_of
from broker.audit.syslog import SyslogForm, frame, message_of
from broker.issuance.audit_chain import GENESIS, ChainedRecord, canonical

FORM = SyslogForm(
    hostname="broker.example", process="42", facility=13, enterprise=32473, max_bytes=8192
)


def entry(kind: str = "order-created", actor: str = "operator:ada", **data: object) -> Entry:
    """Return the entry of a record."""
    columns = (
        kind,
        1_772_366_400_250_000,
        actor,
        None,
        "default",
        None,
        "o1",
        None,
        canonical(data),
    )
    record = ChainedRecord(7, columns, bytes(32), GENESIS)
    return entries_of([record], [])[0]


HEADER = re.compile(
    rb"<(\d+)>1 2026-03-01T12:00:00\.250000Z broker\.example penstock 42 (\S+) "
    rb'\[penstock@32473 ((?:[a-z]+="(?:[^"\\\]]|\\["\\\]])*" ?)+)\] (.*)',
)


def test_message_has_the_form_of_the_standard() -> None:
    """Header, structured data, and the record as it was chained."""
    made = HEADER.fullmatch(message_of(entry(), FORM))
    assert made is not None
    priority, msgid, marks, text = made.groups()
    assert (int(priority), msgid) == (13 * 8 + 6, b"order-created")
    assert b'seq="7"' in marks
    assert b'order="o1"' in marks
    assert json.loads(text)["record"]["seq"] == 7


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        pytest.param("certificate-issued", 6, id="as it should"),
        pytest.param("request-refused", 5, id="refused"),
        pytest.param("certificate-withheld", 4, id="withheld"),
        pytest.param("store-restored", 4, id="restored"),
    ],
)
def test_severity_follows_the_kind(kind: str, severity: int) -> None:
    """What a person may have to look at stands out."""
    assert message_of(entry(kind), FORM).startswith(b"<%d>" % (13 * 8 + severity))


def test_value_cannot_leave_its_quotes() -> None:
    """The three characters of RFC 5424 §6.3.3 are escaped, control characters shown."""
    made = HEADER.fullmatch(message_of(entry(actor='a"]\\\n[x'), FORM))
    assert made is not None
    assert b'actor="a\\"\\]\\\\' in made[3]
    assert b"\n" not in made[3]


def test_header_has_no_spaces_in_its_words() -> None:
    """And never an empty one."""
    form = replace(FORM, hostname="no host\x00name")
    assert b" nohostname penstock " in message_of(entry(), form)
    assert b" - penstock " in message_of(entry(), replace(FORM, hostname=""))


def test_long_record_is_named_and_left_out() -> None:
    """Its number and digest are there, so that it is known to be missing."""
    form = replace(FORM, max_bytes=500)
    message = message_of(entry(names=["x" * 1000]), form)
    assert len(message) <= 500
    made = HEADER.fullmatch(message)
    assert made is not None
    assert json.loads(made[4])["left_out"] == "record"
    assert b'digest="' in made[3]


def test_checkpoint_is_a_message_as_well() -> None:
    """Of its own kind."""
    one = Entry('{"checkpoint":"a.b.c","seq":7}', 7, "checkpoint", datetime(2026, 3, 1, tzinfo=UTC))
    assert b' checkpoint [penstock@32473 seq="7"] {"checkpoint"' in message_of(one, FORM)


def test_frame_counts_octets() -> None:
    """Not characters (RFC 5425 §4.3)."""
    assert frame("é".encode()) == b"2 \xc3\xa9"
