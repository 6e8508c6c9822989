"""What the broker answered."""

from __future__ import annotations

import json

import pytest

from agents.answers import MAX_RETRY_SECONDS, judge, printable
from agents.errors import NotKnown, Refused, Unreachable

PROBLEM = json.dumps({"type": "urn:penstock:agent:why", "detail": "be\x07cause"}).encode()


def test_a_success_is_returned_with_the_time_to_come_again() -> None:
    """In seconds, bounded; a date is passed over."""
    assert judge(202, {"retry-after": "5"}, b'{"a": 1}').members() == {"a": 1}
    assert judge(202, {"retry-after": "5"}, b"").retry_seconds == 5.0
    assert judge(202, {"retry-after": "999999"}, b"").retry_seconds == MAX_RETRY_SECONDS
    assert judge(202, {"retry-after": "Mon, 23 Nov 2026"}, b"").retry_seconds is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000], ids=repr)
def test_what_is_no_object_is_no_answer_of_the_broker(body: bytes) -> None:
    """Something else answers for it."""
    with pytest.raises(Unreachable, match="no JSON object"):
        judge(200, {}, body).members()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Refused), (302, Refused), (401, NotKnown), (403, NotKnown), (429, Unreachable),
     (408, Unreachable), (500, Unreachable)],
)  # fmt: skip
def test_a_problem_is_told_in_a_form_fit_for_a_log(status: int, error: type[Exception]) -> None:
    """With the last part of its type."""
    with pytest.raises(error, match="why: be cause"):
        judge(status, {}, PROBLEM)
    with pytest.raises(error):
        judge(status, {}, b"no problem document")


def test_a_long_text_is_cut() -> None:
    """And what cannot be printed is a space."""
    assert printable("a\nbcd", 4) == "a bc"
