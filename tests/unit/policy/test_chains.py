"""Which checks run when and in which order, and the decisions that come of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.policy.chains import (
    FINALIZE,
    ISSUED,
    NEW_ORDER,
    ONLY_TOLD,
    UPSTREAM_BREACHES,
    decide_finalize,
    decide_issued,
    decide_new_order,
    explain_name,
    run_chain,
)
from broker.policy.checks import Case, CheckName, OrderCheck
from broker.policy.decisions import Lever, NewOrderFacts
from broker.policy.validity import Obstacle
from broker.protocol.challenges import ChallengeType
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import (
    AT,
    eab,
    finalize,
    issued,
    names,
    new_order,
    policy,
    profile_policy,
    upstream,
)


def test_the_order_of_checks_at_neworder_is_pinned() -> None:
    """An identifier is refused by the first check that finds something."""
    assert [str(check.name) for check in NEW_ORDER] == [
        "profile-offered",
        "identifiers-present",
        "not-before",
        "eab-profile",
        "identifier-type",
        "address-reserved",
        "public-suffix",
        "name-denied",
        "name-allowed",
        "profile-names",
        "wildcard-allowed",
        "eab-names",
        "rule-unsure",
        "rule-refused",
        "rule-refused-name",
        "owner-required",
        "attestation-required",
        "control-provable",
        "private-name",
        "not-after",
        "cap-plan",
    ]


def test_the_order_of_checks_at_finalize_is_pinned() -> None:
    """Names before the CSR, the CSR before its key."""
    assert [str(check.name) for check in FINALIZE] == [
        "profile-offered",
        "identifiers-present",
        "eab-profile",
        "identifier-type",
        "name-denied",
        "name-allowed",
        "profile-names",
        "wildcard-allowed",
        "eab-names",
        "rule-unsure",
        "rule-refused",
        "rule-refused-name",
        "owner-required",
        "attestation-required",
        "grant-stands",
        "csr-names",
        "csr-subject",
        "csr-ca",
        "csr-key-usages",
        "csr-extended-key-usages",
        "csr-extensions",
        "csr-must-staple",
        "key-kind",
        "key-is-account-key",
        "key-weak",
    ]


def test_the_order_of_checks_before_release_is_pinned() -> None:
    """All of them run, whatever the first ones find."""
    assert [str(check.name) for check in ISSUED] == [
        "profile-offered",
        "identifiers-present",
        "issued-key",
        "issued-names",
        "issued-end",
        "issued-asked-dates",
        "issued-start",
        "issued-ca",
        "issued-key-usages",
        "issued-extended-key-usages",
        "issued-extensions",
        "issued-anchor",
        "issued-once",
    ]


def test_every_check_has_a_place_in_a_chain() -> None:
    """A check that nothing runs would be a promise that nothing keeps."""
    run = {check.name for chain in (NEW_ORDER, FINALIZE, ISSUED) for check in chain}
    assert run | ONLY_TOLD == set(CheckName) - {CheckName.CHAIN_EMPTY}


@pytest.mark.parametrize("chain", [NEW_ORDER, FINALIZE, ISSUED], ids=["new", "finalize", "issued"])
def test_a_chain_starts_with_the_profile_and_stops_without_one(chain: tuple[Any, ...]) -> None:
    """All the other checks may lean on it."""
    assert chain[0].name is CheckName.PROFILE_OFFERED
    assert chain[0].is_gate
    assert len({check.name for check in chain}) == len(chain)


def test_breaches_of_the_upstream_are_told_from_changes_of_policy() -> None:
    """Only for the first is an upstream suspended."""
    others = {check.name for check in ISSUED} - UPSTREAM_BREACHES
    assert others == {CheckName.PROFILE_OFFERED, CheckName.IDENTIFIERS_PRESENT}


def test_a_chain_without_checks_refuses() -> None:
    """An empty list of checks is never a yes."""
    facts = new_order()
    case: Case[NewOrderFacts] = Case(policy(), None, facts.identifiers, None, facts)
    [step] = run_chain((), case)
    [finding] = step.findings
    assert (finding.check, finding.type) == (CheckName.CHAIN_EMPTY, ProblemType.SERVER_INTERNAL)


def test_a_check_that_needs_all_runs_after_a_clean_chain_only() -> None:
    """And says nothing about an order that is refused anyway."""
    facts = new_order()
    case: Case[NewOrderFacts] = Case(policy(), None, facts.identifiers, None, facts)
    seen: list[str] = []

    def passes(_: Case[NewOrderFacts]) -> None:
        seen.append("ran")

    last = OrderCheck(CheckName.CAP_PLAN, passes, needs_all=True)
    run_chain((NEW_ORDER[0], last), case)
    assert seen == []
    run_chain((last,), case)
    assert seen == ["ran"]


def test_an_allowed_order_has_requirements_and_a_plan() -> None:
    """All that the workflow needs to go on, and which text decided."""
    document = policy()
    decision = decide_new_order(document, new_order("www.a.example", "*.a.example"))
    plain, wildcard = names("www.a.example", "*.a.example")
    assert not decision.is_refused
    assert decision.profile == "server"
    assert decision.policy_sha256 == document.sha256
    assert decision.checks == tuple(str(check.name) for check in NEW_ORDER)
    assert decision.requirements[plain].challenges == (
        ChallengeType.HTTP_01,
        ChallengeType.DNS_01,
    )
    assert decision.requirements[wildcard].challenges == (ChallengeType.DNS_01,)
    assert decision.plan is not None
    assert (decision.plan.lever, decision.plan.upstream) == (Lever.ASK, "ca")
    assert (decision.plan.cap, decision.plan.rule.path) == (timedelta(days=90), "cap")


def test_a_refused_order_has_neither() -> None:
    """Nothing to go on with by mistake."""
    decision = decide_new_order(policy(), new_order("www.b.example"))
    assert decision.is_refused
    assert decision.plan is None
    assert decision.requirements == {}
    assert decision.policy_sha256 == policy().sha256


def test_the_first_choice_that_holds_the_cap_is_planned() -> None:
    """Not the first that is configured, and not one that cannot."""
    document = profile_policy(
        cap="7d", upstreams=[{"upstream": "long"}, {"upstream": "first"}, {"upstream": "second"}]
    )
    ready = (upstream("second"), upstream("first"), upstream("long", honours_not_after=False))
    decision = decide_new_order(document, new_order(upstreams=ready))
    assert decision.plan is not None
    assert decision.plan.upstream == "first"


def test_a_trusted_requester_is_granted_and_others_are_challenged() -> None:
    """In one order, name by name."""
    trust = {
        "eab": ["farm"],
        "names": ["**.ci.a.example"],
        "profiles": ["server"],
        "because": "they live for an hour",
    }
    facts = new_order("x.ci.a.example", "www.a.example", eab=eab("farm"))
    decision = decide_new_order(policy(trusted=[trust]), facts)
    granted, challenged = names("x.ci.a.example", "www.a.example")
    assert decision.requirements[granted].granted_by is not None
    assert decision.requirements[granted].challenges == ()
    assert decision.requirements[challenged].granted_by is None
    assert decision.requirements[challenged].challenges != ()


def test_trust_does_not_reach_beyond_what_is_allowed() -> None:
    """Rules only narrow: a grant is no permission."""
    trust = {
        "eab": ["farm"],
        "names": ["**"],
        "wildcards": True,
        "profiles": ["server"],
        "because": "a mistake",
    }
    document = policy(trusted=[trust], names={"allow": ["**.a.example"]})
    found = [
        finding.check
        for text in ("www.b.example", "*.a.example")
        for finding in decide_new_order(document, new_order(text, eab=eab("farm"))).findings
    ]
    assert found == [CheckName.NAME_ALLOWED, CheckName.WILDCARD_ALLOWED]


def test_nothing_found_means_nothing_stands_against_it() -> None:
    """The twins of every refusal in this folder, once through each chain."""
    assert decide_new_order(policy(), new_order()).findings == ()
    assert decide_finalize(policy(), finalize()) == ()
    assert decide_issued(policy(), issued()) == ()


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({}, id="allowed"),
        pytest.param({"profile": "gone"}, id="no-profile"),
        pytest.param({"identifiers": names("www.b.example", "www.a.example")}, id="name-refused"),
        pytest.param({"upstreams": ()}, id="no-upstream"),
        pytest.param({"not_after": AT + timedelta(days=100)}, id="end-refused"),
    ],
)
def test_an_explanation_decides_as_the_order_would(facts: dict[str, Any]) -> None:
    """It shows the same decision, and accounts for every check."""
    document = policy()
    explanation = explain_name(document, new_order(**facts))
    assert explanation.decision == decide_new_order(document, new_order(**facts))
    ran = [step.check for step in explanation.steps]
    assert ran == [name for name in (c.name for c in NEW_ORDER) if name in ran]
    assert set(ran) | set(explanation.not_run) == {check.name for check in NEW_ORDER}
    assert not set(ran) & set(explanation.not_run)
    told = [finding for step in explanation.steps for finding in step.findings]
    assert told == list(explanation.decision.findings)


def test_an_explanation_shows_every_cap_and_every_upstream() -> None:
    """Which rule decided, which had a say, and what became of each choice."""
    document = profile_policy(
        cap="47d",
        upstreams=[{"upstream": "away"}, {"upstream": "ca"}],
        top={"caps": [{"names": ["**.a.example"], "cap": "7d"}]},
    )
    explanation = explain_name(document, new_order())
    assert explanation.ruling is not None
    assert explanation.ruling.rule.path == "caps[0].names[0]"
    assert [rule.path for _, rule in explanation.ruling.considered] == [
        "cap",
        "profiles.server.cap",
        "caps[0].names[0]",
    ]
    assert [choice.obstacle for choice in explanation.choices] == [Obstacle.NOT_READY, None]


def test_an_explanation_without_a_profile_has_no_cap() -> None:
    """There is nothing to say about caps and upstreams of a profile that is not there."""
    explanation = explain_name(policy(), new_order(profile="gone"))
    assert (explanation.ruling, explanation.choices) == (None, ())
