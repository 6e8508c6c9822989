"""Rules that are right each on its own and wrong together."""

from __future__ import annotations

from typing import Any

import pytest

from broker.policy import rule_faults
from broker.policy.rule_faults import check_rules
from tests.unit.policy.rule_builders import rule, ruled


def faults(*rules: dict[str, Any], **changes: Any) -> list[str]:
    """Return what is wrong with a policy that has these rules."""
    return [str(fault) for fault in check_rules(ruled(*rules, **changes))]


EC = {"keys": ["ec-p256"]}
RSA = {"keys": ["rsa-2048"]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {}, id="everything"),
        pytest.param({"names": ["**.a.example"]}, {"names": ["www.a.example"]}, id="names-inside"),
        pytest.param({"names": ["*.a.example"]}, {"names": ["**.a.example"]}, id="patterns"),
        pytest.param({"names": ["10.0.0.0/8"]}, {"names": ["10.1.0.0/16"]}, id="networks"),
        pytest.param({}, {"names": ["www.a.example"]}, id="names-of-one"),
        pytest.param({}, {"who": {"eab": ["math"]}}, id="who-of-one"),
        pytest.param({"who": {"eab": ["math", "x"]}}, {"who": {"eab": ["math"]}}, id="shared-eab"),
        pytest.param({"profiles": ["server"]}, {}, id="profile-of-one"),
        pytest.param({"until": "2027-01-01"}, {"from_": "2027-01-01"}, id="one-day"),
    ],
)
def test_two_rules_that_leave_nothing(one: Any, other: Any) -> None:
    """Orders that both speak of would be refused: both places are told, and what to write."""
    [told] = faults(rule(name="a", **one, **EC), rule(name="b", **other, **RSA))
    assert told.startswith("policy.yaml:")
    assert "rule 'b'" in told or "rule 'a'" in told
    assert "contradicts rule" in told
    assert "ec-p256" in told
    assert "rsa-2048" in told
    assert "refuse: …" in told


@pytest.mark.parametrize(
    ("one", "other", "left"),
    [
        pytest.param({"by": ["anna"]}, {"by": ["ben"]}, "none is left where 1 person", id="nobody"),
        pytest.param(
            {"by": ["anna", "ben"], "people": 2}, {"by": ["ben", "carl"]},
            "ben is left where 2 people", id="too-few",
        ),
        pytest.param(
            {"people": 2}, {"by": ["ben"]}, "ben is left where 2 people", id="more-people-there",
        ),
    ],
)  # fmt: skip
def test_two_rules_that_leave_too_few_to_approve(one: Any, other: Any, left: str) -> None:
    """No request of such an order could ever be approved; where they do not meet it may be."""
    names = [["**.a.example"], ["www.a.example"], ["x.a.example"]]
    [told] = faults(
        rule(name="a", names=names[0], approval=one), rule(name="b", names=names[1], approval=other)
    )
    assert left in told
    assert "contradicts rule 'a'" in told or "contradicts rule 'b'" in told
    assert not faults(
        rule(name="a", names=names[1], approval=one), rule(name="b", names=names[2], approval=other)
    )
    enough = {"by": ["anna", "ben", "carl"]}
    assert not faults(rule(name="a", approval={**one, **enough}), rule(name="b", approval=enough))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"names": ["**.a.example"]}, {"names": ["www.a.example"]}, id="names"),
        pytest.param({"names": ["10.0.0.0/8"]}, {"names": ["10.1.0.0/16"]}, id="networks"),
        pytest.param({}, {"names": ["www.a.example"]}, id="everything"),
        pytest.param(
            {"names": ["www.a.example"]},
            {"names": ["**.a.example"], "who": {"eab": ["math"]}},
            id="requester-of-one",
        ),
        pytest.param({"names": ["@a.example"]}, {"names": ["x@a.example"]}, id="e-mail"),
    ],
)
def test_among_thousands_of_rules_the_index_finds_them(
    one: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the names that they speak of; every pair would be too many."""
    monkeypatch.setattr(rule_faults, "MAX_PAIRED", 0)
    [told] = faults(rule(name="a", **one, **EC), rule(name="b", **other, **RSA))
    assert "contradicts rule" in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"names": ["**.a.example"]}, {"names": ["**.b.example"]}, id="names"),
        pytest.param({"names": ["a.example"]}, {"names": ["**.a.example"]}, id="not-below-itself"),
        pytest.param({"who": {"eab": ["x"]}}, {"who": {"eab": ["y"]}}, id="requesters"),
        pytest.param({"who": {"eab": ["x"]}}, {"who": {"nodes": ["**"]}}, id="unsure"),
        pytest.param({"until": "2027-01-01"}, {"from_": "2027-01-02"}, id="days"),
        pytest.param({"mode": "warn"}, {}, id="only-warned"),
        pytest.param({"when": "eab == 'x'"}, {}, id="expression"),
        pytest.param({"not_who": {"eab": ["x"]}}, {}, id="all-but-some"),
    ],
)
def test_rules_that_need_not_meet(one: Any, other: Any) -> None:
    """What may well never be asked together is no fault."""
    assert faults(rule(name="a", **one, **EC), rule(name="b", **other, **RSA)) == []


def test_two_rules_that_no_node_can_meet() -> None:
    """Nobody was let in by two ways, so two rules have to name one that they share."""
    one, other = ["kubernetes", "token"], ["certificate"]
    [told] = faults(rule(name="a", attestation=one), rule(name="b", attestation=other))
    assert "of their attestation, certificate here and kubernetes, token there" in told
    assert not faults(rule(name="a", attestation=one), rule(name="b", attestation=["token"]))


def test_demands_of_different_kinds_do_not_contradict() -> None:
    """Keys and challenges have nothing to do with each other."""
    assert faults(rule(name="a", **EC), rule(name="b", challenges=["dns-01"])) == []


def test_names_of_rules_are_unique() -> None:
    """Quotas are counted by them, and people speak of them."""
    [told] = faults(rule(cap="7d"), rule(cap="6d"))
    assert "a rule is called 'one' already: rule 'one' (policy.yaml:" in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"keys": ["rsa-4096"]}, "leaves no keys", id="keys"),
        pytest.param({"challenges": ["tls-alpn-01"]}, "leaves no challenges", id="challenges"),
        pytest.param({"usages": ["client-auth"]}, "leaves no usages", id="usages"),
        pytest.param({"upstreams": ["caa"]}, "did you mean 'ca'?", id="unknown-upstream"),
        pytest.param({"upstreams": ["moon"]}, "known here: ca", id="no-upstream-near"),
    ],
)
def test_a_rule_that_leaves_nothing_of_its_policy(changes: Any, words: str) -> None:
    """Whoever means that writes a refusal."""
    [told] = faults(rule(**changes))
    assert words in told


def test_many_contradictions_are_told_up_to_a_bound() -> None:
    """One wrong rule makes one with each other."""
    many = [rule(name=f"r{n}", names=[f"n{n}.a.example"], **EC) for n in range(30)]
    told = faults(rule(name="wrong", **RSA), *many)
    assert len(told) == rule_faults.MAX_CONTRADICTIONS
