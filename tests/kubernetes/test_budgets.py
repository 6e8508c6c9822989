"""A public CA that policy grants to pods, as far as the budget of each workload goes.

There is no built-in CA to go on with: past the figure a pod is refused as it is made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.kubernetes.applications import (
    PREFIX,
    address_of,
    application,
    events,
    exposed,
    look,
    opted_in,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.limited_ca import LimitedCa
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import NAMESPACE, Release
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "metered"
ACCOUNTS: Final = "accounts"
"""Where service accounts decide: one of them has the names of Services, the others have not."""

CA: Final = "metered"
PORT: Final = 14200
BUDGET: Final = 2
"""Certificates of the public CA for one workload in a week: fewer than the CA itself gives."""

SERVED_SECONDS: Final = 180.0
SAID_SECONDS: Final = 300.0

POLICY: Final = f"""\
apiVersion: penstock.dev/v1
kind: Policy
community: default
description: Services of this cluster; for some of them a public CA, by the budget of each workload
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
    upstreams: [{{ upstream: local }}]
  public:
    description: TLS servers that strangers reach
    usages: [server-auth]
    upstreams: [{{ upstream: {CA} }}]
default_profile: server
trusted:
  - nodes: ["**.cluster"]
    names: ["**.svc"]
    profiles: [server, public]
    because: the cluster vouches for its pods
rules:
  - name: public-budget
    because: one workload may not take what the public CA gives to all
    quotas:
      - {{ per: workload, limit: {BUDGET}/7d, upstreams: [{CA}] }}
"""

RULES: Final = [
    {
        "namespaces": [ACCOUNTS],
        "service_accounts": ["front"],
        "names": ["{service}.{namespace}.svc"],
    },
    {
        "namespaces": [ACCOUNTS],
        "service_accounts": ["*"],
        "names": ["{service_account}.{namespace}.jobs.svc"],
    },
    {
        "namespaces": [WHERE],
        "service_accounts": ["*"],
        "names": ["{service}.{namespace}.svc"],
        "upstreams": [CA],
    },
    {
        "namespaces": ["*"],
        "service_accounts": ["*"],
        "names": ["{service}.{namespace}.svc"],
    },
]


@pytest.fixture(scope="module")
def ca(release: Release) -> Iterator[LimitedCa]:
    """The broker with a public CA beside its own, for the pods of one namespace."""
    cluster = release.cluster
    release.wait()
    public = LimitedCa(cluster, "metered-ca", PORT)
    public.start()
    metadata = {"name": "metered-ca", "namespace": NAMESPACE}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": public.files()}
    cluster.apply(files)
    release.upgrade(
        {
            "config": {"upstreams": {CA: public.upstream("metered")}},
            "files": {"metered": "metered-ca"},
            "policies": {"files": {"default.yaml": POLICY}},
            "cluster": {"rules": RULES},
        }
    )
    release.penstock("upstream", "register", CA, "--agree-to-terms")
    root = public.files()["root.pem"].strip()
    wait_until(lambda: root in release.trust(), SAID_SECONDS, "pods have the public CA's root")
    cluster.apply(opted_in(WHERE), settings(WHERE))
    yield public
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")
    release.upgrade()


def workload(name: str) -> list[dict[str, Any]]:
    """Return an application with a Service and a service account of its own."""
    made = application(name, WHERE, profile="public")
    made["spec"]["template"]["spec"]["serviceAccountName"] = name
    return [account(name, WHERE), exposed(name, WHERE), made]


def account(name: str, where: str) -> dict[str, Any]:
    """Return a service account."""
    metadata = {"name": name, "namespace": where}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def restart(cluster: Cluster, name: str) -> None:
    """Have a Deployment make its pods anew; the old ones stay until those are ready."""
    cluster.kubectl("rollout", "restart", f"deployment/{name}", "-n", WHERE)


def serial(release: Release, name: str) -> int:
    """Return the serial number of what an application serves, once it verifies."""
    cluster, seen = release.cluster, list[int]()

    def is_seen() -> bool:
        # The Service may lead to the pod before for a moment longer.
        try:
            address = address_of(cluster, name, WHERE)
            found = look(cluster, release.trust(), address, f"{name}.{WHERE}.svc")
        except ClusterFailed:
            return False
        seen.append(int(found.serial_number))
        return True

    wait_until(is_seen, SERVED_SECONDS, f"{name} serves")
    return seen[0]


def issued(ca: LimitedCa) -> Counter[tuple[str, ...]]:
    """Return how many certificates the CA really gave for each set of names."""
    return Counter(one.names for one in ca.ledger().certificates)


@pytest.fixture(scope="module")
def spent(ca: LimitedCa, release: Release) -> Release:
    """The release once one workload was started as often as its budget allows."""
    cluster = release.cluster
    cluster.apply(*workload("web"))
    wait_served(cluster, release.trust(), "web", WHERE, seconds=SERVED_SECONDS)
    for _ in range(BUDGET - 1):
        restart(cluster, "web")
        cluster.kubectl("rollout", "status", "deployment/web", "-n", WHERE, "--timeout=300s")
    assert issued(ca)[(f"web.{WHERE}.svc",)] == BUDGET
    return release


def ask(cluster: Cluster, name: str) -> str:
    """Ask admission about one more pod of a workload; none is made."""
    (made,) = (one for one in workload(name) if one["kind"] == "Deployment")
    pod = {"apiVersion": "v1", "kind": "Pod", **made["spec"]["template"]}
    pod["metadata"] |= {"name": "asked", "namespace": WHERE}
    return cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))


def test_pod_past_its_workloads_budget_is_refused_with_the_figure(
    spent: Release, ca: LimitedCa
) -> None:
    """It is not made, and the event of its ReplicaSet says which budget it would exceed; the pod
    that was there serves on."""
    cluster = spent.cluster
    before = serial(spent, "web")
    restart(cluster, "web")
    wait_until(
        lambda: any(
            "denied the request: penstock:" in one and f"limited to {BUDGET}/7d" in one
            for one in events(cluster, WHERE)
        ),
        SAID_SECONDS,
        "an event names the budget",
    )
    with pytest.raises(ClusterFailed, match=rf"'public-budget' are limited to {BUDGET}/7d"):
        ask(cluster, "web")
    assert serial(spent, "web") == before
    assert issued(ca)[(f"web.{WHERE}.svc",)] == BUDGET


def test_another_workload_still_gets_in(spent: Release, ca: LimitedCa) -> None:
    """The twin: the same namespace, rule, profile and CA, and another service account."""
    cluster = spent.cluster
    cluster.apply(*workload("other"))
    wait_served(cluster, spent.trust(), "other", WHERE, seconds=SERVED_SECONDS)
    assert issued(ca)[(f"other.{WHERE}.svc",)] == 1
    ask(cluster, "other")


def test_review_tells_what_is_left_of_each(spent: Release) -> None:
    """What admission would say, to whoever asks beforehand; asking takes nothing."""
    for _ in range(BUDGET):
        assert budget(spent, "web") == (f"{BUDGET}/7d", BUDGET, True)
        assert budget(spent, "fresh") == (f"{BUDGET}/7d", 0, False)


def budget(release: Release, name: str) -> tuple[str, int, bool]:
    """Return limit, use and whether one more would be too many, as the broker reviews it."""
    asked = ("workload", "review", "cluster", f"{WHERE}/{name}", "--service", name)
    told = json.loads(release.penstock(*asked, "--profile", "public", "--json"))
    (found,) = (one for one in told["budget"] if "public-budget" in one["quota"])
    return found["limit"], found["used"], found["would_exceed"]


def test_service_account_alone_decides_which_names_a_pod_may_have(
    ca: LimitedCa, release: Release
) -> None:
    """Two pods that are the same in all else, behind the same Service: one serves its name, the
    other one is not made, and is told which name it may not have."""
    cluster, name = release.cluster, f"web.{ACCOUNTS}.svc"
    cluster.apply(opted_in(ACCOUNTS), settings(ACCOUNTS), exposed("web", ACCOUNTS))
    cluster.apply(account("front", ACCOUNTS), account("back", ACCOUNTS))
    with pytest.raises(ClusterFailed, match=rf"asks for more than policy grants: .*{name}"):
        cluster.apply(pod_of("back", name))
    cluster.apply(pod_of("front", name))
    wait_served(cluster, release.trust(), "web", ACCOUNTS, seconds=SERVED_SECONDS)
    pods = cluster.get("pods", namespace=ACCOUNTS)["items"]
    assert [one["metadata"]["name"] for one in pods] == ["front"]
    cluster.kubectl("delete", "namespace", ACCOUNTS, "--wait=false")


def pod_of(account_name: str, name: str) -> dict[str, Any]:
    """Return a pod of a service account that asks for *name*."""
    wanted = {f"{PREFIX}/inject": "true", f"{PREFIX}/names": name}
    pod = {"apiVersion": "v1", "kind": "Pod", **pod_template("web", wanted)}
    pod["metadata"] |= {"name": account_name, "namespace": ACCOUNTS}
    pod["spec"]["serviceAccountName"] = account_name
    return pod
