"""Durations and sizes: a number never stands without its unit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from broker.policy.units import (
    MAX_DURATION,
    Duration,
    Rate,
    RateText,
    Size,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


class Model(BaseModel):
    """A model with one of each."""

    wait: Duration = timedelta(days=1)
    room: Size = 1024
    often: RateText = Rate(1, timedelta(seconds=1))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        pytest.param("90d", timedelta(days=90), id="days"),
        pytest.param("2w", timedelta(days=14), id="weeks"),
        pytest.param("90d12h30m", timedelta(days=90, hours=12, minutes=30), id="parts"),
        pytest.param("1m500ms", timedelta(minutes=1, milliseconds=500), id="minutes-are-not-ms"),
        pytest.param("160h", timedelta(days=6, hours=16), id="more-than-a-day-of-hours"),
        pytest.param("36500d", MAX_DURATION, id="the-longest"),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, duration: timedelta) -> None:
    """Units count down from weeks to milliseconds."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("90", id="no-unit"),
        pytest.param("", id="empty"),
        pytest.param("d", id="no-number"),
        pytest.param("0d", id="zero"),
        pytest.param("-1d", id="negative"),
        pytest.param("1.5d", id="fraction"),
        pytest.param("1h1d", id="wrong-order"),
        pytest.param("1d1d", id="unit-twice"),
        pytest.param("1d 1h", id="space"),
        pytest.param("1d\n", id="line-end"),
        pytest.param("1y", id="years"),
        pytest.param("1D", id="upper-case"),
        pytest.param("١d", id="arabic-digit"),
        pytest.param("36500d1ms", id="past-the-longest"),
        pytest.param("999999999w", id="past-what-a-timedelta-holds"),
        pytest.param("9999999999d", id="ten-digits"),
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Everything else has no meaning, or two."""
    with pytest.raises(ValueError, match=r"duration|zero|longer"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        pytest.param(timedelta(days=90, hours=12), "90d12h", id="parts"),
        pytest.param(timedelta(weeks=2), "14d", id="days-at-most"),
        pytest.param(timedelta(), "0s", id="zero"),
        pytest.param(timedelta(hours=-2), "-2h", id="negative"),
        pytest.param(timedelta(milliseconds=5), "5ms", id="short"),
    ],
)
def test_a_duration_is_written_in_days_at_most(duration: timedelta, text: str) -> None:
    """People count certificates in days."""
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("512B", 512, id="bytes"),
        pytest.param("64KiB", 65536, id="kibibytes"),
        pytest.param("3MiB", 3 * 1024 * 1024, id="mebibytes"),
        pytest.param("1GiB", 1024**3, id="gibibytes"),
    ],
)
def test_a_size_is_read_and_written_alike(text: str, size: int) -> None:
    """What is read comes out as it stood."""
    assert parse_size(text) == size
    assert format_size(size) == text


@pytest.mark.parametrize("text", ["64", "64KB", "64kib", "0B", "", "1.5MiB", "-1B", "1 KiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Decimal units are refused too: half the world reads KB as 1024."""
    with pytest.raises(ValueError, match=r"size|zero"):
        parse_size(text)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        pytest.param({"wait": 90}, "90 has no unit, expected a duration such as '90d'", id="wait"),
        pytest.param({"wait": True}, "expected a duration such as '90d'", id="truth"),
        pytest.param({"wait": ["1d"]}, "expected a duration such as '90d'", id="list"),
        pytest.param({"room": 64}, "64 has no unit, expected a size such as '64KiB'", id="room"),
        pytest.param({"room": None}, "expected a size such as '64KiB'", id="nothing"),
        pytest.param({"often": 64}, "expected a rate such as '600/1m'", id="often"),
        pytest.param({"often": False}, "or 'off' in quotes", id="off without quotes"),
    ],
)
def test_a_model_refuses_a_bare_number(values: dict[str, Any], sentence: str) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(values)
    assert sentence in str(caught.value)


def test_a_model_takes_and_gives_units() -> None:
    """In a model they are a timedelta and a count of bytes, in JSON what the file said."""
    model = Model.model_validate_json('{"wait": "36h", "room": "1KiB", "often": "5/60s"}')
    assert (model.wait, model.room) == (timedelta(hours=36), 1024)
    assert model.often == Rate(5, timedelta(minutes=1))
    assert model.model_dump(mode="json") == {"wait": "1d12h", "room": "1KiB", "often": "5/1m"}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("600/1m", Rate(600, timedelta(minutes=1))),
        ("1/1h30m", Rate(1, timedelta(minutes=90))),
        ("off", None),
    ],
)
def test_rate_is_so_many_in_a_duration(text: str, rate: Rate | None) -> None:
    """And is written as it was read."""
    assert parse_rate(text) == rate
    assert format_rate(rate) == text


@pytest.mark.parametrize("text", ["600", "0/1m", "600/m", "600/0s", "-1/1m", "1.5/1m", "", "Off"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """No limit is said by a word, never by a zero."""
    with pytest.raises(ValueError, match=r"rate|duration|zero"):
        parse_rate(text)
