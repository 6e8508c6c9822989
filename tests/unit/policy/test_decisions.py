"""A decision becomes one problem that tells every finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.policy.chains import decide_new_order
from broker.policy.decisions import Finding, NewOrderDecision
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import names, new_order, policy

ONE, TWO = names("a.example", "b.example")


def finding(kind: ProblemType, identifier: Identifier | None = None) -> Finding:
    """Return a finding."""
    return Finding(check="x", type=kind, sentence=f"no {identifier}", identifier=identifier)


def decision(*findings: Finding) -> NewOrderDecision:
    """Return a decision with these findings and no plan."""
    return NewOrderDecision(findings=findings, checks=(), policy_sha256="")


def test_one_finding_is_its_problem() -> None:
    """With its identifier as the one subproblem."""
    problem = decision(finding(ProblemType.REJECTED_IDENTIFIER, ONE)).problem()
    assert (problem.type, problem.detail) == (ProblemType.REJECTED_IDENTIFIER, "no a.example")
    assert [sub.identifier for sub in problem.subproblems] == [ONE]


def test_findings_of_one_type_keep_the_type() -> None:
    """A client that knows the type needs no subproblems to react."""
    problem = decision(
        finding(ProblemType.REJECTED_IDENTIFIER, ONE), finding(ProblemType.REJECTED_IDENTIFIER, TWO)
    ).problem()
    assert problem.type is ProblemType.REJECTED_IDENTIFIER
    assert problem.detail == "no a.example; and 1 more, see subproblems"
    assert [sub.identifier for sub in problem.subproblems] == [ONE, TWO]


def test_findings_of_several_types_are_compound() -> None:
    """RFC 8555 §6.7.1."""
    problem = decision(
        finding(ProblemType.REJECTED_IDENTIFIER, ONE), finding(ProblemType.MALFORMED)
    ).problem()
    assert problem.type is ProblemType.COMPOUND
    assert {sub.type for sub in problem.subproblems} == {
        ProblemType.REJECTED_IDENTIFIER,
        ProblemType.MALFORMED,
    }


@pytest.mark.parametrize("count", [1, 2], ids=["one", "several"])
def test_what_no_request_can_change_says_when_to_come_again(count: int) -> None:
    """A suspended upstream is no fault of the client's: 403, which clients show at once."""
    problem = decision(*[finding(ProblemType.SERVER_INTERNAL)] * count).problem()
    assert problem.type is ProblemType.SERVER_INTERNAL
    assert (problem.status, problem.retry_after) == (403, timedelta(seconds=60))


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param([ProblemType.REJECTED_IDENTIFIER], id="one"),
        pytest.param([ProblemType.REJECTED_IDENTIFIER] * 2, id="several of one type"),
        pytest.param([ProblemType.MALFORMED, ProblemType.SERVER_INTERNAL], id="compound"),
    ],
)
def test_what_the_client_has_to_change_is_not_worth_asking_again(kinds: list[ProblemType]) -> None:
    """The table's own status, and no Retry-After that would have it asked again unchanged."""
    problem = decision(*map(finding, kinds)).problem()
    assert (problem.status, problem.retry_after) == (400, None)


def test_suspended_upstream_is_answered_403() -> None:
    """The whole way from the facts; the same order is planned once nothing is suspended."""
    facts = new_order()
    suspended = frozenset((upstream.name, None) for upstream in facts.upstreams)
    refused = decide_new_order(policy(), replace(facts, suspended=suspended))
    assert "is suspended until an operator resumes it" in refused.problem().detail
    assert refused.problem().status == 403
    assert not decide_new_order(policy(), facts).is_refused


def test_no_findings_and_no_plan_is_refused_too() -> None:
    """Unsure means no."""
    assert decision().is_refused
    assert decision().problem().type is ProblemType.SERVER_INTERNAL
    assert not decide_new_order(policy(), new_order()).is_refused
