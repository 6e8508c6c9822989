"""Windows of the week: how they are written, when they are open, what is pulled into them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.windows import is_open, next_opening, parse_window, pulled_into

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        pytest.param("Mon-Fri 01:00-05:00", MONDAY + HOUR, True, id="at-its-begin"),
        pytest.param("Mon-Fri 01:00-05:00", MONDAY + 5 * HOUR, False, id="at-its-end"),
        pytest.param("Mon-Fri 01:00-05:00", MONDAY + 5 * DAY + 2 * HOUR, False, id="saturday"),
        pytest.param("22:00-04:00", MONDAY + 3 * HOUR, True, id="after-midnight"),
        pytest.param("Sun 22:00-04:00", MONDAY + 3 * HOUR, True, id="of-the-day-before"),
        pytest.param("Mon 22:00-04:00", MONDAY + 3 * HOUR, False, id="not-of-this-day"),
        pytest.param("Fri-Mon 00:00-24:00", MONDAY + 23 * HOUR, True, id="over-the-week's-end"),
        pytest.param("Fri-Mon 00:00-24:00", MONDAY + DAY, False, id="tuesday"),
        pytest.param("Wed,Sat 10:00-11:00", MONDAY + 2 * DAY + 10 * HOUR, True, id="a-list"),
        pytest.param("01:00-05:00", MONDAY + 6 * DAY + 2 * HOUR, True, id="every-day"),
    ],
)
def test_window_is_open(text: str, moment: datetime, expected: bool) -> None:
    """Its begin belongs to it, its end does not; one over midnight is its first day's."""
    assert is_open([parse_window(text)], moment) is expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a window"),
        ("01:00", "not a window"),
        ("Mon 1:00-5:00", "not a window"),
        ("Mon-Fri 01:00-05:00 CET", "not a window"),
        ("Mo 01:00-05:00", "names the day 'Mo'"),
        ("mon 01:00-05:00", "names the day 'mon'"),
        ("Mon- 01:00-05:00", "names the day ''"),
        ("Mon 01:60-05:00", "names the time 01:60"),
        ("Mon 01:00-25:00", "names the time 25:00"),
        ("Mon 24:00-05:00", "begins at 24:00"),
        ("Mon 05:00-05:00", "has no length"),
    ],
)
def test_what_is_no_window_is_refused(text: str, why: str) -> None:
    """With a sentence that says what is wrong with it."""
    with pytest.raises(ValueError, match=why):
        parse_window(text)


def test_without_windows_everything_is_open() -> None:
    """An empty list means always."""
    assert is_open([], MONDAY)
    assert next_opening([], MONDAY) == MONDAY
    assert pulled_into([], MONDAY + DAY, now=MONDAY, seed="x") == MONDAY + DAY


def test_next_opening_is_the_soonest_of_all_windows() -> None:
    """Also in the week after."""
    windows = [parse_window("Wed 03:00-04:00"), parse_window("Sun 01:00-02:00")]
    assert next_opening(windows, MONDAY) == MONDAY + 2 * DAY + 3 * HOUR
    assert next_opening(windows, MONDAY + 2 * DAY + 4 * HOUR) == MONDAY + 6 * DAY + HOUR
    assert next_opening(windows, MONDAY + 6 * DAY + HOUR) == MONDAY + 6 * DAY + HOUR


def test_time_is_pulled_into_the_last_window_before_it() -> None:
    """At a place of its own, so that nodes keep apart."""
    window = parse_window("01:00-05:00")
    due = MONDAY + 3 * DAY + 12 * HOUR
    places = {pulled_into([window], due, now=MONDAY, seed=f"{one}") for one in range(20)}
    assert len(places) > 15
    begin = MONDAY + 3 * DAY + HOUR
    assert all(begin <= one < begin + 4 * HOUR for one in places)


def test_window_that_is_under_way_is_taken_from_now_on() -> None:
    """What has passed of it is no use."""
    window = parse_window("01:00-05:00")
    now = MONDAY + 4 * HOUR
    found = pulled_into([window], MONDAY + 12 * HOUR, now=now, seed="x")
    assert now <= found < MONDAY + 5 * HOUR


def test_time_stays_where_no_window_is_before_it() -> None:
    """It waits for its window when it is there."""
    window = parse_window("Sun 01:00-05:00")
    assert pulled_into([window], MONDAY + DAY, now=MONDAY + 6 * HOUR, seed="x") == MONDAY + DAY


@given(
    st.sampled_from(["01:00-05:00", "Mon-Fri 22:00-04:00", "Sun 00:00-24:00", "Tue 03:00-03:30"]),
    st.integers(min_value=0, max_value=20 * 24 * 60),
    st.integers(min_value=0, max_value=20 * 24 * 60),
)
def test_pulled_time_is_never_later_nor_past(text: str, begin: int, wait: int) -> None:
    """Whatever the window, and inside one unless it stayed."""
    now = MONDAY + timedelta(minutes=begin)
    due = now + timedelta(minutes=wait)
    found = pulled_into([parse_window(text)], due, now=now, seed=str(begin))
    assert now <= found <= due
    assert found == due or is_open([parse_window(text)], found)
