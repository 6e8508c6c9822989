"""The four outcomes say what their catcher needs, and are told apart."""

from datetime import UTC, datetime

import pytest

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.protocol.problems import Problem, ProblemType

AT = datetime(2026, 3, 1, tzinfo=UTC)
PROBLEM = Problem(ProblemType.CAA, "no")

OUTCOMES = [
    Refused(PROBLEM),
    Unreachable("away", retry_at=AT, left_nothing=True),
    Broken("nonsense"),
    Conflict("lost"),
]


def test_refusal_carries_the_problem_and_its_words() -> None:
    """What of it a client may see is decided elsewhere."""
    assert Refused(PROBLEM).problem is PROBLEM
    assert str(Refused(PROBLEM)) == "no"


def test_unreachable_leaves_the_state_open_unless_it_says_otherwise() -> None:
    """Nobody concludes from silence that nothing happened."""
    silent = Unreachable("away")
    assert (silent.reason, silent.retry_at, silent.left_nothing) == ("away", None, False)
    told = Unreachable("busy", retry_at=AT, left_nothing=True)
    assert (told.retry_at, told.left_nothing) == (AT, True)


@pytest.mark.parametrize("outcome", [Broken("why"), Conflict("why")], ids=["broken", "conflict"])
def test_reason_is_kept(outcome: Broken | Conflict) -> None:
    """For the operator's eyes."""
    assert (outcome.reason, str(outcome)) == ("why", "why")


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda one: type(one).__name__)
def test_no_outcome_is_caught_as_another(outcome: Exception) -> None:
    """They are cut by what the caller does next, so none is a kind of another."""
    caught = [kind for kind in map(type, OUTCOMES) if isinstance(outcome, kind)]
    assert caught == [type(outcome)]
