"""Clusters beside each other: names that cross, upstreams that are there."""

import copy
from typing import Any

import pytest

from broker.config.cluster_checks import MAX_CROSSINGS, builtin_upstreams
from tests.unit.config.conftest import FaultsOf, Parse
from tests.unit.config.test_vouching import CLUSTER, RULE, agents

OWN = "{service_account}.{namespace}.{cluster}.example"


def rule(*names: str, **more: Any) -> dict[str, Any]:
    """Return a rule with names."""
    return {**RULE, "names": list(names), **more}


def two(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return clusters `prod` and `test` with one rule each."""
    pair = {"prod": one, "test": other}
    return agents(clusters={name: {**CLUSTER, "rules": [made]} for name, made in pair.items()})


CROSSING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the same name": (rule("mail.example"), rule("mail.example")),
    "a wildcard": (rule("*.mail.example"), rule("{service_account}.mail.example")),
    "whatever policy says": (RULE, rule("mail.example")),
    "words that may be alike": (
        rule("{namespace}.example", namespaces=["*"]),
        rule("{service_account}.example", service_accounts=["*"]),
    ),
    "words that are alike": (rule("{namespace}.example"), rule("mail.example")),
    "one of them says so": (rule("mail.example", shared_with=["test"]), rule("mail.example")),
}


@pytest.mark.parametrize(("one", "other"), CROSSING.values(), ids=CROSSING)
def test_name_of_two_clusters_is_a_fault(
    faults_of: FaultsOf, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whoever has one cluster would have the names of the other."""
    (fault,) = faults_of(two(one, other))
    assert "of cluster 'test' can be had from cluster 'prod' too" in fault


APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "their cluster": (rule(OWN), rule(OWN)),
    "their namespaces": (
        rule("{namespace}.example", namespaces=["a", "b"]),
        rule("{namespace}.example", namespaces=["c"]),
    ),
    "both say so": (
        rule("mail.example", shared_with=["test"]),
        rule("mail.example", shared_with=["prod"]),
    ),
}


@pytest.mark.parametrize(("one", "other"), APART.values(), ids=APART)
def test_names_that_do_not_cross_are_taken(
    parse: Parse, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Or that policy lets cross."""
    assert parse(two(one, other)).agents is not None


def test_rules_of_one_cluster_may_have_the_same_names(parse: Parse) -> None:
    """It is about clusters: within one the first rule that fits counts."""
    rules = [rule("mail.example"), rule("mail.example", namespaces=["web"])]
    assert parse(agents(clusters={"prod": {**CLUSTER, "rules": rules}})).agents is not None


def test_crossings_are_told_up_to_a_number(faults_of: FaultsOf) -> None:
    """One rule for all crosses every other."""
    clusters = {f"c{n}": {**CLUSTER, "rules": [RULE]} for n in range(9)}
    assert len(faults_of(agents(clusters=clusters))) == MAX_CROSSINGS


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"upstreams": ["lcoal"]}, "upstream 'lcoal' is not defined"),
        ({"upstreams": ["apart"]}, "does not serve community 'default'"),
        ({"shared_with": ["prod"]}, "'prod' is no other cluster"),
        ({"shared_with": ["nowhere"]}, "'nowhere' is no other cluster"),
    ],
    ids=["unknown", "of others", "itself", "no cluster"],
)
def test_what_a_rule_names_is_there(
    faults_of: FaultsOf, parse: Parse, more: dict[str, Any], words: str
) -> None:
    """Upstreams that serve its community, clusters beside its own."""
    given = agents(clusters={"prod": {**CLUSTER, "rules": [rule(OWN, **more)]}})
    given |= {
        "upstreams.apart": {**copy.deepcopy(given["upstreams.nodes"]), "communities": ["lab"]},
        "communities": {"default": {}, "lab": {}},
    }
    (fault,) = faults_of(given)
    assert words in fault
    good = agents(clusters={"prod": {**CLUSTER, "rules": [rule(OWN, upstreams=["nodes"])]}})
    assert parse(good).agents is not None


def test_built_in_cas_are_those_of_the_community(parse: Parse) -> None:
    """They issue for pods where their rule names no upstream."""
    config = parse(agents())
    assert "nodes" in builtin_upstreams(config, "default")
    assert builtin_upstreams(config, "lab") == ()
