"""The index of rules: it finds every rule that speaks of an order, whatever it is found by."""

from __future__ import annotations

from typing import Any

import pytest

from broker.policy.decisions import Requester
from broker.policy.rule_index import NO_RULES, RuleBook, RuleIndex
from tests.unit.policy.builders import names
from tests.unit.policy.rule_builders import rule, ruled

RULES = [
    rule(name="named", names=["**.pay.a.example"], refuse="no"),
    rule(name="network", names=["10.0.0.0/8"], refuse="no"),
    rule(name="eab", who={"eab": ["math"]}, refuse="no"),
    rule(name="account", who={"accounts": ["A" * 43]}, refuse="no"),
    rule(name="namespace", who={"namespaces": ["shop"]}, refuse="no"),
    rule(name="service", who={"service_accounts": ["shop/api"]}, refuse="no"),
    rule(name="node", who={"nodes": ["*.web"]}, refuse="no"),
    rule(name="profile", profiles=["server"], refuse="no"),
    rule(name="seen", who={"networks": ["10.0.0.0/8"]}, refuse="no"),
    rule(name="always", refuse="no"),
]


@pytest.mark.parametrize(
    ("asked", "requester", "profile", "found"),
    [
        pytest.param("www.a.example", {}, None, {"seen", "always"}, id="nothing-told"),
        pytest.param("x.pay.a.example", {}, None, {"named", "seen", "always"}, id="name"),
        pytest.param("*.pay.a.example", {}, None, {"named", "seen", "always"}, id="wildcard"),
        pytest.param("a.b", {"eab_key_id": "math"}, None, {"eab", "seen", "always"}, id="eab"),
        pytest.param(
            "a.b", {"thumbprint": "A" * 43}, None, {"account", "seen", "always"}, id="account"
        ),
        pytest.param(
            "a.b",
            {"namespace": "shop", "service_account": "api", "node": "x.web"},
            None,
            {"namespace", "service", "node", "seen", "always"},
            id="pod",
        ),
        pytest.param("a.b", {}, "server", {"profile", "seen", "always"}, id="profile"),
    ],
)
def test_rules_are_found_by_what_they_say(
    asked: str, requester: Any, profile: str | None, found: set[str]
) -> None:
    """By names, else by the requester, else by the profile, else always."""
    book = ruled(*RULES).rules
    rules = book.about(names(asked), Requester(**requester), profile)
    assert {one.name for one in rules} == found


def test_the_order_is_that_of_places_over_all_indexes() -> None:
    """Rules of two files come mixed by where they stand, not by which was read first."""
    rules = ruled(*RULES).rules.rules
    apart = RuleBook([RuleIndex(rules[::2]), RuleIndex(rules[1::2])])
    together = RuleBook([RuleIndex(rules)])
    asked = (names("x.pay.a.example"), Requester(eab_key_id="math"), "server")
    assert apart.about(*asked) == together.about(*asked)
    assert apart.rules == together.rules == rules
    assert len(apart) == len(RULES)


def test_no_rules_are_about_nothing() -> None:
    """A policy without any has none to ask."""
    assert NO_RULES.about(names("a.b"), Requester(), None) == ()
    assert (len(NO_RULES), NO_RULES.rules) == (0, ())


def test_a_name_is_looked_up_and_not_searched_for() -> None:
    """Thousands of rules about other names give no candidate."""
    rules = ruled(
        *(rule(name=f"r{n}", names=[f"**.n{n}.a.example"], refuse="no") for n in range(2_000))
    ).rules
    found = rules.about(names("www.n7.a.example"), Requester(), "server")
    assert [one.name for one in found] == ["r7"]


def test_a_thousand_departments_of_one_zone_are_not_walked_through() -> None:
    """Rules that share their names are found by whom they are about."""
    rules = ruled(
        *(
            rule(name=f"r{n}", names=["**.a.example"], who={"eab": [f"dept{n}"]}, cap="7d")
            for n in range(500)
        ),
        *(
            rule(name=f"s{n}", names=[f"s{n}.a.example"], who={"eab": ["math"]}, cap="7d")
            for n in range(500)
        ),
    ).rules
    found = rules.about(names("www.a.example"), Requester(eab_key_id="dept7"), "server")
    assert [one.name for one in found] == ["r7"]
    found = rules.about(names("s7.a.example"), Requester(eab_key_id="math"), "server")
    assert [one.name for one in found] == ["s7"]
