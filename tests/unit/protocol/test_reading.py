"""What everyone may read at a CA is asked for, and read, with the same suspicion."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from broker.protocol.exchange import HttpResponse, Unavailable
from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins
from broker.protocol.problems import Problem
from broker.protocol.reading import parse_read, read_request

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORIGINS = TrustedOrigins("https://ca.example/dir")
URL = "https://ca.example/renewal/a.b"
JSON = ("Content-Type", "application/json")


def test_request_is_a_plain_get() -> None:
    """Nobody signs it, and it carries nothing."""
    request = read_request(URL, ORIGINS)
    assert (request.method, request.url, request.body) == ("GET", URL, None)


def test_request_to_a_foreign_origin_is_not_made() -> None:
    """Whoever named it."""
    with pytest.raises(ProtocolError, match="another origin"):
        read_request("https://evil.example/a.b", ORIGINS)


def test_answer_brings_body_and_retry_after() -> None:
    """In seconds or as a date."""
    for text in ("21600", "Sun, 22 Nov 2026 18:00:00 GMT"):
        headers = (JSON, ("Retry-After", text))
        answer = parse_read(URL, HttpResponse(200, headers, b'{"a":1}'), NOW)
        assert answer.json() == {"a": 1}
        assert answer.retry_at == NOW + timedelta(hours=6)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(HttpResponse(503, ()), Unavailable, id="down"),
        pytest.param(HttpResponse(429, ()), Unavailable, id="limited"),
        pytest.param(
            HttpResponse(
                404,
                (("Content-Type", "application/problem+json"),),
                json.dumps({"type": "urn:ietf:params:acme:error:malformed"}).encode(),
            ),
            Problem,
            id="unknown",
        ),
        pytest.param(HttpResponse(302, (("Location", URL),)), ProtocolError, id="redirect"),
        pytest.param(HttpResponse(200, (JSON,), b"", is_cut=True), ProtocolError, id="huge"),
    ],
)
def test_other_answers_are_told_apart(answer: HttpResponse, kind: type[Exception]) -> None:
    """The three ends are the same as for signed requests."""
    with pytest.raises(kind):
        parse_read(URL, answer, NOW)
