"""Agents of two clusters at one broker: each is trusted by its issuer's keys and audience alone.

The second cluster is its issuer: a key of the test's own signs the tokens that the second API
server would project into its pods, with the same claims.  Their agents are pods of the one cluster
that there is, with such a token from a Secret; to the broker they come from elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.cluster_issuer import ISSUER, ClusterIssuer
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import AGENT_IMAGE
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT, namespace, service
from tests.kubernetes.release import NAMESPACE, Release
from tests.peers import authority

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "twins"
OTHER_ISSUER: Final = "https://kubernetes.other.example"
OTHER_AUDIENCE: Final = "penstock-other"
OURS: Final = f"web.{WHERE}.svc"
"""The name that a pod of the first cluster has by its Service."""

THEIRS: Final = f"default.{WHERE}.other.svc"
END_SECONDS: Final = 120.0
"""Longest wait until an agent that runs once has ended."""

GIVE_UP_SECONDS: Final = 15
"""How long an agent tries that is not let in, or gets nothing."""

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


def values(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chart's values for two clusters with one rule each."""
    everybody = {"namespaces": ["*"], "service_accounts": ["*"]}
    other = {
        "issuer": OTHER_ISSUER,
        "audience": OTHER_AUDIENCE,
        "keys": "/etc/penstock/files/other/keys.json",
        "rules": [{"namespaces": [WHERE], "service_accounts": ["default"], **theirs}],
    }
    return {
        "config": {"agents": {"clusters": {"other": other}}},
        "cluster": {"rules": [{**everybody, "names": ["{service}.{namespace}.svc"], **own}]},
        "files": {"other": "other-cluster"},
        "policies": {"files": {"default.yaml": POLICY}},
    }


@pytest.fixture(scope="module")
def other() -> ClusterIssuer:
    """The issuer of the second cluster."""
    return ClusterIssuer(ec.generate_private_key(ec.SECP256R1()), issuer=OTHER_ISSUER)


@pytest.fixture(scope="module")
def two(release: Release, other: ClusterIssuer) -> Iterator[Release]:
    """The broker with both clusters, and where their agents run."""
    cluster = release.cluster
    metadata = {"name": "other-cluster", "namespace": NAMESPACE}
    keys = {"keys.json": other.key_set().decode("ascii")}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": keys})
    release.upgrade(values({}, {"names": ["{service_account}.{namespace}.other.svc"]}))
    cluster.apply(namespace(WHERE), service("web", 443, where=WHERE))
    trust = {"name": "trust", "namespace": WHERE}
    roots = {"ca.crt": release.trust()}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": trust, "data": roots})
    yield release
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")
    release.upgrade()


def token_of(issuer: ClusterIssuer, pod: str, **changes: Any) -> str:
    """Return the token that a cluster's API server would project into a pod."""
    told = {
        "namespace": WHERE,
        "serviceaccount": {"name": "default", "uid": "u-default"},
        "pod": {"name": pod, "uid": f"u-{pod}"},
    }
    claims = {
        "sub": f"system:serviceaccount:{WHERE}:default",
        "aud": [OTHER_AUDIENCE],
        "kubernetes.io": told,
        **changes,
    }
    return issuer.token(authority.real_now(), **claims)


def agent(name: str, wanted: str, token: str | None, *, audience: str = "penstock") -> Any:
    """Return a pod whose agent runs once, and the Secret of its token.

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
        "args": ["once", "--config", "env:FILE", "--timeout", str(GIVE_UP_SECONDS)],
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
    return {one["node"] for one in json.loads(release.penstock("node", "list", "--json"))}


def test_each_cluster_has_its_own_names(two: Release, other: ClusterIssuer) -> None:
    """One agent of each, under one namespace and account: both are served, under their cluster."""
    cluster = two.cluster
    cluster.apply(*agent("web-a", OURS, None))
    cluster.apply(*agent("web-b", THEIRS, token_of(other, "web-b")))
    told = ended(cluster, "web-a", "web-b")
    assert set(told.values()) == {"Succeeded"}, cluster.story(WHERE)
    assert {f"web-a.{WHERE}.cluster", f"web-b.{WHERE}.other"} <= nodes(two)


def test_tokens_of_one_cluster_are_nothing_at_the_other(two: Release, other: ClusterIssuer) -> None:
    """The same namespace and account, by the wrong key, issuer or audience: nobody is let in."""
    cluster = two.cluster
    forged = ClusterIssuer(other.key, other.key_id, ISSUER)
    stranger = ClusterIssuer(ec.generate_private_key(ec.SECP256R1()), issuer=OTHER_ISSUER)
    tokens = {
        "their-key-our-issuer": token_of(forged, "their-key-our-issuer", aud=["penstock"]),
        "their-key-our-audience": token_of(other, "their-key-our-audience", aud=["penstock"]),
        "strange-key": token_of(stranger, "strange-key"),
    }
    for name, token in tokens.items():
        cluster.apply(*agent(name, OURS, token))
    cluster.apply(*agent("our-token-their-audience", THEIRS, None, audience=OTHER_AUDIENCE))
    told = ended(cluster, *tokens, "our-token-their-audience")
    assert set(told.values()) == {"Failed"}, told
    assert not {name for name in nodes(two) if name.partition(".")[0] in told}


def test_a_name_of_one_cluster_is_not_had_from_the_other(
    two: Release, other: ClusterIssuer
) -> None:
    """It is let in as who it is, under A's namespace and account, and gets nothing of A's."""
    cluster = two.cluster
    cluster.apply(*agent("crossing", OURS, token_of(other, "crossing")))
    assert ended(cluster, "crossing") == {"crossing": "Failed"}
    assert f"crossing.{WHERE}.other" in nodes(two)
    assert OURS in cluster.kubectl("logs", "crossing", "-n", WHERE)


def test_the_same_name_for_two_clusters_has_to_be_said_by_both(
    two: Release, other: ClusterIssuer
) -> None:
    """With ``shared_with`` in both rules the second cluster has it as well."""
    two.upgrade(values({"shared_with": ["other"]}, {"names": [OURS], "shared_with": ["cluster"]}))
    cluster = two.cluster
    cluster.apply(*agent("shared", OURS, token_of(other, "shared")))
    assert ended(cluster, "shared") == {"shared": "Succeeded"}, cluster.story(WHERE)
