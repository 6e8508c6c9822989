"""Rules only narrow: one more never widens, no order of files matters, explaining agrees."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.chains import Explanation, decide_finalize, decide_new_order, explain_name
from broker.policy.decisions import (
    ApprovalDemand,
    Finding,
    NewOrderDecision,
    NewOrderFacts,
    OnWithdrawal,
    QuotaDemand,
    RuleRef,
)
from broker.policy.document import PolicyDocument
from broker.policy.policy_set import (
    PolicyFile,
    PolicySet,
    join_policy_files,
    parse_policy_file,
)
from broker.policy.yamlfile import Faults
from tests.property.rule_strategies import ALLOWED, TRUSTED, Asking, Facts, Rule, Rules
from tests.unit.policy.builders import PROFILE, finalize, names, policy_text

NOWHERE: Final = RuleRef(source="", line=0, path="")
"""Stands for the place of any rule."""

POLICY_FILE: Final = "default.yaml"
SHARED_FILES: Final = {
    "a.yaml": "all",
    "b.yaml": ["default"],
    "shared/a.yaml": "all",
    "shared/b.yaml": ["default"],
}
"""Files of shared rules before and behind the policy, by name, and whom they are for."""


def named(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rules with the name and the reason that each has to have."""
    return [{"name": f"r{n}", "because": "drawn", **rule} for n, rule in enumerate(rules)]


def text(rules: list[dict[str, Any]]) -> str:
    """Return the text of a policy with *rules*."""
    return policy_text(
        rules=rules,
        names=ALLOWED,
        trusted=TRUSTED,
        profiles={
            "server": {
                **PROFILE,
                "usages": ["server-auth", "client-auth"],
                "upstreams": [{"upstream": "ca"}, {"upstream": "other"}],
            }
        },
    )


def document(rules: list[dict[str, Any]]) -> PolicyDocument:
    """Return a policy with *rules*, contradictions and all."""
    made = parse_policy_file("policy.yaml", text(rules)).content
    assert isinstance(made, PolicyDocument)
    return made


def scattered(rules: list[dict[str, Any]], chance: Random) -> dict[str, PolicyFile]:
    """Return the files of a policy whose rules stand in any of them, in any order."""
    places: dict[str, list[dict[str, Any]]] = {name: [] for name in (POLICY_FILE, *SHARED_FILES)}
    for rule in chance.sample(rules, len(rules)):
        places[chance.choice(list(places))].append(rule)
    texts = {POLICY_FILE: text(places.pop(POLICY_FILE))}
    for name, put in places.items():
        shared = {
            "apiVersion": "penstock.dev/v1",
            "kind": "SharedRules",
            "communities": SHARED_FILES[name],
            "rules": put,
        }
        texts |= {name: json.dumps(shared, indent=1)} if put else {}
    return {name: parse_policy_file(name, said) for name, said in texts.items()}


def joined(read: dict[str, PolicyFile]) -> PolicySet | str:
    """Return the set of *read*, or what is wrong with it."""
    try:
        return join_policy_files(read)
    except Faults as fault:
        return str(fault)


def may_approve(decision: NewOrderDecision) -> frozenset[str]:
    """Return those whose yes lets such an order be made; where it takes nobody, everybody."""
    named = None if decision.approval is None else decision.approval.by
    return frozenset({"anna", "ben", "carl", "others"}) if named is None else named


def counted(decision: NewOrderDecision) -> Counter[QuotaDemand]:
    """Return the quotas that hold, wherever their rules stand in the file."""
    return Counter(replace(one, rule=NOWHERE) for one in decision.quotas)


def remaining(told: Explanation) -> frozenset[str]:
    """Return the upstreams that could be ordered from."""
    return frozenset(one.choice.upstream for one in told.choices if one.plan is not None)


def found(findings: tuple[Finding, ...]) -> frozenset[Hashable]:
    """Return what was found about what, without the sentences, since they name places."""
    return frozenset((one.check, one.type, one.identifier, one.lever) for one in findings)


def asked_of_people(demand: ApprovalDemand | None) -> Hashable:
    """Return what is wanted of people, wherever the rules that want it stand."""
    if demand is None:
        return None
    because, about = tuple(sorted(demand.because)), frozenset(demand.identifiers)
    return replace(demand, rules=(), because=because, identifiers=()), about


def without_places(told: Explanation) -> dict[str, Any]:
    """Return all of a decision but where its rules stand."""
    decision = told.decision
    needed = decision.requirements.items()
    return {
        "refused": decision.is_refused,
        "findings": found(decision.findings),
        "warnings": found(decision.warnings),
        "plan": decision.plan and replace(decision.plan, rule=NOWHERE),
        "keys": decision.key_kinds,
        "usages": decision.usages,
        "challenges": {one: (need.challenges, need.granted_by is None) for one, need in needed},
        "upstreams": [(one.choice.upstream, one.obstacle) for one in told.choices],
        "renew_at": decision.renew_at,
        "approval": asked_of_people(decision.approval),
        "quotas": counted(decision),
        "rules": sorted(ref.path for ref in decision.rules),
        "checks": decision.checks,
    }


def is_no_easier(after: ApprovalDemand | None, before: ApprovalDemand | None) -> bool:
    """Return whether *after* asks for all that *before* did, for as long, of nobody else."""
    if before is None:
        return True
    return (
        after is not None
        and after.people >= before.people
        and after.answer_within <= before.answer_within
        and after.holds <= before.holds
        and (after.reproof or timedelta.max) <= (before.reproof or timedelta.max)
        and set(after.evidence) >= set(before.evidence)
        and set(after.identifiers) >= set(before.identifiers)
        and (
            before.on_withdrawal is OnWithdrawal.KEEP or after.on_withdrawal is OnWithdrawal.REVOKE
        )
    )


def is_no_wider(after: NewOrderDecision, before: NewOrderDecision) -> bool:
    """Return whether *after* allows nothing that *before* did not."""
    if after.is_refused:
        return True
    assert after.plan is not None
    if before.is_refused or before.plan is None:
        return False
    return (
        after.plan.cap <= before.plan.cap
        and set(after.key_kinds) <= set(before.key_kinds)
        and after.usages <= before.usages
        and (after.renew_at or 1) <= (before.renew_at or 1)
        and is_no_easier(after.approval, before.approval)
        and may_approve(after) <= may_approve(before)
        and counted(before) <= counted(after)
        and all(
            set(need.challenges) <= set(before.requirements[name].challenges)
            for name, need in after.requirements.items()
        )
    )


@given(Rules, Rule, st.integers(0, 5), Facts)
def test_one_more_rule_never_widens(
    rules: list[dict[str, Any]], more: dict[str, Any], where: int, facts: NewOrderFacts
) -> None:
    """Whatever it says, wherever it is put in, whoever asks for what."""
    before = document(named(rules))
    added = named(rules)
    added.insert(where, {"name": "more", "because": "drawn", **more})
    after = document(added)
    told, told_before = explain_name(after, facts), explain_name(before, facts)
    assert is_no_wider(told.decision, told_before.decision)
    assert remaining(told) <= remaining(told_before)
    asked = finalize(
        identifiers=facts.identifiers[:1] if facts.identifiers else names("www.a.example"),
        requester=facts.requester,
        is_unchanged_renewal=facts.is_unchanged_renewal,
    )
    if decide_finalize(before, asked):
        assert decide_finalize(after, asked)


@given(st.lists(Asking, min_size=1, max_size=3), Asking, Facts)
def test_one_more_rule_never_asks_less_of_people(
    rules: list[dict[str, Any]], more: dict[str, Any], facts: NewOrderFacts
) -> None:
    """As many people, as much evidence, for no longer, whatever each rule says of it."""
    before = decide_new_order(document(named(rules)), facts)
    after = decide_new_order(document(named([*rules, more])), facts)
    assert is_no_easier(after.approval, before.approval)
    assert may_approve(after) <= may_approve(before)


@given(Rules, Facts)
def test_rules_never_allow_what_the_policy_does_not(
    rules: list[dict[str, Any]], facts: NewOrderFacts
) -> None:
    """Without rules is the widest that a policy can be."""
    assert is_no_wider(
        decide_new_order(document(named(rules)), facts), decide_new_order(document([]), facts)
    )


@given(Rules, Facts)
def test_a_rule_that_only_warns_changes_nothing(
    rules: list[dict[str, Any]], facts: NewOrderFacts
) -> None:
    """The answer is that of a policy without it, as long as nothing else is counted."""
    warned = [{**rule, "mode": "warn", "renewals": "warn"} for rule in named(rules)]
    found = decide_new_order(document(warned), facts)
    plain = decide_new_order(document([]), facts)
    assert (found.findings, found.is_refused, found.approval) == ((), False, None)
    assert found.plan == plain.plan or (
        found.plan and plain.plan and found.plan.cap == plain.plan.cap
    )
    assert (found.key_kinds, found.usages) == (plain.key_kinds, plain.usages)
    assert not any(one.is_enforced for one in found.quotas)


@given(Rules | st.lists(Asking, min_size=2, max_size=3), Facts, st.randoms(use_true_random=False))
def test_the_order_of_rules_in_a_file_never_matters(
    rules: list[dict[str, Any]], facts: NewOrderFacts, chance: Random
) -> None:
    """However they contradict each other: what is decided is the same but for the places."""
    listed = named(rules)
    first, second = document(listed), document(chance.sample(listed, len(listed)))
    told, told_then = explain_name(first, facts), explain_name(second, facts)
    assert without_places(told) == without_places(told_then)


@given(Rules | st.lists(Asking, min_size=2, max_size=3), Facts, st.randoms(use_true_random=False))
def test_the_order_of_files_and_rules_never_matters(
    rules: list[dict[str, Any]], facts: NewOrderFacts, chance: Random
) -> None:
    """Whichever file each rule stands in, beside which others, and whichever is read first."""
    read = scattered(named(rules), chance)
    one, again, other = (
        joined(files)
        for files in (read, dict(reversed(read.items())), scattered(named(rules), chance))
    )
    if isinstance(one, str) or isinstance(again, str) or isinstance(other, str):
        assert one == again
        assert isinstance(other, str), "rules contradict each other wherever they stand"
        return
    assert one.sha256 == again.sha256
    told, told_again, told_then = (
        explain_name(made.documents["default"], facts) for made in (one, again, other)
    )
    assert told == told_again
    assert without_places(told) == without_places(told_then)


@given(Rules, Facts)
def test_explaining_agrees_with_the_decision(
    rules: list[dict[str, Any]], facts: NewOrderFacts
) -> None:
    """Findings, plan and rules: what is shown is what was decided, and every rule is named."""
    made = document(named(rules))
    decision = decide_new_order(made, facts)
    told = explain_name(made, facts)
    assert told.decision == decision
    assert tuple(one for step in told.steps for one in step.findings) == decision.findings
    assert tuple(hit.rule.ref for hit in told.rules.hits) == decision.rules
    if decision.plan is not None:
        assert told.ruling is not None
        assert told.ruling.cap == decision.plan.cap
        assert told.ruling.rule == decision.plan.rule
        assert any(one.plan == decision.plan for one in told.choices)


@given(Rules, Facts, st.integers(1, 400))
def test_a_cap_never_lengthens(
    rules: list[dict[str, Any]], facts: NewOrderFacts, days: int
) -> None:
    """The shortest that speaks of the order is the one that holds, and no rule undoes it."""
    made = document([*named(rules), {"name": "cap", "because": "drawn", "cap": f"{days}d"}])
    decision = decide_new_order(made, facts)
    if decision.plan is not None:
        assert decision.plan.cap <= min(timedelta(days=days), timedelta(days=90))


@given(Rules, Facts)
def test_the_index_finds_what_asking_every_rule_finds(
    rules: list[dict[str, Any]], facts: NewOrderFacts
) -> None:
    """A rule that the index misses would be one that is not in force."""
    made = document(named(rules))
    every = [
        rule.name
        for rule in made.rules.rules
        if rule.touched(facts.identifiers)
        and rule.is_about_requester(facts.requester)
        and (rule.profiles is None or "server" in rule.profiles)
    ]
    found = {r.name for r in made.rules.about(facts.identifiers, facts.requester, "server")}
    assert set(every) <= found


@given(Rules, Facts)
def test_renewals_are_never_treated_worse(
    rules: list[dict[str, Any]], facts: NewOrderFacts
) -> None:
    """What a first order may have, the renewal of it may have."""
    made = document(named(rules))
    first = decide_new_order(made, replace(facts, is_unchanged_renewal=False))
    renewal = decide_new_order(made, replace(facts, is_unchanged_renewal=True))
    if not first.is_refused:
        assert not renewal.is_refused
