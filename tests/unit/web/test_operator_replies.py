"""What the operator API answers: problems with a hint, and text that may stand in a header."""

import json

import pytest
from aiohttp import web

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.protocol.problems import Problem, ProblemType
from broker.web.authorizing import NotAllowed
from broker.web.operator import OperationError
from broker.web.operator_replies import json_answer, problem_answer, quotable, status_of


def test_problem_has_detail_and_hint() -> None:
    """The hint is left out where there is none."""
    made = problem_answer(403, "not yours", "ask somebody")
    assert (made.status, made.content_type) == (403, "application/problem+json")
    assert json.loads(made.text or "") == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "not yours",
        "hint": "ask somebody",
    }
    assert "hint" not in json.loads(problem_answer(404, "no").text or "")


def test_answer_is_json_as_people_read_it() -> None:
    """Names are not turned into escapes."""
    made: web.Response = json_answer({"name": "grüß.example"})
    assert made.text == '{"name": "grüß.example"}'


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAllowed("no"), 403),
        (OperationError("no"), 422),
        (Problem(ProblemType.MALFORMED, "odd"), 400),
        (Problem(ProblemType.MALFORMED, "odd", status=401), 422),
        (Problem(ProblemType.SERVER_INTERNAL, "odd"), 422),
        (Unreachable("away"), 503),
        (Conflict("late"), 409),
        (Broken("odd"), 422),
    ],
    ids=["not-allowed", "operation", "problem", "unauthorized", "internal", "unreachable",
         "conflict", "broken"],
)  # fmt: skip
def test_outcome_has_a_status(error: Exception, status: int) -> None:
    """401 stays for people whom nobody knows."""
    assert status_of(error) == status


def test_text_of_a_header_ends_no_quotes() -> None:
    """RFC 6750 §3 says what may stand there."""
    assert quotable('a "b" \\ ü\n') == "a 'b' / ??"
