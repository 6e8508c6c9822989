"""The strict readers of JSON, base64url and times."""

import contextlib
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.protocol.encoding import (
    MAX_JSON_DEPTH,
    encode_base64url,
    format_timestamp,
    is_base64url,
    parse_base64url,
    parse_json_object,
    parse_timestamp,
)
from broker.protocol.problems import Problem, ProblemType


def nested(depth: int) -> bytes:
    """Return a JSON object of the given depth."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


BAD_JSON = [
    pytest.param(b"", "does not parse", id="empty"),
    pytest.param(b"null", "not an object", id="null"),
    pytest.param(b"[]", "not an object", id="array"),
    pytest.param(b'"text"', "not an object", id="string"),
    pytest.param(b"7", "not an object", id="number"),
    pytest.param(b"{}{}", "extra data", id="two objects"),
    pytest.param(b"{} x", "extra data", id="text behind"),
    pytest.param(b"{}\x00", "extra data", id="NUL behind"),
    pytest.param(b"{", "does not parse", id="unterminated"),
    pytest.param(b"{'a':1}", "does not parse", id="single quotes"),
    pytest.param(b'{"a":1,}', "does not parse", id="trailing comma"),
    pytest.param(b'{"a":1}//x', "extra data", id="comment"),
    pytest.param(b"{a:1}", "does not parse", id="bare name"),
    pytest.param(b'{"a":1,"a":2}', "'a' twice", id="member twice"),
    pytest.param(b'{"a":1,"\\u0061":2}', "'a' twice", id="member twice by escape"),
    pytest.param(b'{"b":{"a":1,"a":1}}', "'a' twice", id="inner member twice"),
    pytest.param(b'{"a":NaN}', "NaN", id="NaN"),
    pytest.param(b'{"a":Infinity}', "Infinity", id="Infinity"),
    pytest.param(b'{"a":-Infinity}', "-Infinity", id="minus Infinity"),
    pytest.param(b'{"a":1e999}', "range of a double", id="1e999"),
    pytest.param(b'{"a":' + b"1" * 33 + b"}", "longer than 32", id="33 digits"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", "longer than 32", id="5000 digits"),
    pytest.param(b'{"a":1.' + b"1" * 5000 + b"}", "longer than 32", id="5000 decimals"),
    pytest.param(b'{"a":01}', "does not parse", id="leading zero"),
    pytest.param(b'{"a":+1}', "does not parse", id="plus sign"),
    pytest.param(b'{"a":0x1}', "does not parse", id="hex"),
    pytest.param(b'{"a":"\\ud800"}', "lone surrogate", id="lone high surrogate"),
    pytest.param(b'{"a":"\\udc00"}', "lone surrogate", id="lone low surrogate"),
    pytest.param(b'{"\\ud800":1}', "lone surrogate", id="lone surrogate in a name"),
    pytest.param(b'{"a":["\\ud800"]}', "lone surrogate", id="lone surrogate inside"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', "byte order mark", id="byte order mark"),
    pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="UTF-16 with mark"),
    pytest.param('{"a":1}'.encode("utf-16-le"), "does not parse", id="UTF-16"),
    pytest.param(b'{"a":"\xff"}', "not UTF-8 at byte 6", id="invalid byte"),
    pytest.param(b'{"a":"\xc0\x80"}', "not UTF-8", id="overlong NUL"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "not UTF-8", id="surrogate in UTF-8"),
    pytest.param(b'{"a":"\n"}', "does not parse", id="raw newline in a string"),
    pytest.param(b'{"a":"\x00"}', "does not parse", id="raw NUL in a string"),
    pytest.param(b'{"a":"\\x41"}', "does not parse", id="unknown escape"),
    pytest.param(nested(MAX_JSON_DEPTH + 1), "deeper than 32", id="33 levels"),
    pytest.param(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32", id="32 arrays inside"),
]


@pytest.mark.parametrize(("data", "because"), BAD_JSON)
def test_json_that_is_not_one_plain_object_is_refused(data: bytes, because: str) -> None:
    """Each leniency of JSON readers is refused as malformed, named."""
    with pytest.raises(Problem, match=because) as caught:
        parse_json_object(data, what="payload")
    assert caught.value.type is ProblemType.MALFORMED
    assert caught.value.detail.startswith("payload ")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b"{}", {}, id="empty object"),
        pytest.param(b' \r\n\t{ "a" : 1 } \n', {"a": 1}, id="white space around"),
        pytest.param(b'{"a":1,"A":2}', {"a": 1, "A": 2}, id="names that differ in case"),
        pytest.param(b'{"a":{"b":1},"b":{"b":1}}', {"a": {"b": 1}, "b": {"b": 1}}, id="same inner"),
        pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}, id="surrogate pair"),
        pytest.param('{"a":"ä"}'.encode(), {"a": "ä"}, id="UTF-8"),
        pytest.param(b'{"a":"[[[[{{{{\\""}', {"a": '[[[[{{{{"'}, id="brackets in a string"),
        pytest.param(b'{"a":"\\\\"}', {"a": "\\"}, id="escaped backslash last"),
        pytest.param(b'{"a":12345678901234567890}', {"a": 12345678901234567890}, id="20 digits"),
        pytest.param(b'{"a":1.5e3}', {"a": 1500.0}, id="decimal"),
        pytest.param(b'{"a":[true,false,null]}', {"a": [True, False, None]}, id="constants"),
        pytest.param(b'{"a":"\\u0000"}', {"a": "\x00"}, id="escaped NUL"),
    ],
)
def test_plain_objects_are_read(data: bytes, value: dict[str, object]) -> None:
    """What is one plain object is read as what it says."""
    assert parse_json_object(data) == value


def test_many_brackets_that_are_not_nested_are_read() -> None:
    """Depth is what counts, neither the number of brackets nor those inside strings."""
    flat = b'{"a":[' + b",".join([b"{}"] * 100) + b"]}"
    assert len(parse_json_object(flat)["a"]) == 100
    quoted = b'{"a":"' + b"[{" * 100 + b'"}'
    assert parse_json_object(quoted) == {"a": "[{" * 100}


def test_json_as_deep_as_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    assert parse_json_object(nested(MAX_JSON_DEPTH))


HOSTILE = {
    "arrays": b"[" * 65536,
    "objects": b'{"a":' * 13000,
    "closers": b"]" * 65536,
    "escaped quotes": b'"' + b'\\"' * 32000,
    "quotes and backslashes": b'"\\' * 32768,
    "digits": b'{"a":' + b"1" * 65000 + b"}",
    "many numbers": b'{"a":[' + b"1," * 32000 + b"1]}",
    "many members": b"{" + b",".join(b'"%d":1' % i for i in range(6000)) + b"}",
    "one member many times": b"{" + b",".join(b'"a":1' for _ in range(9000)) + b"}",
    "many brackets": b'{"a":[' + b"[]," * 21000 + b"[]]}",
    "many surrogates": b'{"a":"' + b"\\ud800" * 10000 + b'"}',
    "white space": b" " * 65000 + b"{}",
    "commas": b'{"a":[' + b"," * 65000,
    "exponent": b'{"a":1e' + b"9" * 65000 + b"}",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_of_64_kib_costs_less_than_50_ms(data: bytes) -> None:
    """No text within the size limit keeps the reader busy; the best of three runs counts."""
    durations = []
    for _ in range(3):
        started = time.thread_time()
        with contextlib.suppress(Problem):
            parse_json_object(data)
        durations.append(time.thread_time() - started)
    assert min(durations) < 0.05


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        pytest.param("", b"", id="empty"),
        pytest.param("AA", b"\x00", id="one octet"),
        pytest.param("AAA", b"\x00\x00", id="two octets"),
        pytest.param("AAAA", b"\x00\x00\x00", id="three octets"),
        pytest.param("-_-_", b"\xfb\xff\xbf", id="the two special characters"),
    ],
)
def test_base64url_is_read_and_written(text: str, octets: bytes) -> None:
    """Unpadded base64url is read, and written the same."""
    assert parse_base64url(text) == octets
    assert encode_base64url(octets) == text


@pytest.mark.parametrize(
    ("text", "because"),
    [
        pytest.param("AA==", "padded", id="padded"),
        pytest.param("AAA=", "padded", id="padded once"),
        pytest.param("=", "padded", id="padding alone"),
        pytest.param("A", "not base64url", id="one character"),
        pytest.param("AAAAA", "not base64url", id="five characters"),
        pytest.param("+/+/", "not base64url", id="the other alphabet"),
        pytest.param("AA\n", "not base64url", id="newline"),
        pytest.param(" AA", "not base64url", id="space"),
        pytest.param("AA\x00", "not base64url", id="NUL"),
        pytest.param("ÄÄ", "not base64url", id="not ASCII"),
        pytest.param("AB", "unused bits", id="unused bits of one octet"),
        pytest.param("AAB", "unused bits", id="unused bits of two octets"),
    ],
)
def test_other_base64_is_refused(text: str, because: str) -> None:
    """Padding, other alphabets and second spellings are refused."""
    with pytest.raises(ValueError, match=because):
        parse_base64url(text)


def test_the_alphabet_is_told_from_the_encoding() -> None:
    """A nonce needs the alphabet only, and something of it."""
    assert is_base64url("AB-_9")
    assert not is_base64url("")
    assert not is_base64url("AB=")
    assert not is_base64url("AB\n")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC), id="Z"),
        pytest.param("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC), id="lower"),
        pytest.param("2026-01-31T13:00:00+01:00", datetime(2026, 1, 31, 12, tzinfo=UTC), id="east"),
        pytest.param("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC), id="-0"),
        pytest.param(
            "2026-01-31T12:00:00.999999999Z", datetime(2026, 1, 31, 12, tzinfo=UTC), id="fraction"
        ),
    ],
)
def test_times_are_read_in_utc_and_whole_seconds(text: str, moment: datetime) -> None:
    """Any RFC 3339 time becomes UTC, its fraction cut off."""
    assert parse_timestamp(text) == moment
    assert parse_timestamp(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-1-31T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00+0100",
        "20260131T120000Z",
        "0001-01-01T00:00:00+23:59",
        "2026-01-31T12:00:00Z\n",
        "２０26-01-31T12:00:00Z",
        "1769860800",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    """What is no RFC 3339 time is refused, not guessed."""
    with pytest.raises(ValueError, match="is not an RFC 3339 time"):
        parse_timestamp(text)


def test_times_are_written_in_utc_with_whole_seconds() -> None:
    """Another zone and a fraction are brought to the one form; no zone is a bug."""
    east = timezone(timedelta(hours=2))
    assert format_timestamp(datetime(2026, 1, 31, 14, 0, 0, 999, east)) == "2026-01-31T12:00:00Z"
    with pytest.raises(ValueError, match="without a time zone"):
        format_timestamp(datetime(2026, 1, 31, 14))  # noqa: DTZ001 - the fault being tested
