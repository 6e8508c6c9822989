"""Sections of clusters and client certificates: what is taken, and what is refused and why."""

import json
from typing import Any

import pytest

from tests.unit.config.conftest import FaultsOf, Parse
from tests.unit.config.test_agent_checks import NODES

RULE: dict[str, Any] = {"namespaces": ["mail"], "service_accounts": ["postfix"]}
CLUSTER: dict[str, Any] = {
    "issuer": "https://kubernetes.default.svc",
    "keys": "/etc/penstock/prod.jwks",
    "rules": [RULE],
}
AGENTS: dict[str, Any] = {"identity": {"upstream": "nodes"}}
REVIEW = {"server": "https://10.96.0.1", "token": "file:/var/run/token"}


def agents(**more: Any) -> dict[str, Any]:
    """Return a change of the smallest configuration: nodes, and more; no part of it twice."""
    return {"upstreams.nodes": NODES, "agents": json.loads(json.dumps({**AGENTS, **more}))}


def with_cluster(**changes: Any) -> dict[str, Any]:
    """Return nodes of one cluster, whose section has changes."""
    made = {name: value for name, value in (CLUSTER | changes).items() if value is not None}
    return agents(clusters={"prod": made})


def test_smallest_cluster_has_harmless_defaults(parse: Parse) -> None:
    """An audience of our own, and a name that tells pod, namespace and cluster."""
    section = parse(with_cluster()).agents
    assert section is not None
    cluster = section.clusters["prod"]
    assert cluster.audience == "penstock"
    (rule,) = cluster.rules
    assert (rule.node, rule.names, rule.profiles) == ("{pod}.{namespace}.{cluster}", (), ())


@pytest.mark.parametrize(
    "way",
    [
        {"keys": None, "keys_url": "https://issuer.example/openid/v1/jwks"},
        {"keys": None, "review": REVIEW},
    ],
    ids=["keys_url", "review"],
)
def test_each_way_to_believe_a_token(parse: Parse, way: dict[str, Any]) -> None:
    """Keys from a file, from the issuer, or an API server that is asked."""
    assert parse(with_cluster(**way)).agents is not None


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no way": (with_cluster(keys=None), "expected one of keys, keys_url and review"),
    "two ways": (with_cluster(review=REVIEW), "expected one of keys, keys_url and review"),
    "plain http": (with_cluster(keys=None, keys_url="http://x.example/jwks"), "expected a URL"),
    "token in the file": (
        with_cluster(keys=None, review={**REVIEW, "token": "eyJhbGciOi"}),
        "expected a reference",
    ),
    "token in Vault": (
        with_cluster(keys=None, review={**REVIEW, "token": "vault:kv/a/b#c"}),
        "expected a 'file:' or 'env:' reference",
    ),
    "no rule": (with_cluster(rules=[]), "rules"),
    "unknown word": (with_cluster(rules=[{**RULE, "node": "{host}.x.y"}]), "'{host}' is none of"),
    "node with a star": (with_cluster(rules=[{**RULE, "node": "*.x.y"}]), "no '*'"),
    "node of one label": (with_cluster(rules=[{**RULE, "node": "{pod}"}]), "single label"),
    "name that is no pattern": (with_cluster(rules=[{**RULE, "names": ["a..b"]}]), "a..b"),
    "pattern of namespaces": (with_cluster(rules=[{**RULE, "namespaces": ["ma*"]}]), "ma*"),
    "two words in a label": (
        with_cluster(rules=[{**RULE, "names": ["{service_account}-{namespace}.apps.example"]}]),
        "write a label for each word, as '{service_account}.{namespace}'",
    ),
    "two words that touch": (
        with_cluster(rules=[{**RULE, "names": ["{namespace}{service_account}.apps.example"]}]),
        "'{namespace}{service_account}' has more than one word in a label",
    ),
    "node of two words in a label": (
        with_cluster(rules=[{**RULE, "node": "{pod}-{namespace}.{cluster}"}]),
        "write a label for each word, as '{pod}.{namespace}'",
    ),
    "certificates without names": (
        agents(client_anchors="/a.pem", client_certificates=[{"owner": "x"}]),
        "expected names, or node with subjects",
    ),
    "node for every certificate": (
        agents(client_anchors="/a.pem", client_certificates=[{"node": "a.b.example"}]),
        "needs subjects",
    ),
    "names and node": (
        agents(
            client_anchors="/a.pem",
            client_certificates=[{"names": ["a.b"], "node": "a.b", "subjects": ["CN=a"]}],
        ),
        "expected names, or node with subjects",
    ),
}


@pytest.mark.parametrize(("changes", "told"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told(faults_of: FaultsOf, changes: dict[str, Any], told: str) -> None:
    """Each with what was expected."""
    assert any(told in fault for fault in faults_of(changes)), faults_of(changes)


def test_secret_that_stands_in_the_file_is_not_repeated(faults_of: FaultsOf) -> None:
    """It may be the token itself."""
    section = with_cluster(keys=None, review={**REVIEW, "token": "eyJhbGciOi"})
    assert "eyJ" not in "".join(faults_of(section))


def test_rule_of_a_pod_may_speak_of_services(parse: Parse) -> None:
    """Where an API server is named that knows them, and the node is the pod's own."""
    rule = {**RULE, "names": ["{service}.{namespace}.svc", "{pod}.{cluster}.example"]}
    section = parse(with_cluster(rules=[rule], pods=REVIEW)).agents
    assert section is not None
    assert section.clusters["prod"].pods is not None
    assert section.clusters["prod"].rules[0].upstreams == ()


def test_word_may_be_a_part_of_a_label(parse: Parse) -> None:
    """One beside letters of ours is told apart, and so is each in a label of its own."""
    names = ["web-{service_account}.{namespace}-x.apps.example", "{service_account}.{namespace}.a"]
    section = parse(with_cluster(rules=[{**RULE, "names": names, "node": "n-{pod}.{cluster}"}]))
    assert section.agents is not None
    assert section.agents.clusters["prod"].rules[0].names == tuple(names)


SERVED = {**RULE, "names": ["{service}.svc"]}
ODD: dict[str, tuple[dict[str, Any], str]] = {
    "nobody knows": ({"rules": [SERVED]}, "pods has to name an API server"),
    "node of many": (
        {"rules": [{**SERVED, "node": "{service_account}.{cluster}"}], "pods": REVIEW},
        "names have '{service}', so node needs '{pod}'",
    ),
    "pod in names alone": (
        {"rules": [{**RULE, "node": "x.example", "names": ["{pod}.example"]}]},
        "names have '{pod}', so node needs '{pod}'",
    ),
    "service in a node": ({"rules": [{**RULE, "node": "{service}.example"}]}, "'{service}' is no"),
    "token in Vault": ({"pods": {**REVIEW, "token": "vault:kv/a/b#c"}}, "'file:' or 'env:'"),
    "token for nothing": ({"keys_token": "file:/token"}, "keys_token is for keys_url"),
    "keys in Vault": (
        {"keys": None, "keys_url": "https://a.example/", "keys_token": "vault:kv/a/b#c"},
        "'file:' or 'env:'",
    ),
}


@pytest.mark.parametrize(("changes", "words"), ODD.values(), ids=ODD)
def test_cluster_that_could_not_work(
    faults_of: FaultsOf, changes: dict[str, Any], words: str
) -> None:
    """Each with what is missing."""
    faults = faults_of(with_cluster(**changes))
    assert any(words in one for one in faults), faults
