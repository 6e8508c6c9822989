"""What lies in helm/examples, on the real cluster: applied as it says, and stale in nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tests.kubernetes.applications import (
    PREFIX,
    look,
    opted_in,
    pod_template,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import AGENT_IMAGE, NGINX_IMAGE, REPOSITORY
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import namespace
from tests.kubernetes.programs import asset
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.peers import authority
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

EXAMPLES: Final = REPOSITORY / "helm" / "examples"
VALUES: Final = sorted(one.stem for one in (EXAMPLES / "values").glob("*.yaml"))

PUBLISHED_AGENT: Final = "ghcr.io/penstock/agent:0.1.0"
PUBLISHED_NGINX: Final = "docker.io/library/nginx:1.29"
"""What the examples call their images; those built here, and Debian's nginx, stand in for them."""

SERVED_SECONDS: Final = 180.0
ADMISSION: Final = f"deployment/{NAME}-admission"


# ---------------------------------------------------------------------- an agent on every node

NODE_FOLDER: Final = "/etc/penstock-node/mirror"
NODE_NAMESPACE: Final = "node-certificates"
NODE_HOST: Final = f"mirror.{NODE_NAMESPACE}.svc"


@pytest.fixture(scope="module")
def node(release: Release) -> Iterator[Cluster]:
    """The cluster, whose node has an /etc of its own: nothing is written on the machine."""
    cluster = release.cluster
    cluster.tag_image(AGENT_IMAGE, PUBLISHED_AGENT)
    upper, work = cluster.state / "etc-upper", cluster.state / "etc-work"
    for folder in (upper, work):
        folder.mkdir(exist_ok=True)
    layers = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    cluster.run(["mount", "-t", "overlay", "overlay", "-o", layers, "/etc"])
    yield cluster
    # Its pods are to be gone before the folder that they write to is.
    cluster.kubectl("delete", "namespace", NODE_NAMESPACE, "--ignore-not-found")
    cluster.run(["umount", "--lazy", "/etc"])


def on_node(cluster: Cluster, name: str) -> str:
    """Return a file of the example's folder, as a program on the node reads it."""
    return cluster.run(["cat", f"{NODE_FOLDER}/{name}"])


def chain_on_node(cluster: Cluster) -> list[x509.Certificate]:
    """Return the chain that lies on the node, none where none does."""
    try:
        return x509.load_pem_x509_certificates(on_node(cluster, "fullchain.pem").encode())
    except ClusterFailed:
        return []


def verify(chain: list[x509.Certificate], roots: str, name: str) -> None:
    """Verify a chain for a name, as a TLS client would."""
    store = Store(x509.load_pem_x509_certificates(roots.encode()))
    builder = PolicyBuilder().store(store).time(authority.real_now())
    builder.build_server_verifier(x509.DNSName(name)).verify(chain[0], chain[1:])


def test_agent_of_a_node_installs_its_certificate_there(node: Cluster, release: Release) -> None:
    """Applied as the page says: pair on the host, the key for root alone, nothing injected."""
    release.wait()
    node.kubectl("apply", "--filename", str(EXAMPLES / "node-agent.yaml"))
    status = ("rollout", "status", "daemonset/node-agent", "-n", NODE_NAMESPACE)
    node.kubectl(*status, f"--timeout={SERVED_SECONDS:.0f}s", seconds=SERVED_SECONDS + 10)
    chain = chain_on_node(node)
    verify(chain, release.trust(), NODE_HOST)
    mode = node.run(["stat", "-L", "--format=%a %U", f"{NODE_FOLDER}/privkey.pem"])
    assert mode.split() == ["600", "root"]
    assert "PRIVATE KEY" in on_node(node, "privkey.pem")
    (pod,) = node.get("pods", namespace=NODE_NAMESPACE)["items"]
    assert "initContainers" not in pod["spec"]
    assert f"{PREFIX}/status" not in pod["metadata"]["annotations"]


def test_pair_on_the_node_outlives_its_agent(node: Cluster, release: Release) -> None:
    """While there is no agent the files stay; the next one is a node of its own and renews them."""
    node.kubectl("apply", "--filename", str(EXAMPLES / "node-agent.yaml"))
    wait_until(lambda: bool(chain_on_node(node)), SERVED_SECONDS, "the pair is on the node")
    before = chain_on_node(node)[0].serial_number
    node.kubectl("delete", "daemonset", "node-agent", "-n", NODE_NAMESPACE, "--cascade=foreground")
    verify(chain_on_node(node), release.trust(), NODE_HOST)
    node.kubectl("apply", "--filename", str(EXAMPLES / "node-agent.yaml"))
    wait_until(
        lambda: chain_on_node(node)[0].serial_number != before,
        SERVED_SECONDS,
        "the next agent has a certificate of its own",
    )
    verify(chain_on_node(node), release.trust(), NODE_HOST)


# ---------------------------------------------------------- a chart that writes the sidecar itself

BY_HAND: Final = "by-hand"


@pytest.fixture
def without_admission(release: Release) -> Iterator[Cluster]:
    """The cluster while nobody looks at pods; a namespace that opted in has its roots already."""
    cluster = release.cluster
    release.wait()
    cluster.apply(opted_in(BY_HAND))
    wait_until(lambda: has_roots(release, BY_HAND), 60, "the roots are copied into the namespace")
    cluster.kubectl("scale", ADMISSION, "--replicas=0", "-n", NAMESPACE)
    cluster.kubectl(
        *("wait", "--for=delete", "pod", "-n", NAMESPACE, "--timeout=300s"),
        *("-l", "app.kubernetes.io/component=admission"),
    )
    yield cluster
    cluster.kubectl("scale", ADMISSION, "--replicas=2", "-n", NAMESPACE)
    cluster.kubectl("delete", "namespace", BY_HAND, "--wait=false")
    release.wait()


def has_roots(release: Release, where: str) -> bool:
    """Say whether a namespace has the roots that the broker published, and nothing beside them."""
    found = release.cluster.get("configmaps", namespace=where)["items"]
    copies = [one["data"] for one in found if one["metadata"]["name"] == "penstock-trust"]
    return copies == [{"ca.crt": release.trust()}]


def test_chart_that_writes_the_sidecar_itself_needs_no_admission(
    without_admission: Cluster, release: Release, tmp_path: Path
) -> None:
    """Installed with the library beside it: its pods serve, while one with an annotation, which
    somebody would have to look at, is not made."""
    cluster = without_admission
    cluster.tag_image(AGENT_IMAGE, PUBLISHED_AGENT)
    cluster.tag_image(NGINX_IMAGE, PUBLISHED_NGINX)
    shutil.copytree(REPOSITORY / "helm", tmp_path / "helm")
    chart = str(tmp_path / "helm" / "examples" / "application")
    cluster.helm("dependency", "build", chart, "--skip-refresh")
    cluster.helm("install", "front", chart, "-n", BY_HAND)
    wait_served(cluster, release.trust(), "front", BY_HAND, seconds=SERVED_SECONDS)
    status = ("rollout", "status", "deployment/front", "-n", BY_HAND)
    cluster.kubectl(*status, "--timeout=300s")
    pods = cluster.get("pods", namespace=BY_HAND)["items"]
    shown = {
        look(
            cluster, release.trust(), one["status"]["podIP"], f"front.{BY_HAND}.svc", port=8443
        ).serial_number
        for one in pods
    }
    assert len(shown) == len(pods) == 2
    with pytest.raises(ClusterFailed, match="failed calling webhook"):
        cluster.apply(annotated_pod())
    cluster.helm("uninstall", "front", "-n", BY_HAND)


def annotated_pod() -> dict[str, Any]:
    """Return a pod that asks admission for its sidecar."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        **pod_template("asking", {f"{PREFIX}/inject": "true"}),
    }
    pod["metadata"] |= {"name": "asking", "namespace": BY_HAND}
    return pod


# ------------------------------------------------------------------------------ values of the chart

TRIAL: Final = "trial"
MONITORING: Final = {
    "ServiceMonitor": "servicemonitors",
    "PrometheusRule": "prometheusrules",
}
"""Kinds of Prometheus' operator; definitions that let everything in stand in for its own."""


@pytest.fixture(scope="module")
def api(release: Release) -> Iterator[Cluster]:
    """The cluster with the kinds of others that examples use, and a namespace that warns."""
    cluster = release.cluster
    named = [part for path in sorted(asset("crds").glob("*.yaml")) for part in ("-f", str(path))]
    cluster.kubectl("apply", "--server-side", *named)
    made = [definition(kind, plural) for kind, plural in MONITORING.items()]
    warns = {f"pod-security.kubernetes.io/{how}": "restricted" for how in ("warn", "enforce")}
    # No pod is looked at whose service account is not there: `helm test` has one of its own.
    account = {"name": f"{NAME}-test", "namespace": TRIAL}
    tester = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    cluster.apply(*made, namespace(TRIAL, **warns), tester)
    names = [f"crd/{one['metadata']['name']}" for one in made]
    cluster.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
    yield cluster
    cluster.kubectl("delete", *names, f"namespace/{TRIAL}", "--wait=false")


def definition(kind: str, plural: str) -> dict[str, Any]:
    """Return the definition of a kind that takes whatever is said."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    group = "monitoring.coreos.com"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }


def manifest(cluster: Cluster, chart: Path, name: str) -> str:
    """Return what Helm would send to this cluster for an example, hooks last, having asked it."""
    file = str(EXAMPLES / "values" / f"{name}.yaml")
    dry = ("--dry-run=server", "--output", "json")
    told = json.loads(
        cluster.helm("install", NAME, str(chart), "-n", TRIAL, "--values", file, *dry)
    )
    hooks = [str(one["manifest"]) for one in told.get("hooks", ())]
    return "\n---\n".join([str(told["manifest"]), *hooks])


def apply_dry(cluster: Cluster, text: str) -> list[str]:
    """Have the API server look at every object and store none; a warning is a fault as well."""
    dry = ("--dry-run=server", "--validate=strict", "--warnings-as-errors", "--output=name")
    return cluster.kubectl("apply", *dry, "--filename=-", text=text).split()


@pytest.mark.parametrize("name", VALUES)
def test_values_of_an_example_are_taken_by_the_api_server(
    api: Cluster, release: Release, name: str
) -> None:
    """By Helm against this cluster, then object by object, as strictly as it goes."""
    text = manifest(api, release.chart, name)
    looked_at = apply_dry(api, text)
    assert len(looked_at) == sum(bool(one) for one in yaml.safe_load_all(text))
    assert f"statefulset.apps/{NAME}" in looked_at
    # `helm test` is a pod of the cluster that the broker serves, where it serves one.
    assert (f"pod/{NAME}-test" in looked_at) == (name != "broker-only")


def test_field_that_nobody_knows_would_be_refused(api: Cluster, release: Release) -> None:
    """The twin: one misspelt field in what an example makes."""
    text = manifest(api, release.chart, "everything")
    wrong = text.replace("revisionHistoryLimit:", "revisionHistroyLimit:", 1)
    assert wrong != text
    with pytest.raises(ClusterFailed, match="revisionHistroyLimit"):
        apply_dry(api, wrong)
