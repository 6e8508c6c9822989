"""The headers that steer when and whom we ask next."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.protocol.headers import (
    MAX_RETRY_AFTER,
    parse_http_date,
    parse_links,
    parse_media_type,
    parse_retry_after,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("0", NOW, id="zero"),
        pytest.param("120", NOW + timedelta(minutes=2), id="seconds"),
        pytest.param(" 5 ", NOW + timedelta(seconds=5), id="space-around"),
        pytest.param("007", NOW + timedelta(seconds=7), id="leading-zeros"),
        pytest.param("86400", NOW + timedelta(days=1), id="exactly-the-cap"),
        pytest.param("315360000", NOW + MAX_RETRY_AFTER, id="ten-years"),
        pytest.param("9" * 100, NOW + MAX_RETRY_AFTER, id="hundred-digits"),
        pytest.param(
            "Sun, 22 Nov 2026 12:01:30 GMT", NOW + timedelta(seconds=90), id="date-to-come"
        ),
        pytest.param("Sun, 22 Nov 2026 11:00:00 GMT", NOW, id="date-that-passed"),
        pytest.param("Tue, 22 Nov 2036 12:00:00 GMT", NOW + MAX_RETRY_AFTER, id="date-far-away"),
        pytest.param(
            "Sunday, 22-Nov-26 12:00:10 GMT", NOW + timedelta(seconds=10), id="rfc-850-date"
        ),
        pytest.param("Sun Nov 22 12:00:20 2026", NOW + timedelta(seconds=20), id="asctime-date"),
    ],
)
def test_retry_after_is_read_in_every_form_and_capped(value: str, expected: datetime) -> None:
    """Seconds and all three dates of RFC 9110 lead to a time at most a day away."""
    assert parse_retry_after(value, NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param("-5", id="negative"),
        pytest.param("1.5", id="fraction"),
        pytest.param("soon", id="word"),
        pytest.param("9" * 101, id="more-digits-than-are-read"),
        pytest.param("\u0661", id="digit-of-another-script"),
        pytest.param("Sun, 31 Feb 2026 12:00:00 GMT", id="date-that-never-is"),
        pytest.param("Sun, 22 Foo 2026 12:00:00 GMT", id="month-that-never-is"),
        pytest.param("Sun, 22 Nov 2026 25:00:00 GMT", id="hour-that-never-is"),
        pytest.param("Sun, 22 Nov 2026 12:00:00 CET", id="another-zone"),
    ],
)
def test_nonsense_in_retry_after_counts_as_absent(value: str | None) -> None:
    """What does not parse names no time."""
    assert parse_retry_after(value, NOW) is None


def test_a_two_digit_year_is_never_more_than_fifty_years_ahead() -> None:
    """RFC 9110 §5.6.7 sends such a year into the past."""
    past = parse_http_date("Monday, 22-Nov-77 12:00:00 GMT", NOW)
    ahead = parse_http_date("Sunday, 22-Nov-76 12:00:00 GMT", NOW)
    assert past is not None
    assert ahead is not None
    assert (past.year, ahead.year) == (1977, 2076)


def test_a_leap_second_is_read() -> None:
    """Sixty seconds are a valid time, which we keep within its minute."""
    moment = parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)
    assert moment == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("application/json", "application/json", id="plain"),
        pytest.param("Application/JSON; charset=utf-8", "application/json", id="case-and-charset"),
        pytest.param("application/problem+json", "application/problem+json", id="suffix"),
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("json", None, id="no-slash"),
        pytest.param("text/html, text/plain", None, id="two"),
    ],
)
def test_media_type_is_read_without_parameters(value: str | None, expected: str | None) -> None:
    """Only the type itself decides how a body is read."""
    assert parse_media_type(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param((), (), id="none"),
        pytest.param(('<https://a/1>;rel="next"',), (("next", "https://a/1"),), id="quoted"),
        pytest.param(("<https://a/1>; rel=next",), (("next", "https://a/1"),), id="token"),
        pytest.param(
            ('<https://a/d>;rel="index", <https://a/2>; title="x, y"; rel="next last"',),
            (("index", "https://a/d"), ("next", "https://a/2"), ("last", "https://a/2")),
            id="several-in-one",
        ),
        pytest.param(
            ("<https://a/1>; rel=up", "<https://a/2>; REL=Next"),
            (("up", "https://a/1"), ("next", "https://a/2")),
            id="several-headers",
        ),
        pytest.param(("<https://a/1>",), (), id="no-relation"),
        pytest.param(("https://a/1; rel=next",), (), id="no-brackets"),
        pytest.param(("<" * 4000 + ";" * 4000 + " " * 4000,), (), id="noise"),
    ],
)
def test_links_are_read_by_relation(
    values: tuple[str, ...], expected: tuple[tuple[str, str], ...]
) -> None:
    """Each relation of each link is told, noise is passed over."""
    assert parse_links(values) == expected
