"""The channel's door: problems an agent can act on, and nothing of our insides."""

import json
from datetime import timedelta

from broker.channel.door import RETRY_SECONDS, busy, problem_answer
from broker.protocol.problems import Problem, ProblemType


def test_problem_is_told_as_a_document() -> None:
    """As at every listener of ours."""
    wait = timedelta(seconds=90)
    answer = problem_answer(Problem(ProblemType.RATE_LIMITED, "too much", retry_after=wait))
    assert (answer.status, answer.content_type) == (429, "application/problem+json")
    assert answer.headers["Retry-After"] == "90"
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["detail"] == "too much"


def test_agents_that_are_sent_away_come_back_at_different_times() -> None:
    """Thousands do not knock together again."""
    waits = {busy("full").retry_after for _ in range(200)}
    seconds = {wait.total_seconds() for wait in waits if wait is not None}
    assert min(seconds) >= RETRY_SECONDS
    assert max(seconds) <= 2 * RETRY_SECONDS
    assert len(seconds) > 3
