"""Upstreams of cluster rules that cost somebody's limits, and the quotas that count them."""

from pathlib import Path
from typing import Any

import pytest

from broker.config.policies import load_policies
from broker.policy.yamlfile import Faults
from tests.unit.config.conftest import FaultsOf, Parse
from tests.unit.config.test_publishing import with_trust
from tests.unit.config.test_vouching import CLUSTER, agents

POLICY = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
cap: 90d
names: {{allow: ["**.example.com"]}}
challenges: [http-01]
keys: {{allow: [ec-p256]}}
profiles:
  server:
    description: servers
    usages: [server-auth]
    upstreams: [{{upstream: public}}, {{upstream: local}}]
default_profile: server
{rules}
"""
PUBLIC = {
    "kind": "acme",
    "directory": "https://ca.example/directory",
    "description": "lets-encrypt",
}


def rules(*listed: str) -> str:
    """Return rules with a quota per workload, each with more keys."""
    made = [
        f"  - {{name: r{n}, because: budget, {more} quotas: [{{per: workload, limit: 5/7d{on}}}]}}"
        for n, (more, on) in enumerate(one.split("|") for one in listed)
    ]
    return "\n".join(["rules:", *made])


def found(tmp_path: Path, parse: Parse, text: str, **rule: Any) -> str:
    """Return the first fault of a configuration and a policy, empty where there is none."""
    (tmp_path / "default.yaml").write_text(POLICY.format(rules=text))
    made = {
        "namespaces": ["shop"],
        "service_accounts": ["web"],
        "names": ["web.example.com"],
        "upstreams": ["public", "local"],
        **rule,
    }
    config = parse(
        agents(clusters={"prod": {**CLUSTER, "rules": [made]}})
        | {"upstreams.public": PUBLIC, "policies": [str(tmp_path)]}
    )
    try:
        load_policies(config)
    except Faults as faults:
        return str(faults.faults[0])
    return ""


COUNTED = {
    "all": "|",
    "this upstream": "|, upstreams: [public]",
    "this cluster": "who: {clusters: [prod]},|",
    "this namespace": "who: {namespaces: [shop, web]},|",
    "this account": "who: {service_accounts: [shop/web]},|",
}


@pytest.mark.parametrize("rule", COUNTED.values(), ids=COUNTED)
def test_quota_for_all_of_its_orders_lets_a_public_upstream_be(
    tmp_path: Path, parse: Parse, rule: str
) -> None:
    """Whatever it is said by."""
    assert found(tmp_path, parse, rules(rule)) == ""


UNCOUNTED = {
    "none": "",
    "other upstream": rules("|, upstreams: [local]"),
    "other cluster": rules("who: {clusters: [test]},|"),
    "other namespace": rules("who: {namespaces: [web]},|"),
    "other account": rules("who: {service_accounts: [shop/db]},|"),
    "some names": rules("names: ['a.example.com'],|"),
    "a profile": rules("profiles: [server],|"),
    "until a day": rules("until: 2099-01-01,|"),
    "not of somebody": rules("not_who: {namespaces: [shop]},|"),
    "nodes": rules("who: {nodes: ['**']},|"),
    "one or the other": rules("who: {any: [{clusters: [prod]}, {clusters: [test]}]},|"),
    "only warned of": rules("mode: warn,|"),
    "not for renewals": rules("renewals: exempt,|"),
    "per requester": rules("|").replace("workload", "requester"),
}


@pytest.mark.parametrize("text", UNCOUNTED.values(), ids=UNCOUNTED)
def test_public_upstream_that_is_not_counted_is_a_fault(
    tmp_path: Path, parse: Parse, text: str
) -> None:
    """A key in memory means a new certificate at every start."""
    fault = found(tmp_path, parse, text)
    assert "upstream 'public' is no built-in CA" in fault
    assert "quota 'per: workload'" in fault


def test_built_in_cas_need_no_budget(tmp_path: Path, parse: Parse) -> None:
    """Nobody counts what they issue."""
    assert found(tmp_path, parse, "", upstreams=["local"]) == ""
    assert found(tmp_path, parse, "", upstreams=[]) == ""


def with_upstreams(*upstreams: str, **more: Any) -> dict[str, Any]:
    """Return a change with one rule of a cluster, and more."""
    made = {"namespaces": ["shop"], "service_accounts": ["web"], "upstreams": list(upstreams)}
    own = agents(clusters={"prod": {**CLUSTER, "rules": [made]}})
    return own | {"upstreams.public": dict(PUBLIC)} | more


def test_upstream_whose_roots_are_not_published_is_a_fault(faults_of: FaultsOf) -> None:
    """Pods would refuse what it issued, and its budget would be spent for nothing."""
    (fault,) = faults_of(with_upstreams("local", "public", **with_trust()))
    assert "rules[0].upstreams[1]: upstream 'public' has no anchors" in fault


ANCHORED: dict[str, dict[str, Any]] = {
    "its own": {"upstreams.public.anchors": "/etc/penstock/public.pem", **with_trust()},
    "its community's": {"communities.default.anchors": "/etc/penstock/a.pem", **with_trust()},
    "nothing is published": {},
    "another community is": {
        "communities": {"default": {}, "lab": {}},
        "upstreams.local.communities": ["default", "lab"],
        **with_trust(communities=["lab"]),
    },
}


@pytest.mark.parametrize("more", ANCHORED.values(), ids=ANCHORED)
def test_upstream_whose_roots_pods_have_is_taken(parse: Parse, more: dict[str, Any]) -> None:
    """Or where pods have theirs from elsewhere."""
    assert parse(with_upstreams("local", "public", **more)).agents is not None


def test_built_in_cas_have_roots_of_their_own(parse: Parse) -> None:
    """They are published whatever is configured."""
    assert parse(with_upstreams("local", **with_trust())).agents is not None


def test_every_namespace_takes_a_rule_for_every_namespace(tmp_path: Path, parse: Parse) -> None:
    """A list is not all."""
    some = rules("who: {namespaces: [shop]},|")
    assert "is no built-in CA" in found(tmp_path, parse, some, namespaces=["*"])
    assert found(tmp_path, parse, rules("who: {clusters: [prod]},|"), namespaces=["*"]) == ""


def test_upstream_of_a_quota_is_there(tmp_path: Path, parse: Parse) -> None:
    """A misspelt one would count nothing."""
    fault = found(tmp_path, parse, rules("|", "|, upstreams: [pubilc]"))
    assert "no upstream is called 'pubilc'" in fault
