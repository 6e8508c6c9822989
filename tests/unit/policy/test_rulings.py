"""What all the rules that speak of an order make of it together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.policy.chains import decide_finalize, decide_new_order, explain_name
from broker.policy.checks import CheckName
from broker.policy.decisions import EabGrant, OnWithdrawal, QuotaPer, UpstreamFacts
from broker.policy.document import USAGE_OIDS, PolicyDocument
from broker.policy.words import Usage
from tests.unit.policy.builders import PROFILE, eab, finalize, new_order, upstream
from tests.unit.policy.rule_builders import asked_by, rule, ruled

TWO_UPSTREAMS = {"server": {**PROFILE, "upstreams": [{"upstream": "ca"}, {"upstream": "other"}]}}


def test_without_rules_nothing_is_narrowed() -> None:
    """An order under a policy of before is decided as it was."""
    decision = decide_new_order(ruled(), new_order())
    assert decision.rules == ()
    assert decision.key_kinds == ("ec-p256", "rsa-2048")
    assert (decision.approval, decision.quotas, decision.warnings) == (None, (), ())


def test_the_tightest_cap_wins_whatever_the_order() -> None:
    """Of the community's and those of two rules, the shortest; its rule is named."""
    rules = [rule(name="long", cap="60d"), rule(name="short", cap="7d"), rule(name="x", cap="400d")]
    for order in (rules, rules[::-1]):
        decision = decide_new_order(ruled(*order), new_order())
        assert decision.plan is not None
        assert decision.plan.cap == timedelta(days=7)
        assert decision.plan.rule.path == "rule 'short'"


def test_a_rule_cannot_lengthen_a_cap() -> None:
    """A cap past the community's does nothing."""
    decision = decide_new_order(ruled(rule(cap="400d")), new_order())
    assert decision.plan is not None
    assert decision.plan.cap == timedelta(days=90)


def test_keys_and_usages_are_what_every_rule_leaves() -> None:
    """The intersection, and never more than the profile has."""
    both = ["server-auth", "client-auth"]
    document = ruled(
        rule(name="a", keys=["ec-p256", "ec-p384"], usages=both),
        rule(name="b", usages=["server-auth"]),
        profiles={"server": {**PROFILE, "usages": both}},
    )
    decision = decide_new_order(document, new_order())
    assert decision.key_kinds == ("ec-p256",)
    assert decision.usages == {USAGE_OIDS[Usage.SERVER_AUTH]}


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ({"usages": ["client-auth"]}, "leave no extended key usage"),
        ({"keys": ["ec-p384"]}, "leave no kind of key"),
    ],
    ids=["usages", "keys"],
)
def test_what_is_left_nothing_is_refused_before_any_ca_is_asked(
    left: dict[str, Any], told: str
) -> None:
    """A CSR may say no usage at all, and what a CA made of it would count as its breach."""
    document = ruled(rule(name="left", **left))
    decision = decide_new_order(document, new_order())
    assert [one.check for one in decision.findings] == [CheckName.RULE_REFUSED]
    assert told in decision.findings[0].sentence
    assert "rule 'left'" in decision.findings[0].sentence
    assert CheckName.RULE_REFUSED in {one.check for one in decide_finalize(document, finalize())}


def test_a_key_that_a_rule_took_out_is_refused_at_finalize() -> None:
    """The finding names the rule."""
    document = ruled(rule(name="only-rsa", keys=["rsa-2048"]))
    (found,) = decide_finalize(document, finalize())
    assert found.check == CheckName.KEY_KIND
    assert found.rule is not None
    assert found.rule.path == "rule 'only-rsa'"


def test_what_was_left_when_the_order_was_made_stays_left() -> None:
    """A rule that is gone by finalize still holds for the order: the stricter version does."""
    (found,) = decide_finalize(ruled(), finalize(key_kinds=frozenset({"rsa-2048"})))
    assert found.check == CheckName.KEY_KIND
    assert decide_finalize(ruled(), finalize(key_kinds=frozenset({"ec-p256"}))) == ()


def test_challenges_that_a_rule_leaves() -> None:
    """The others are not offered for the order's names."""
    decision = decide_new_order(ruled(rule(challenges=["dns-01"])), new_order())
    (need,) = decision.requirements.values()
    assert [str(kind) for kind in need.challenges] == ["dns-01"]


def test_an_upstream_that_a_rule_keeps_out_is_passed_over() -> None:
    """The next one is taken, and where none is left the reason is told."""
    facts = new_order(upstreams=(upstream(), upstream("other")))
    document = ruled(rule(name="no-ca", upstreams=["other"]), profiles=TWO_UPSTREAMS)
    decision = decide_new_order(document, facts)
    assert decision.plan is not None
    assert decision.plan.upstream == "other"
    document = ruled(rule(name="no-ca", upstreams=["elsewhere"], names=["**.a.example"]))
    (found,) = decide_new_order(document, facts).findings
    assert "kept out by rule 'no-ca' (policy.yaml:" in found.sentence


def test_the_earliest_renewal_wins() -> None:
    """Shares of the lifetime, the smallest of all."""
    document = ruled(rule(name="a", renew_at=0.5), rule(name="b", renew_at=0.7))
    assert decide_new_order(document, new_order()).renew_at == 0.5


def test_approvals_are_merged_to_the_strictest() -> None:
    """Most people, shortest times, all evidence, and revoking over keeping."""
    document = ruled(
        rule(
            name="a",
            names=["pay.a.example"],
            approval={"people": 2, "holds": "90d", "evidence": ["ticket"]},
        ),
        rule(
            name="b",
            approval={
                "holds": "30d",
                "answer_within": "2d",
                "reproof": "365d",
                "on_withdrawal": "revoke",
                "evidence": ["contract"],
            },
        ),
    )
    demand = decide_new_order(document, new_order("pay.a.example", "www.a.example")).approval
    assert demand is not None
    assert demand.people == 2
    assert demand.holds == timedelta(days=30)
    assert demand.answer_within == timedelta(days=2)
    assert demand.reproof == timedelta(days=365)
    assert demand.on_withdrawal is OnWithdrawal.REVOKE
    assert demand.evidence == ("contract", "ticket")
    assert {one.value for one in demand.identifiers} == {"pay.a.example", "www.a.example"}
    assert [ref.path for ref in demand.rules] == ["rule 'a'", "rule 'b'"]


def test_every_quota_of_every_rule_holds() -> None:
    """They are counted apart; one that only warns says so."""
    document = ruled(
        rule(name="a", quotas=[{"per": "names", "limit": "5/7d", "kept_for_renewals": 0.5}]),
        rule(name="b", mode="warn", quotas=[{"per": "domain", "limit": "50/7d"}]),
    )
    first, second = decide_new_order(document, new_order()).quotas
    assert (first.per, first.limit, first.window) == (QuotaPer.NAMES, 5, timedelta(days=7))
    assert (first.kept_for_renewals, first.is_enforced) == (0.5, True)
    assert (second.per, second.name, second.is_enforced) == (QuotaPer.DOMAIN, "b", False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"refuse": "not these"}, "not these", id="refusal"),
        pytest.param({"only": {"eab": ["math"]}}, "not for this requester", id="only"),
        pytest.param({"cap": "7d"}, "cap 7d instead of 90d", id="cap"),
        pytest.param({"approval": {"people": 2}}, "the approval of 2 people", id="approval"),
        pytest.param({"upstreams": ["other"]}, "upstream 'other' instead of 'ca'", id="upstream"),
        pytest.param({"owner": "required"}, "wants an owner", id="owner"),
    ],
)
def test_a_rule_that_warns_changes_nothing_and_tells(changes: dict[str, Any], told: str) -> None:
    """The decision is that without the rule; the warning names the rule."""
    facts = new_order(upstreams=(upstream(), upstream("other")))
    without = decide_new_order(ruled(profiles=TWO_UPSTREAMS), facts)
    document = ruled(rule(mode="warn", **changes), profiles=TWO_UPSTREAMS)
    decision = decide_new_order(document, facts)
    (warning,) = decision.warnings
    assert told in warning.sentence
    assert warning.rule is not None
    assert warning.rule.path == "rule 'one'"
    same = replace(
        decision,
        warnings=(),
        rules=(),
        policy_sha256=without.policy_sha256,
        requirements=without.requirements,
    )
    assert (same.plan and same.plan.upstream, same.findings) == ("ca", ())
    assert same.approval is None


def test_rules_that_warn_are_tried_each_on_its_own() -> None:
    """What one refuses does not hide what the next would, up to a bound."""
    rules = [rule(name=f"r{n}", mode="warn", refuse=f"reason {n}") for n in range(25)]
    decision = decide_new_order(ruled(*rules), new_order())
    assert not decision.is_refused
    assert len({one.sentence for one in decision.warnings}) >= 21


def test_renewals_of_unchanged_names_may_be_let_off() -> None:
    """A new rule strands no fleet: what is there is renewed, and told or not as the rule says."""
    facts = new_order()
    renewal = replace(facts, is_unchanged_renewal=True)
    document = ruled(rule(refuse="no", renewals="warn"))
    assert decide_new_order(document, facts).is_refused
    decision = decide_new_order(document, renewal)
    assert not decision.is_refused
    assert len(decision.warnings) == 1
    exempt = decide_new_order(ruled(rule(refuse="no", renewals="exempt")), renewal)
    assert (exempt.is_refused, exempt.warnings, exempt.rules) == (False, (), ())


def test_explaining_shows_the_rules_that_speak() -> None:
    """Enforced or not, with the names that each is about."""
    document = ruled(
        rule(name="a", names=["pay.a.example"], cap="7d"),
        rule(name="b", mode="warn", refuse="no"),
        rule(name="c", names=["**.other.example"], refuse="no"),
    )
    told = explain_name(document, new_order("pay.a.example", "www.a.example")).rules.hits
    assert [(hit.rule.name, hit.is_enforced) for hit in told] == [("a", True), ("b", False)]
    assert [one.value for one in told[0].identifiers] == ["pay.a.example"]


def test_the_binding_tells_who_asks_where_the_facts_do_not() -> None:
    """A case that names an EAB key alone is about its holder."""
    document = ruled(rule(who={"eab": ["math"]}, refuse="no"))
    assert decide_new_order(document, new_order(eab=eab("math"))).is_refused
    assert not decide_new_order(document, new_order(eab=eab("arts"))).is_refused
    assert decide_new_order(document, asked_by(eab_key_id="math")).is_refused


WORKLOAD = EabGrant(
    key_id="", names=(), profiles=(), node="web-0.shop.prod", cluster="prod", namespace="shop",
    service_account="web",
)  # fmt: skip
BUDGET = {"per": "workload", "limit": "5/7d"}


def taken(document: PolicyDocument, grant: EabGrant, *upstreams: UpstreamFacts) -> str | None:
    """Return which upstream a newOrder of *grant* goes to."""
    facts = new_order(eab=grant, upstreams=upstreams or (upstream(), upstream("other")))
    plan = decide_new_order(document, facts).plan
    return None if plan is None else plan.upstream


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (None, "other"),
        (BUDGET, "ca"),
        ({**BUDGET, "upstreams": ["ca"]}, "ca"),
        ({**BUDGET, "upstreams": ["other"]}, "other"),
        ({**BUDGET, "per": "requester"}, "other"),
    ],
    ids=["none", "of all", "of this one", "of another", "per account"],
)
def test_workload_goes_to_a_public_ca_under_its_own_budget_alone(
    quota: dict[str, Any] | None, expected: str
) -> None:
    """A CA of our own needs none; whoever is no workload needs none either."""
    rules = [] if quota is None else [rule(quotas=[quota])]
    document = ruled(*rules, profiles=TWO_UPSTREAMS)
    built_in = upstream("other", is_builtin=True)
    assert taken(document, WORKLOAD, upstream(), built_in) == expected
    assert taken(document, replace(WORKLOAD, cluster=None), upstream(), built_in) == "ca"


def test_budget_that_only_warns_is_none() -> None:
    """It would count and stop nobody."""
    document = ruled(rule(quotas=[BUDGET], mode="warn"), profiles=TWO_UPSTREAMS)
    assert taken(document, WORKLOAD, upstream(), upstream("other")) is None
    document = ruled(rule(quotas=[BUDGET]), profiles=TWO_UPSTREAMS)
    assert taken(document, WORKLOAD, upstream(), upstream("other")) == "ca"


def test_upstreams_of_a_grant_are_all_that_issue() -> None:
    """Whatever policy would take first."""
    document = ruled(rule(quotas=[BUDGET]), profiles=TWO_UPSTREAMS)
    assert taken(document, replace(WORKLOAD, upstreams=("other",))) == "other"
    assert taken(document, replace(WORKLOAD, upstreams=())) is None
    assert taken(document, replace(WORKLOAD, upstreams=None)) == "ca"
    found = explain_name(document, new_order(eab=replace(WORKLOAD, upstreams=("none",))))
    assert "may have" in found.choices[0].sentence


def test_quota_of_some_upstreams_says_so() -> None:
    """Whoever takes its tokens has to know."""
    document = ruled(rule(quotas=[{**BUDGET, "upstreams": ["ca"]}]))
    (demand,) = decide_new_order(document, new_order()).quotas
    assert (demand.per, demand.upstreams) == (QuotaPer.WORKLOAD, {"ca"})


@pytest.mark.parametrize(
    ("cluster", "is_refused"), [("prod", True), ("test", False), (None, False)]
)
def test_rule_about_a_cluster(cluster: str | None, is_refused: bool) -> None:
    """By the key and by an expression; who is of no cluster is of none."""
    document = ruled(rule(who={"clusters": ["prod"]}, refuse="not from there"))
    facts = asked_by(cluster=cluster, namespace="shop", service_account="web")
    assert decide_new_order(document, facts).is_refused is is_refused
    document = ruled(rule(only={"clusters": ["prod"]}))
    assert decide_new_order(document, facts).is_refused is not is_refused
