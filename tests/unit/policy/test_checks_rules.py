"""What rules refuse outright, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from broker.policy.chains import decide_finalize, decide_new_order
from broker.policy.checks import CheckName
from broker.policy.decisions import Requester
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import finalize, new_order
from tests.unit.policy.rule_builders import asked_by, rule, ruled


def test_a_rule_about_names_refuses_those_names() -> None:
    """One finding for each; the order's other names are not blamed."""
    document = ruled(rule(name="no-pay", names=["**.pay.a.example"], refuse="ask the bank"))
    facts = new_order("www.a.example", "x.pay.a.example")
    (found,) = decide_new_order(document, facts).findings
    assert found.check == CheckName.RULE_REFUSED_NAME
    assert found.type is ProblemType.REJECTED_IDENTIFIER
    assert found.identifier is not None
    assert found.identifier.value == "x.pay.a.example"
    assert "'x.pay.a.example' is refused by rule 'no-pay' (policy.yaml:" in found.sentence
    assert found.sentence.endswith("ask the bank")


def test_a_rule_without_names_refuses_the_order() -> None:
    """It is about the requester, so no name is blamed."""
    document = ruled(rule(who={"eab": ["math"]}, refuse="the term is over"))
    (found,) = decide_new_order(document, asked_by(eab_key_id="math")).findings
    assert found.check == CheckName.RULE_REFUSED
    assert found.type is ProblemType.UNAUTHORIZED
    assert found.identifier is None
    assert not decide_new_order(document, asked_by(eab_key_id="arts")).is_refused


@pytest.mark.parametrize(
    ("requester", "is_refused"),
    [
        pytest.param({"eab_key_id": "math"}, False, id="named"),
        pytest.param({"eab_key_id": "arts"}, True, id="another"),
        pytest.param({}, True, id="nobody"),
    ],
)
def test_names_for_nobody_else(requester: Any, is_refused: bool) -> None:
    """The reason of the rule is told, not who may."""
    document = ruled(
        rule(names=["**.math.a.example"], only={"eab": ["math"]}, because="the department's own")
    )
    decision = decide_new_order(document, asked_by("www.math.a.example", **requester))
    assert decision.is_refused is is_refused
    if is_refused:
        assert "not for this requester: the department's own" in decision.findings[0].sentence
        assert "math'" not in decision.findings[0].sentence.partition("rule")[2]
    assert not decide_new_order(document, asked_by("www.arts.a.example", **requester)).is_refused


def test_only_from_a_network_refuses_who_was_not_seen() -> None:
    """What is unsure is no."""
    document = ruled(rule(only={"networks": ["10.0.0.0/8"]}))
    assert not decide_new_order(document, asked_by(address="10.0.0.1")).is_refused
    assert decide_new_order(document, asked_by()).is_refused
    assert decide_new_order(document, asked_by(node="web-01")).is_refused


def test_an_owner_that_a_rule_wants() -> None:
    """Without one the order is refused, and the sentence says what to do."""
    document = ruled(rule(owner="required"))
    (found,) = decide_new_order(document, asked_by()).findings
    assert found.check == CheckName.OWNER_REQUIRED
    assert "penstock owner set" in found.sentence
    assert not decide_new_order(document, asked_by(owner="web team")).is_refused


NODE = {"node": "web-01", "attestation": "kubernetes"}


@pytest.mark.parametrize(
    ("requester", "told"),
    [
        pytest.param(NODE, None, id="one-of-them"),
        pytest.param(
            {**NODE, "attestation": "token"}, "and node 'web-01' was let in by token", id="another"
        ),
        pytest.param(
            {"node": "web-01"}, "and node 'web-01' was let in by no known way", id="unknown"
        ),
        pytest.param({}, "this account is not one of a node with an agent", id="no-node"),
    ],
)
def test_a_node_is_attested_as_a_rule_wants(requester: dict[str, str], told: str | None) -> None:
    """By one of the ways that it names; who is no node has shown nothing of one."""
    document = ruled(rule(attestation=["kubernetes", "certificate"]))
    found = decide_new_order(document, asked_by(**requester)).findings
    assert [one.check for one in found] == ([CheckName.ATTESTATION_REQUIRED] if told else [])
    for one in found:
        assert "wants a node attested by certificate or kubernetes, " in one.sentence
        assert told is not None
        assert one.sentence.endswith(told)


def test_several_rules_want_what_they_all_name() -> None:
    """One way that both name is enough, one that only one of them names is not."""
    document = ruled(
        rule(name="a", attestation=["kubernetes", "certificate"]),
        rule(name="b", attestation=["approval", "certificate"]),
    )
    for way, refusing in (("certificate", []), ("kubernetes", ["b"]), ("approval", ["a"])):
        found = decide_new_order(document, asked_by(node="web-01", attestation=way)).findings
        assert [name for one in found for name in ("a", "b") if f"'{name}'" in one.sentence] == (
            refusing
        )


def test_an_expression_knows_how_a_node_was_let_in() -> None:
    """And that there is nothing to know of others."""
    document = ruled(rule(when="attestation == 'token'", refuse="tokens are for laptops"))
    assert decide_new_order(document, asked_by(node="a", attestation="token")).is_refused
    assert not decide_new_order(document, asked_by(**NODE)).is_refused
    assert not decide_new_order(document, asked_by()).is_refused


def test_an_order_that_nobody_may_approve() -> None:
    """Two names that different people approve: each alone is asked for, both together refused."""
    document = ruled(
        rule(name="of-anna", names=["x.a.example"], approval={"by": ["anna"]}),
        rule(name="of-ben", names=["y.a.example"], approval={"by": ["ben"]}),
    )
    alone = decide_new_order(document, new_order("x.a.example"))
    assert not alone.is_refused
    assert alone.approval is not None
    assert alone.approval.by == {"anna"}
    (found,) = decide_new_order(document, new_order("x.a.example", "y.a.example")).findings
    assert found.check == CheckName.RULE_REFUSED
    assert "leave nobody to approve the order where 1 person has to" in found.sentence
    assert "of-anna" in found.sentence
    assert "ask for fewer names at a time" in found.sentence


def test_a_refusing_rule_holds_at_finalize_as_well() -> None:
    """It may have come in between."""
    document = ruled(rule(names=["www.a.example"], refuse="no"))
    (found,) = decide_finalize(document, finalize())
    assert found.check == CheckName.RULE_REFUSED_NAME
    document = ruled(rule(who={"eab": ["math"]}, refuse="no"))
    assert decide_finalize(document, finalize()) == ()
    (found,) = decide_finalize(document, finalize(requester=Requester(eab_key_id="math")))
    assert found.check == CheckName.RULE_REFUSED
