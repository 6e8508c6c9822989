"""On which terms people say yes, and how evidence is referred to."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.approval_terms import (
    MAX_EVIDENCE,
    Terms,
    missing_kinds,
    parse_evidence,
)
from broker.policy.decisions import ApprovalDemand, OnWithdrawal, RuleRef
from broker.protocol.problems import Problem
from tests.fakes.clock import START

DAY = timedelta(days=1)
DIGEST = "ab" * 32


def terms(**changes: Any) -> Terms:
    """Return terms as one rule has them."""
    made: dict[str, Any] = {"people": 1, "answer_within": 14 * DAY, "holds": 90 * DAY}
    return Terms(**{**made, **changes})


def test_terms_of_a_demand_come_back_as_they_were_kept() -> None:
    """With the rules that asked for them."""
    demand = ApprovalDemand(
        people=2,
        answer_within=3 * DAY,
        holds=30 * DAY,
        reproof=365 * DAY,
        on_withdrawal=OnWithdrawal.REVOKE,
        evidence=("ticket", "contract"),
        by=frozenset({"anna", "ben"}),
        rules=(RuleRef("shared/hisp.yaml", 7, "rule 'people'"),),
        because=("an auditor asks",),
    )
    made = Terms.of(demand)
    assert made.evidence == ("contract", "ticket")
    assert made.rules == ("shared/hisp.yaml:7 rule 'people'",)
    assert made.revokes
    assert Terms.read(made.facts()) == made
    assert Terms.read(terms().facts()) == terms()
    earlier = {name: held for name, held in terms().facts().items() if name != "by"}
    assert Terms.read(earlier) == terms()


def test_stricter_terms_name_those_of_the_later_policy() -> None:
    """Unless that names nobody: then those before hold on."""
    anna, ben = terms(by=frozenset({"anna"})), terms(by=frozenset({"ben"}))
    assert anna.stricter(ben) == ben
    assert anna.stricter(terms()) == terms().stricter(anna) == anna


@pytest.mark.parametrize(
    ("given", "today", "people", "by"),
    [
        pytest.param((2, None), (1, "a"), 1, "a", id="one-is-left-of-two"),
        pytest.param((2, "ab"), (1, "a"), 1, "a", id="one-of-the-two-is-left"),
        pytest.param((1, "a"), (2, None), 2, None, id="two-where-one-was-named"),
        pytest.param((2, None), (1, "ab"), 2, "ab", id="two-are-named-now"),
        pytest.param((2, "ab"), (1, "cd"), 2, "cd", id="two-others-are-named-now"),
        pytest.param((1, "a"), (2, "ab"), 2, "ab", id="two-where-one-was"),
        pytest.param((1, "ab"), (2, None), 2, "ab", id="two-were-named"),
        pytest.param((2, "ab"), (1, None), 2, "ab", id="less-today"),
        pytest.param((1, "a"), (1, None), 1, "a", id="nobody-named-today"),
        pytest.param((2, None), (1, None), 2, None, id="nobody-named"),
    ],
)
def test_stricter_terms_can_be_met(
    given: tuple[int, str | None],
    today: tuple[int, str | None],
    people: int,
    by: str | None,
) -> None:
    """By as many as it takes: where too few would be named both are as policy has them today."""
    before, after, expected = (
        terms(people=number, by=None if names is None else frozenset(names), evidence=(kind,))
        for (number, names), kind in ((given, "call"), (today, "ticket"), ((people, by), ""))
    )
    made = before.stricter(after)
    assert made == replace(expected, evidence=("call", "ticket"))
    assert after.is_met(made, START, START, START)


@pytest.mark.parametrize(
    ("actor", "may"),
    [("operator:anna", True), ("operator:ben", False), ("anna", False), ("operator:Anna", False)],
)
def test_names_are_taken_to_the_letter(actor: str, may: bool) -> None:
    """Whoever is like one of them is not one of them; without names everybody may."""
    assert terms(by=frozenset({"anna"})).is_open_to(actor) is may
    assert terms().is_open_to(actor)


def test_stricter_terms_hold_both() -> None:
    """Whichever of the two comes first."""
    one = terms(people=2, holds=10 * DAY, evidence=("ticket",))
    other = terms(reproof=20 * DAY, revokes=True, answer_within=DAY, evidence=("contract",))
    both = terms(
        people=2, holds=10 * DAY, reproof=20 * DAY, revokes=True, answer_within=DAY,
        evidence=("contract", "ticket"),
    )  # fmt: skip
    assert one.stricter(other) == other.stricter(one) == both


@pytest.mark.parametrize(
    ("given", "days", "is_met"),
    [
        pytest.param({}, 1, True, id="same"),
        pytest.param({"people": 2, "evidence": ("ticket", "x")}, 1, True, id="more"),
        pytest.param({"people": 2}, 89, True, id="just-in-time"),
        pytest.param({}, 90, False, id="held-too-long"),
    ],
)
def test_approval_is_enough_for_terms_that_it_meets(
    given: dict[str, Any], days: int, is_met: bool
) -> None:
    """More than is asked for is enough, for as long as is asked for."""
    met = terms().is_met(terms(**given), START, START, START + days * DAY)
    assert met == is_met


@pytest.mark.parametrize(
    "asked",
    [
        {"people": 2},
        {"evidence": ("ticket",)},
        {"holds": DAY / 2},
        {"reproof": DAY / 2},
        {"by": frozenset({"anna"})},
    ],
    ids=["people", "evidence", "holds", "reproof", "by"],
)
def test_approval_is_not_enough_for_terms_that_ask_more(asked: dict[str, Any]) -> None:
    """Whatever it is that they ask more of."""
    assert not terms(**asked).is_met(terms(), START, START, START + DAY)


def test_terms_that_nobody_kept_are_not_read() -> None:
    """A row that was changed past the broker is no terms."""
    with pytest.raises(ValueError, match="people 'two'"):
        Terms.read({**terms().facts(), "people": "two"})


# ----------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ticket=https://tickets.example/7", "ticket=https://tickets.example/7"),
        ("id-card= seen by Anna ", "id-card=seen by Anna"),
        (f"contract=https://dms.example/9 sha256:{DIGEST.upper()}",
         f"contract=https://dms.example/9 sha256:{DIGEST}"),
        ("note=a=b", "note=a=b"),
        ("note=red\x1b[31m", "note=red\\u001b[31m"),
    ],
    ids=["url", "sentence", "digest", "equals", "escape"],
)  # fmt: skip
def test_evidence_is_a_reference(text: str, kept: str) -> None:
    """Of a kind, with its digest where that is known, and nothing that steers a terminal."""
    assert parse_evidence([text, text]) == (kept,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ticket", "is not KIND=REFERENCE"),
        ("=x", "is not KIND=REFERENCE"),
        ("ticket=", "is not KIND=REFERENCE"),
        ("Big Kind=x", "is not KIND=REFERENCE"),
        ("ticket=" + "x" * 501, "has 501 characters, at most 500"),
        ("ticket=x sha256:abcd", "has a digest that is not"),
        (f"ticket=x sha256:{DIGEST} more", "has a digest that is not"),
    ],
    ids=["no-kind", "empty-kind", "empty", "odd-kind", "long", "short-digest", "digest-within"],
)
def test_evidence_that_is_none_is_refused(text: str, says: str) -> None:
    """With what was expected."""
    with pytest.raises(Problem, match=says):
        parse_evidence([text])


def test_references_are_bounded() -> None:
    """A person reads them all."""
    many = [f"ticket={number}" for number in range(MAX_EVIDENCE + 1)]
    assert len(parse_evidence(many[:-1])) == MAX_EVIDENCE
    with pytest.raises(Problem, match="21 references to evidence, at most 20"):
        parse_evidence(many)


def test_kinds_that_nobody_referred_to_are_missing() -> None:
    """The kind is what stands before the first sign of equality."""
    shown = ["ticket=1", "note=contract=2"]
    assert missing_kinds(("ticket", "contract"), shown) == ("contract",)
    assert missing_kinds(("ticket",), shown) == ()
