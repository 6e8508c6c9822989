"""Windows as arithmetic, and the one spelling of a CertID."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.members import ProtocolError
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.renewal import (
    LONGEST_POLL,
    SHORTEST_POLL,
    RenewalInfo,
    RenewalWindow,
    latest_end,
    own_window,
    parse_cert_id,
    poll_at,
    pulled_before,
    window_past,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
EXAMPLE = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
"""The identifier that RFC 9773 §4.1 works out."""


def test_the_identifier_of_the_standard_is_read() -> None:
    """Its serial begins with the zero that keeps it positive."""
    assert parse_cert_id(EXAMPLE) == EXAMPLE
    assert parse_cert_id("AA.AQ") == "AA.AQ"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="a dot"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ", id="no serial"),
        pytest.param(f"{EXAMPLE}.AA", id="three parts"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ=.AIdlQyE=", id="padded"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNR.AIdlQyE", id="bits left over"),
        pytest.param("a+hba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", id="base64"),
        pytest.param("AA.h2VDIQ", id="negative serial"),
        pytest.param("AA.AA", id="serial zero"),
        pytest.param("AA.AAE", id="a zero too many"),
        pytest.param("AA." + "A" * 300, id="too long"),
        pytest.param("A" * 120 + ".AQ", id="key identifier too long"),
        pytest.param("AA.Af" + "_" * 28, id="serial too long"),
        pytest.param("../x.y", id="a path"),
        pytest.param(f" {EXAMPLE}", id="a space"),
        pytest.param(f"{EXAMPLE}\n", id="a line break"),
        pytest.param("ＡＡ.AQ", id="wide letters"),
    ],
)
def test_any_other_spelling_is_malformed(text: str) -> None:
    """One certificate has one identifier, so a cache or a log never has two of it."""
    with pytest.raises(Problem) as caught:
        parse_cert_id(text)
    assert caught.value.type is ProblemType.MALFORMED
    assert "RFC 9773 §4.1" in caught.value.detail


@pytest.mark.parametrize("length", [timedelta(), -DAY], ids=["none", "negative"])
def test_a_window_has_a_length(length: timedelta) -> None:
    """RFC 9773 §4.2: an end that does not lie after the start is no window."""
    with pytest.raises(ValueError, match="not after its start"):
        RenewalWindow(NOW, NOW + length)


def test_own_window_lies_around_two_thirds_and_is_the_same_at_every_question() -> None:
    """Within a tenth of the lifetime around it, 43 hours wide for 90 days."""
    end = NOW + 90 * DAY
    window = own_window(NOW, end, seed="a fingerprint")
    assert window == own_window(NOW, end, seed="a fingerprint")
    assert window.end - window.start == 90 * DAY / 50
    assert NOW + 55 * DAY < window.start < window.end < NOW + 65 * DAY


def test_a_fleet_is_spread() -> None:
    """A thousand certificates of one night are due over most of nine days, evenly."""
    starts = sorted(
        own_window(NOW, NOW + 90 * DAY, seed=str(number)).start for number in range(1000)
    )
    assert starts[-1] - starts[0] > 6 * DAY
    median = starts[500] - NOW
    assert 58 * DAY < median < 61 * DAY


@given(
    lifetime=st.timedeltas(min_value=timedelta(seconds=2), max_value=timedelta(days=36_500)),
    renew_at=st.floats(min_value=0.1, max_value=0.9),
    seed=st.text(max_size=5),
)
def test_own_window_ends_before_the_certificate(
    lifetime: timedelta, renew_at: float, seed: str
) -> None:
    """Whatever the share: a twentieth of the lifetime is left, and the window is one."""
    window = own_window(NOW, NOW + lifetime, seed=seed, renew_at=renew_at)
    assert window.end <= latest_end(NOW, NOW + lifetime)
    told = RenewalInfo(window=window).to_json()["suggestedWindow"]
    assert isinstance(told, dict)
    assert told["start"] < told["end"]


def test_pulling_keeps_a_window_that_ends_in_time_and_moves_another_as_a_whole() -> None:
    """Never later; a client that picks a moment in it has as much room as before."""
    window = RenewalWindow(NOW, NOW + DAY)
    assert pulled_before(window, NOW + DAY) == window
    assert pulled_before(window, NOW) == RenewalWindow(NOW - DAY, NOW)


def test_pulling_a_window_without_bounds_does_not_leave_the_calendar() -> None:
    """A CA that names the whole of time is brought back to a month."""
    endless = RenewalWindow(NOW, datetime(9999, 12, 31, tzinfo=UTC))
    assert pulled_before(endless, NOW) == RenewalWindow(NOW - 30 * DAY, NOW)


def test_a_window_in_the_past_is_over() -> None:
    """Renew at once."""
    assert window_past(NOW).end == NOW


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        pytest.param(timedelta(hours=6), timedelta(hours=6), id="kept"),
        pytest.param(timedelta(seconds=1), SHORTEST_POLL, id="too soon"),
        pytest.param(-DAY, SHORTEST_POLL, id="past"),
        pytest.param(30 * DAY, LONGEST_POLL, id="too late"),
    ],
)
def test_retry_after_is_kept_within_bounds(named: timedelta, expected: timedelta) -> None:
    """RFC 9773 §4.3.2: values beyond a minute and a day count as those."""
    assert poll_at(NOW, NOW + named) == NOW + expected


def test_an_answer_without_retry_after_names_no_time() -> None:
    """RFC 9773 §4.3.3 takes it for an error."""
    assert poll_at(NOW, None) is None


def test_the_object_is_written_and_read_again() -> None:
    """In whole seconds, with the page of explanation where there is one."""
    info = RenewalInfo(
        window=RenewalWindow(NOW, NOW + DAY), explanation_url="https://ca.example/why"
    )
    assert info.to_json() == {
        "suggestedWindow": {"start": "2026-11-22T12:00:00Z", "end": "2026-11-23T12:00:00Z"},
        "explanationURL": "https://ca.example/why",
    }
    assert RenewalInfo.from_json(info.to_json()) == info


def test_a_window_shorter_than_a_second_is_told_as_a_second() -> None:
    """An end that equals its start must not be served."""
    window = RenewalWindow(NOW, NOW + timedelta(milliseconds=3))
    told = RenewalInfo(window=window).to_json()["suggestedWindow"]
    assert told == {"start": "2026-11-22T12:00:00Z", "end": "2026-11-22T12:00:01Z"}


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param([], id="a list"),
        pytest.param({}, id="no window"),
        pytest.param({"suggestedWindow": {"start": "2026-11-22T12:00:00Z"}}, id="no end"),
        pytest.param({"suggestedWindow": {"start": "soon", "end": "later"}}, id="words"),
        pytest.param(
            {"suggestedWindow": {"start": "2026-11-22T12:00:00Z", "end": "2026-11-22T12:00:00Z"}},
            id="end at start",
        ),
        pytest.param(
            {"suggestedWindow": {"start": "2026-11-23T12:00:00Z", "end": "2026-11-22T12:00:00Z"}},
            id="end before start",
        ),
    ],
)
def test_what_is_no_renewal_information_is_refused(obj: Any) -> None:
    """The twin of the one that is read: a window, and nothing else."""
    with pytest.raises(ProtocolError):
        RenewalInfo.from_json(obj)


def test_a_page_that_is_none_spoils_nothing() -> None:
    """It is for people; the window counts."""
    obj = RenewalInfo(window=RenewalWindow(NOW, NOW + DAY)).to_json()
    read = RenewalInfo.from_json({**obj, "explanationURL": "javascript:alert(1)"})
    assert read.explanation_url is None
