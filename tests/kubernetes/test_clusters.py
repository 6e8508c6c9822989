"""Agents of two clusters at one broker: each is trusted by its issuer's keys and audience alone.

The second cluster is a real API server, which has no node: it publishes its keys, and makes the
tokens that its pods would show.  Their agents run in pods of the first, with such a token from a
Secret; to the broker they come from elsewhere.  Forged tokens alone are the tests' own work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.fakes.cluster_issuer import ClusterIssuer
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.configuration import ISSUER
from tests.kubernetes.images import AGENT_IMAGE
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT, namespace, service
from tests.kubernetes.release import NAMESPACE, Release
from tests.kubernetes.second_api import SecondApi
from tests.peers import authority

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "twins"
OTHER_ISSUER: Final = "https://kubernetes.other.example"
AUDIENCE: Final = "penstock"
OTHER_AUDIENCE: Final = "penstock-other"
OURS: Final = f"web.{WHERE}.svc"
"""The name that a pod of the first cluster has by its Service."""

THEIRS: Final = f"default.{WHERE}.other.svc"
END_SECONDS: Final = 300.0
"""Longest wait until an agent that runs once has ended."""

GIVE_UP_SECONDS: Final = 15
"""How long an agent tries that is not to be let in, or is to get nothing."""

SERVED_SECONDS: Final = 90
"""How long one tries that is to be served; 3 s on an idle machine."""

POLICY: Final = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
description: Services of two clusters; which names are whose is said by the rules of each
names:
  allow: ["**.svc"]
  wildcards: false
challenges: [http-01]
keys:
  allow: [ec-p256]
cap: 7d
profiles:
  server:
    description: TLS servers in pods
    usages: [server-auth]
    upstreams: [{ upstream: local }]
default_profile: server
trusted:
  - nodes: ["**.cluster", "**.other"]
    names: ["**.svc"]
    profiles: [server]
    because: each cluster vouches for its pods
"""

FILE: Final = """\
[node]
state = "/var/lib/penstock-agent"
allowed = ["/var/run/penstock/tls"]
workers = 1
[broker]
url = "https://penstock-agents.penstock.svc:8445"
anchors = "/var/run/penstock/trust/ca.crt"
[enrol]
method = "kubernetes"
credential = "file:/var/run/secrets/penstock/token"
[[certificate]]
name = "pod"
names = ["{name}"]
[certificate.files]
layout = "kubernetes"
directory = "/var/run/penstock/tls"
[certificate.expects]
anchors = "/var/run/penstock/trust/ca.crt"
"""


ALIKE: Final = {"issuer": ISSUER, "audience": AUDIENCE}
"""What two clusters have in common that were never told otherwise."""

APART: Final = {"issuer": OTHER_ISSUER, "audience": OTHER_AUDIENCE}


def values(
    other: Mapping[str, str],
    own_rule: Mapping[str, Any],
    their_rule: Mapping[str, Any],
    *,
    tokens: str = "review",
) -> dict[str, Any]:
    """Return the chart's values for two clusters with one rule each."""
    everybody = {"namespaces": ["*"], "service_accounts": ["*"]}
    rule = {**everybody, "names": ["{service}.{namespace}.svc"], **own_rule}
    section = {
        **other,
        "keys": "/etc/penstock/files/other/keys.json",
        "rules": [{"namespaces": [WHERE], "service_accounts": ["default"], **their_rule}],
    }
    return {
        "config": {"agents": {"clusters": {"other": section}}},
        "cluster": {"tokens": tokens, "rules": [rule]},
        "files": {"other": "other-cluster"},
        "policies": {"files": {"default.yaml": POLICY}},
    }


@pytest.fixture(scope="module")
def other(release: Release) -> Iterator[SecondApi]:
    """The second cluster."""
    second = SecondApi(release.cluster)
    second.start(OTHER_ISSUER)
    second.make_namespace(WHERE)
    yield second
    second.stop()


@pytest.fixture(scope="module")
def two(release: Release, other: SecondApi) -> Iterator[Release]:
    """The broker with both clusters, and where their agents run."""
    cluster = release.cluster
    metadata = {"name": "other-cluster", "namespace": NAMESPACE}
    keys = {"keys.json": other.keys()}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": keys})
    release.upgrade(values(APART, {}, {"names": ["{service_account}.{namespace}.other.svc"]}))
    cluster.apply(namespace(WHERE), service("web", 443, where=WHERE))
    trust = {"name": "trust", "namespace": WHERE}
    roots = {"ca.crt": release.trust()}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": trust, "data": roots})
    yield release
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")
    release.upgrade()


@pytest.fixture(scope="module")
def alike(two: Release, other: SecondApi) -> Release:
    """The same two with one issuer and one audience, so that keys alone tell them apart; and with
    one name that the rules of both give."""
    other.change_issuer(ISSUER)
    shared = {"names": [OURS], "shared_with": ["cluster"]}
    two.upgrade(values(ALIKE, {"shared_with": ["other"]}, shared, tokens="keys"))
    return two


def forged(key: Any, key_id: str, issuer: str, audience: str) -> str:
    """Return what whoever has *key* can make of the claims of a pod of ours."""
    told = {
        "namespace": WHERE,
        "serviceaccount": {"name": "default", "uid": "u-default"},
        "pod": {"name": "forged", "uid": "u-forged"},
    }
    claims = {
        "sub": f"system:serviceaccount:{WHERE}:default",
        "aud": [audience],
        "kubernetes.io": told,
    }
    return ClusterIssuer(key, key_id, issuer).token(authority.real_now(), **claims)


def forgeries(other: SecondApi, issuer: str) -> dict[str, str]:
    """Return tokens for this broker that no API server made, by who could have made them."""
    (published,) = json.loads(other.keys())["keys"]
    key_id = str(published["kid"])
    theirs = load_pem_private_key((other.pki / "tokens.key").read_bytes(), None)
    strange = ec.generate_private_key(ec.SECP256R1())
    return {
        "their-key-our-issuer": forged(theirs, "another", ISSUER, AUDIENCE),
        "strange-key": forged(strange, key_id, issuer, AUDIENCE),
        "strange-key-their-audience": forged(strange, key_id, issuer, OTHER_AUDIENCE),
    }


def stranger(name: str, wanted: str, token: str | None, *, audience: str = AUDIENCE) -> Any:
    """Return an agent that is to come to nothing, with its Secret."""
    return agent(name, wanted, token, audience=audience, seconds=GIVE_UP_SECONDS)


def agent(
    name: str,
    wanted: str,
    token: str | None,
    *,
    audience: str = AUDIENCE,
    seconds: int = SERVED_SECONDS,
) -> Any:
    """Return a pod whose agent runs once, for so many seconds, and the Secret of its token.

    Without a token it has the one that this cluster projects for *audience*.
    """
    projected = {"serviceAccountToken": {"audience": audience, "path": "token"}}
    sources = [projected] if token is None else [{"secret": {"name": name}}]
    mounts = {
        "state": "/var/lib/penstock-agent",
        "tls": "/var/run/penstock/tls",
        "token": "/var/run/secrets/penstock",
        "trust": "/var/run/penstock/trust",
    }
    container = {
        "name": "main",
        "image": AGENT_IMAGE,
        "args": ["once", "--config", "env:FILE", "--timeout", str(seconds)],
        "env": [{"name": "FILE", "value": FILE.format(name=wanted)}],
        "securityContext": dict(STRICT),
        "volumeMounts": [{"name": key, "mountPath": path} for key, path in mounts.items()],
    }
    volumes = [
        {"name": "state", "emptyDir": {"medium": "Memory"}},
        {"name": "tls", "emptyDir": {"medium": "Memory"}},
        {"name": "token", "projected": {"sources": sources}},
        {"name": "trust", "configMap": {"name": "trust"}},
    ]
    metadata = {"name": name, "namespace": WHERE, "labels": {"app": "web"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    spec["securityContext"] = {"fsGroup": 65532}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    kept = {"metadata": {"name": name, "namespace": WHERE}, "stringData": {"token": token or ""}}
    return [{"apiVersion": "v1", "kind": "Secret", **kept}, pod]


def ended(cluster: Cluster, *names: str) -> dict[str, str]:
    """Return how pods ended, once all of them have, by their names."""
    end = time.monotonic() + END_SECONDS
    while True:
        found = cluster.get("pods", namespace=WHERE)["items"]
        phases = {one["metadata"]["name"]: str(one["status"]["phase"]) for one in found}
        told = {name: phases[name] for name in names}
        if set(told.values()) <= {"Succeeded", "Failed"}:
            return told
        if time.monotonic() > end:
            raise ClusterFailed(f"{told}\n{cluster.story(WHERE)}\n{cluster.story(NAMESPACE)}")
        time.sleep(0.5)


def nodes(release: Release) -> set[str]:
    """Return the names of the nodes that the broker knows."""
    return {
        one["node"]
        for one in json.loads(release.penstock("node", "list", "--limit", "1000", "--json"))
    }


def test_each_cluster_has_its_own_names(two: Release, other: SecondApi) -> None:
    """One agent of each, under one namespace and account: both are served, under their cluster."""
    cluster = two.cluster
    assert other.issuer() == OTHER_ISSUER
    cluster.apply(*agent("web-a", OURS, None))
    cluster.apply(*agent("web-b", THEIRS, other.token("web-b", WHERE, OTHER_AUDIENCE)))
    told = ended(cluster, "web-a", "web-b")
    assert set(told.values()) == {"Succeeded"}, cluster.story(WHERE)
    assert {f"web-a.{WHERE}.cluster", f"web-b.{WHERE}.other"} <= nodes(two)


def test_tokens_of_one_cluster_are_nothing_at_the_other(two: Release, other: SecondApi) -> None:
    """The same namespace and account, by the wrong key, issuer or audience: nobody is let in."""
    cluster = two.cluster
    tokens = forgeries(other, OTHER_ISSUER)
    tokens["their-token-our-audience"] = other.token("their-token", WHERE, AUDIENCE)
    before = nodes(two)
    for name, token in tokens.items():
        cluster.apply(*stranger(name, OURS, token))
    cluster.apply(*stranger("our-token-their-audience", THEIRS, None, audience=OTHER_AUDIENCE))
    told = ended(cluster, *tokens, "our-token-their-audience")
    assert set(told.values()) == {"Failed"}, told
    assert nodes(two) == before


def test_a_name_of_one_cluster_is_not_had_from_the_other(two: Release, other: SecondApi) -> None:
    """It is let in as who it is, under A's namespace and account, and gets nothing of A's."""
    cluster = two.cluster
    cluster.apply(*stranger("crossing", OURS, other.token("crossing", WHERE, OTHER_AUDIENCE)))
    assert ended(cluster, "crossing") == {"crossing": "Failed"}
    assert f"crossing.{WHERE}.other" in nodes(two)
    assert OURS in cluster.kubectl("logs", "crossing", "-n", WHERE)


def test_the_same_name_for_two_clusters_has_to_be_said_by_both(
    alike: Release, other: SecondApi
) -> None:
    """With ``shared_with`` in both rules the second cluster has it as well."""
    cluster = alike.cluster
    cluster.apply(*agent("shared", OURS, other.token("shared", WHERE, AUDIENCE)))
    assert ended(cluster, "shared") == {"shared": "Succeeded"}, cluster.story(WHERE)


def test_clusters_of_one_issuer_are_told_apart_by_their_keys(
    alike: Release, other: SecondApi
) -> None:
    """As most clusters call themselves: each pod is a node of the cluster whose key its token is
    signed by, and a key of neither lets nobody in."""
    cluster = alike.cluster
    assert other.issuer() == ISSUER
    cluster.apply(*agent("one-of-ours", OURS, None))
    cluster.apply(*agent("one-of-theirs", OURS, other.token("one-of-theirs", WHERE, AUDIENCE)))
    strangers = {f"alike-{name}": one for name, one in forgeries(other, ISSUER).items()}
    for name, token in strangers.items():
        cluster.apply(*stranger(name, OURS, token))
    told = ended(cluster, "one-of-ours", "one-of-theirs", *strangers)
    served = {name for name, phase in told.items() if phase == "Succeeded"}
    assert served == {"one-of-ours", "one-of-theirs"}, cluster.story(WHERE)
    known = nodes(alike)
    assert {f"one-of-ours.{WHERE}.cluster", f"one-of-theirs.{WHERE}.other"} <= known
    assert f"forged.{WHERE}.cluster" not in known
    assert f"forged.{WHERE}.other" not in known
