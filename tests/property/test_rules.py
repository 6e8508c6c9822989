"""Rules only narrow: one more never widens, no order of files matters, explaining agrees."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.chains import decide_finalize, decide_new_order, explain_name
from broker.policy.decisions import (
    NewOrderDecision,
    NewOrderFacts,
    QuotaDemand,
    QuotaPer,
    Requester,
    RuleRef,
)
from broker.policy.document import PolicyDocument
from broker.policy.policy_set import (
    PolicyFile,
    PolicySet,
    join_policy_files,
    parse_policy_file,
)
from broker.policy.requesters import ClientCertificate
from broker.policy.yamlfile import Faults
from broker.protocol.identifiers import parse_written_identifier
from tests.unit.policy.builders import PROFILE, finalize, names, new_order, policy_text, upstream
from tests.unit.policy.builders import eab as grant

PATTERNS = ["**.a.example", "*.a.example", "www.a.example", "**.b.a.example", "**", "10.0.0.0/8",
            "@a.example", "@**.a.example", "Jane@a.example"]  # fmt: skip
NAMES = ["www.a.example", "b.a.example", "*.a.example", "c.b.a.example", "*.b.a.example",
         "jane@a.example", "jane@b.a.example", "10.1.2.3"]  # fmt: skip
TYPES = frozenset({"dns", "email", "ip"})
ALLOWED = {
    "allow": ["**.a.example", "@a.example", "@**.a.example", "10.0.0.0/8"],
    "wildcards": True,
}
TRUSTED = [
    {"eab": ["any"], "names": ["@**.a.example", "@a.example"], "profiles": ["server"],
     "because": "nothing proves an address"},
]  # fmt: skip
EAB = ["math", "arts", "law"]

ACCOUNTS = ["a" * 43, "b" * 43]
SPIFFE = "spiffe://a.example/web"
CERTIFICATES = [
    ClientCertificate(fingerprint="0" * 64, names=("build.a.example",)),
    ClientCertificate(fingerprint="1" * 64, names=(SPIFFE,)),
]

KINDS_OF_WHO: list[dict[str, st.SearchStrategy[Any]]] = [
    {"eab": st.lists(st.sampled_from(EAB), min_size=1, max_size=2, unique=True)},
    {"networks": st.just(["10.0.0.0/8"])},
    {"nodes": st.just(["*.web"])},
    {"accounts": st.lists(st.sampled_from(ACCOUNTS), min_size=1, unique=True)},
    {"clusters": st.just(["east"])},
    {"namespaces": st.sampled_from([["shop"], ["bank", "shop"]])},
    {"service_accounts": st.sampled_from([["shop/web"], ["bank/web"]])},
    {"client_certificates": st.sampled_from([["sha256:" + "0" * 64], [SPIFFE]])},
    {"client_names": st.just(["*.a.example"])},
]


@st.composite
def described(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a description of requesters, of one kind more often than of two."""
    kinds = draw(st.lists(st.sampled_from(KINDS_OF_WHO), min_size=1, max_size=2))
    return {key: draw(value) for kind in kinds for key, value in kind.items()}


Who = described() | st.lists(described(), min_size=1, max_size=2).map(lambda ways: {"any": ways})

Quota = st.fixed_dictionaries(
    {
        "per": st.sampled_from([str(per) for per in QuotaPer]),
        "limit": st.sampled_from(["1/1d", "5/1d", "5/7d"]),
    },
    optional={
        "kept_for_renewals": st.sampled_from([0.2, 0.5]),
        "upstreams": st.lists(st.sampled_from(["ca", "other"]), min_size=1, unique=True),
    },
)

Quotas = st.lists(Quota, min_size=1, max_size=2)

Refusals = st.fixed_dictionaries(
    {},
    optional={
        "refuse": st.just("not these"),
        "only": Who,
        "attestation": st.just(["approval"]),
    },
)
Limits = st.fixed_dictionaries(
    {},
    optional={
        "cap": st.integers(1, 400).map(lambda days: f"{days}d"),
        "keys": st.lists(st.sampled_from(["ec-p256", "rsa-2048"]), min_size=1, unique=True),
        "challenges": st.lists(st.sampled_from(["http-01", "dns-01"]), min_size=1, unique=True),
        "usages": st.lists(
            st.sampled_from(["server-auth", "client-auth"]), min_size=1, unique=True
        ),
        "upstreams": st.lists(st.sampled_from(["ca", "other"]), min_size=1, unique=True),
        "renew_at": st.sampled_from([0.2, 0.5, 0.8]),
        "approval": st.fixed_dictionaries(
            {"people": st.integers(1, 2), "holds": st.sampled_from(["7d", "90d"])},
            optional={
                "by": st.lists(
                    st.sampled_from(["anna", "ben", "carl"]), min_size=2, max_size=3, unique=True
                )
            },
        ),
        "owner": st.just("required"),
        "quotas": Quotas,
    },
)
Both = st.tuples(Limits, Refusals).map(lambda parts: {**parts[0], **parts[1]})
Counting = st.fixed_dictionaries({"quotas": Quotas})
Demands = st.one_of(Limits, Counting, Refusals, Both).filter(bool)

Conditions = st.fixed_dictionaries(
    {},
    optional={
        "who": Who,
        "not_who": Who,
        "names": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True),
        "profiles": st.just(["server"]),
        "from": st.sampled_from(["2026-11-01", "2027-01-01"]),
        "when": st.sampled_from(
            ["eab == 'math'", "name.startsWith('www')", "names[3] == ''", "size(names) > 1"]
        ),
        "mode": st.sampled_from(["enforce", "warn"]),
        "renewals": st.sampled_from(["warn", "exempt"]),
    },
)
Rule = st.tuples(Conditions, Demands).map(lambda parts: {**parts[0], **parts[1]})
Rules = st.lists(Rule, max_size=5)
Facts = st.builds(
    lambda texts, requester, is_renewal: new_order(
        identifiers=tuple(parse_written_identifier(text) for text in texts),
        eab=grant("any"),
        requester=requester,
        is_unchanged_renewal=is_renewal,
        upstreams=(upstream(identifier_types=TYPES), upstream("other", identifier_types=TYPES)),
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.builds(
        Requester,
        eab_key_id=st.none() | st.sampled_from(EAB),
        address=st.none() | st.sampled_from(["10.0.0.1", "192.0.2.1"]),
        node=st.none() | st.just("a.web"),
        attestation=st.none() | st.sampled_from(["token", "approval"]),
        thumbprint=st.sampled_from(ACCOUNTS),
        cluster=st.none() | st.just("east"),
        namespace=st.none() | st.just("shop"),
        service_account=st.none() | st.just("web"),
        client_certificate=st.none() | st.sampled_from(CERTIFICATES),
        owner=st.none() | st.just("the shop's people"),
    ),
    st.booleans(),
)


def named(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rules with the name and the reason that each has to have."""
    return [{"name": f"r{n}", "because": "drawn", **rule} for n, rule in enumerate(rules)]


def document(rules: list[dict[str, Any]], *, source: str = "policy.yaml") -> PolicyDocument:
    """Return a policy with *rules*, contradictions and all."""
    text = policy_text(
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
    made = parse_policy_file(source, text).content
    assert isinstance(made, PolicyDocument)
    return made


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


def counted(decision: NewOrderDecision) -> frozenset[QuotaDemand]:
    """Return the quotas that hold, wherever their rules stand in the file."""
    nowhere = RuleRef(source="", line=0, path="")
    return frozenset(replace(one, rule=nowhere) for one in decision.quotas)


def is_no_wider(after: NewOrderDecision, before: NewOrderDecision) -> bool:
    """Return whether *after* allows nothing that *before* did not."""
    if after.is_refused:
        return True
    assert after.plan is not None
    if before.is_refused or before.plan is None:
        return False
    people = 0 if before.approval is None else before.approval.people
    return (
        after.plan.cap <= before.plan.cap
        and set(after.key_kinds) <= set(before.key_kinds)
        and after.usages <= before.usages
        and (after.renew_at or 1) <= (before.renew_at or 1)
        and (0 if after.approval is None else after.approval.people) >= people
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
    assert is_no_wider(decide_new_order(after, facts), decide_new_order(before, facts))
    asked = finalize(
        identifiers=facts.identifiers[:1] if facts.identifiers else names("www.a.example"),
        requester=facts.requester,
        is_unchanged_renewal=facts.is_unchanged_renewal,
    )
    if decide_finalize(before, asked):
        assert decide_finalize(after, asked)


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


@given(Rules, Facts, st.randoms(use_true_random=False))
def test_the_order_of_files_and_rules_never_matters(
    rules: list[dict[str, Any]], facts: NewOrderFacts, chance: Any
) -> None:
    """Each rule in a file of its own, read in any order, decides the same to the letter."""
    files = {"default.yaml": policy_text(names=ALLOWED, trusted=TRUSTED)}
    for number, rule in enumerate(named(rules)):
        shared = {
            "apiVersion": "penstock.dev/v1",
            "kind": "SharedRules",
            "communities": "all" if number % 2 else ["default"],
            "rules": [rule],
        }
        files[f"shared/{number}.yaml"] = json.dumps(shared)
    read = {name: parse_policy_file(name, text) for name, text in files.items()}
    order = list(read)
    chance.shuffle(order)
    one, other = joined(read), joined({name: read[name] for name in order})
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert one.sha256 == other.sha256
    first, second = one.documents["default"], other.documents["default"]
    assert decide_new_order(first, facts) == decide_new_order(second, facts)


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
