"""What goes wrong in a cluster, on the real one: what serves goes on, what is new says why not.

Each fault ends before its test does; the next begins with a broker and an admission that are ready.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.kubernetes import faults
from tests.kubernetes.applications import (
    PREFIX,
    address_of,
    application,
    events,
    exposed,
    look,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import namespace
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.peers.process import wait_until

WHERE = "faults"
SERVED_SECONDS = 120.0
SAID_SECONDS = 90.0
"""Longest wait for an event; a pod says what it waits for some 10 s after its start."""

ADMISSION = f"deployment/{NAME}-admission"

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime"
"""Where Debian's libfaketime is on the machine; the node sees the machine's files."""


@pytest.fixture(scope="module")
def running(release: Release) -> Iterator[Cluster]:
    """A namespace that opted in, with one application that serves throughout."""
    cluster = release.cluster
    release.wait()
    # Without pod security: a test lends a pod a folder of the node, for its clock.
    cluster.apply(namespace(WHERE, **{f"{PREFIX}/inject": "enabled"}))
    cluster.apply(settings(WHERE), exposed("steady", WHERE), application("steady", WHERE))
    wait_served(cluster, release.trust(), "steady", WHERE, seconds=SERVED_SECONDS)
    yield cluster
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")


@pytest.fixture(autouse=True)
def _steady_goes_on(running: Cluster, release: Release) -> Iterator[None]:
    """Whatever happens, the application that had its certificate keeps it and serves it."""
    before = served(running, release, "steady")
    yield
    assert served(running, release, "steady") == before


def served(cluster: Cluster, release: Release, name: str) -> int:
    """Return the serial number of what an application serves, once it verifies."""
    address = address_of(cluster, name, WHERE)
    return int(look(cluster, release.trust(), address, f"{name}.{WHERE}.svc").serial_number)


def said(cluster: Cluster, *words: str) -> bool:
    """Say whether an event has all of *words*."""
    return any(all(word in one for word in words) for one in events(cluster, WHERE))


def remove(cluster: Cluster, *names: str) -> None:
    """Remove applications with their Services."""
    for name in names:
        kinds = "deployment,pod,service"
        cluster.kubectl("delete", kinds, name, "-n", WHERE, "--ignore-not-found", "--wait=false")


def sidecar_by_hand(cluster: Cluster, name: str) -> dict[str, Any]:
    """Return a pod as admission would make it, to be changed and then let past admission."""
    cluster.apply(exposed(name, WHERE))
    asked = {"apiVersion": "v1", "kind": "Pod", **pod_template(name, {f"{PREFIX}/inject": "true"})}
    asked["metadata"] |= {"name": name, "namespace": WHERE}
    told = cluster.kubectl(
        "create", "--dry-run=server", "-o", "json", "-f", "-", text=json.dumps(asked)
    )
    spec = json.loads(told)["spec"]
    for one in ("serviceAccount", "serviceAccountName", "nodeName", "tolerations", "priority"):
        spec.pop(one, None)
    past = {"app": name, f"{PREFIX}/inject": "disabled"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": WHERE, "labels": past},
        "spec": spec,
    }


def volume(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a volume of a pod."""
    found: dict[str, Any] = next(one for one in pod["spec"]["volumes"] if one["name"] == name)
    return found


def test_while_admission_is_down_only_who_opted_in_waits(
    running: Cluster, release: Release
) -> None:
    """Closed for namespaces that opted in; others, and Penstock's own, start pods as ever."""
    running.kubectl("scale", ADMISSION, "--replicas=0", "-n", NAMESPACE)
    running.kubectl(
        *("wait", "--for=delete", "pod", "-n", NAMESPACE, "--timeout=60s"),
        *("-l", "app.kubernetes.io/component=admission"),
    )
    running.apply(exposed("closed", WHERE), application("closed", WHERE))
    wait_until(lambda: said(running, "failed calling webhook"), 30, "an event names the webhook")
    free = {"apiVersion": "v1", "kind": "Pod", **pod_template("free", {f"{PREFIX}/inject": "true"})}
    free["metadata"] |= {"name": "free", "namespace": "default"}
    running.apply(settings("default"), free)
    running.kubectl("delete", "pod", "free", "-n", "default", "--wait=false")
    running.kubectl("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    running.kubectl("scale", ADMISSION, "--replicas=2", "-n", NAMESPACE)
    release.wait()
    running.kubectl("rollout", "restart", "deployment/closed", "-n", WHERE)
    wait_served(running, release.trust(), "closed", WHERE, seconds=SERVED_SECONDS)
    remove(running, "closed")


def test_a_slow_api_server_delays_and_breaks_nothing(running: Cluster, release: Release) -> None:
    """A pod is let in and served although the API server stands still most of the time."""
    with faults.slowed(running, "kube-apiserver", share=0.7):
        running.apply(exposed("slow", WHERE), application("slow", WHERE))
        wait_served(running, release.trust(), "slow", WHERE, seconds=SERVED_SECONDS)
    remove(running, "slow")


def test_a_stopped_kubelet_takes_no_certificate_away(running: Cluster, release: Release) -> None:
    """What runs goes on; what is new starts when the kubelet does."""
    running.apply(exposed("held", WHERE))
    with faults.stopped(running, "kubelet"):
        running.apply(application("held", WHERE))
        served(running, release, "steady")
        with pytest.raises(ClusterFailed):
            wait_served(running, release.trust(), "held", WHERE, seconds=5)
    wait_served(running, release.trust(), "held", WHERE, seconds=SERVED_SECONDS)
    remove(running, "held")


def test_a_pod_evicted_while_it_waits_is_replaced_by_one_that_serves(
    running: Cluster, release: Release
) -> None:
    """In the middle of its first certificate; the next one gets its own."""
    running.apply(exposed("moved", WHERE), application("moved", WHERE))
    wait_until(lambda: bool(pods(running, "moved")), 30, "its pod is made")
    (first,) = pods(running, "moved")
    faults.evict(running, first, namespace=WHERE)
    wait_served(running, release.trust(), "moved", WHERE, seconds=SERVED_SECONDS)
    assert first not in pods(running, "moved")
    remove(running, "moved")


def pods(cluster: Cluster, name: str) -> list[str]:
    """Return the names of an application's pods that are not about to go."""
    found = cluster.get("pods", namespace=WHERE, labels=f"app={name}")["items"]
    living = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return [one["metadata"]["name"] for one in living]


def test_a_token_for_another_audience_opens_nothing(running: Cluster) -> None:
    """The pod waits, and says that the broker does not know it; with its own audience it starts."""
    pod = sidecar_by_hand(running, "stranger")
    token = volume(pod, "penstock-token")["projected"]["sources"][0]["serviceAccountToken"]
    right = token["audience"]
    token["audience"] = "elsewhere"
    running.apply(pod)
    wait_until(
        lambda: said(running, "Startup probe failed", "this node"), SAID_SECONDS, "it says why"
    )
    running.kubectl("delete", "pod", "stranger", "-n", WHERE, "--wait=true")
    token["audience"] = right
    running.apply(pod)
    running.kubectl(
        *("wait", "--for=condition=Ready", "pod/stranger", "-n", WHERE), "--timeout=120s"
    )
    remove(running, "stranger")


@pytest.mark.parametrize("skew", ["-30d", "+30d"])
def test_a_wrong_clock_is_told_and_does_no_harm(running: Cluster, skew: str) -> None:
    """An agent whose clock is a month off waits and says so; with the right time it starts."""
    name = "early" if skew.startswith("-") else "ahead"
    pod = sidecar_by_hand(running, name)
    sidecar = pod["spec"]["initContainers"][0]
    sidecar["env"] += [
        {"name": "LD_PRELOAD", "value": f"{FAKETIME}/libfaketime.so.1"},
        {"name": "FAKETIME", "value": skew},
    ]
    sidecar["volumeMounts"].append({"name": "clock", "mountPath": FAKETIME, "readOnly": True})
    pod["spec"]["volumes"].append({"name": "clock", "hostPath": {"path": FAKETIME}})
    running.apply(pod)
    wait_until(
        lambda: said(running, "Startup probe failed", "not the broker"), SAID_SECONDS, "it says why"
    )
    running.kubectl("delete", "pod", name, "-n", WHERE, "--wait=true")
    del sidecar["env"][-2:]
    running.apply(pod)
    running.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", WHERE, "--timeout=120s")
    remove(running, name)


BROKEN_POLICY = "apiVersion: penstock.dev/v1\nkind: Policy\ncommunity: default\nnames: {alow: []}\n"


def policies(text: str) -> dict[str, Any]:
    """Return the ConfigMap with the chart's policies, with another text."""
    labels = {f"{PREFIX}/policies": "all"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{NAME}-policies", "namespace": NAMESPACE, "labels": labels},
        "data": {"default.yaml": text},
    }


def test_a_broken_policy_does_not_come_into_force(running: Cluster, release: Release) -> None:
    """It is refused when it is applied; past that, the broker keeps what it had and says so."""
    before = running.get("configmap", f"{NAME}-policies", namespace=NAMESPACE)
    with pytest.raises(ClusterFailed, match=r"default\.yaml:4"):
        running.apply(policies(BROKEN_POLICY))
    webhook = f"validatingwebhookconfiguration/{NAMESPACE}-{NAME}-admission"
    kept = running.kubectl("get", webhook, "-o", "json")
    running.kubectl("delete", webhook)
    running.apply(policies(BROKEN_POLICY))
    wait_until(lambda: "alow" in policy_status(release), 120, "the broker tells of the fault")
    running.apply(exposed("after", WHERE), application("after", WHERE))
    wait_served(running, release.trust(), "after", WHERE, seconds=SERVED_SECONDS)
    again = json.loads(kept)
    again["metadata"].pop("resourceVersion")
    running.apply(policies(before["data"]["default.yaml"]), again)
    wait_until(lambda: "alow" not in policy_status(release), 120, "all is well again")
    remove(running, "after")


def policy_status(release: Release) -> str:
    """Return what the broker says of its policies, also where that is no good news."""
    try:
        return release.penstock("policy", "status")
    except ClusterFailed as error:
        return str(error)


@pytest.mark.timeout(900)
def test_a_broker_that_restarts_while_many_pods_start(
    running: Cluster, release: Release, report: Report, pod_count: int
) -> None:
    """All of them serve in the end, and no order has two certificates."""
    running.apply(exposed("many", WHERE), application("many", WHERE, replicas=pod_count))
    wait_until(lambda: len(pods(running, "many")) >= pod_count // 3, 120, "a third is made")
    restarting = threading.Thread(
        target=running.kubectl, args=("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    )
    restarting.start()
    status = ("rollout", "status", "deployment/many", "-n", WHERE, "--timeout=700s")
    told = running.kubectl(*status, seconds=720)
    restarting.join()
    assert "successfully rolled out" in told
    orders = [one["order"] for one in certificates(release)]
    assert len(orders) == len(set(orders))
    report.figure("Faults", "pods that started while the broker restarted", str(pod_count))
    remove(running, "many")


def certificates(release: Release) -> list[dict[str, Any]]:
    """Return every certificate that the broker knows of."""
    told = release.penstock("cert", "list", "--json", "--limit", "1000")
    found = json.loads(told)
    listed: list[dict[str, Any]] = found["certificates"] if isinstance(found, dict) else found
    return listed
