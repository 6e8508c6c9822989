"""What goes wrong in a cluster, on the real one: what serves goes on, what is new says why not.

Each fault ends before its test does; the next begins with a broker and an admission that are ready.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.kubernetes import faults
from tests.kubernetes.applications import (
    PREFIX,
    address_of,
    application,
    exposed,
    look,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.issued import issued_for, served_by_each, twice
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import living, namespace
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.kubernetes.telling import WAITING, described, events_by_uid, wait_set_told, wait_told
from tests.peers.process import wait_until

WHERE = "faults"
SERVED_SECONDS = 120.0
ADMISSION = f"deployment/{NAME}-admission"
BROKER = f"statefulset/{NAME}"

STOPS = 3
"""How often a slowed server has to stand still while pods are asked for."""

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


def pods(cluster: Cluster, name: str) -> list[str]:
    """Return the names of an application's pods that are not about to go."""
    return [one["metadata"]["name"] for one in living(cluster, name, WHERE)]


@pytest.fixture
def opted_in_itself(running: Cluster) -> Iterator[None]:
    """Penstock's own namespace with the label by which others opt in, for one test."""
    running.kubectl("label", "namespace", NAMESPACE, f"{PREFIX}/inject=enabled")
    yield
    running.kubectl("label", "namespace", NAMESPACE, f"{PREFIX}/inject-")


@pytest.mark.usefixtures("opted_in_itself")
def test_while_admission_is_down_only_who_opted_in_waits(
    running: Cluster, release: Release
) -> None:
    """Closed for namespaces that opted in; others, and Penstock's own even if it is labelled like
    them, start pods as ever."""
    running.kubectl("scale", ADMISSION, "--replicas=0", "-n", NAMESPACE)
    running.kubectl(
        *("wait", "--for=delete", "pod", "-n", NAMESPACE, "--timeout=60s"),
        *("-l", "app.kubernetes.io/component=admission"),
    )
    running.apply(exposed("closed", WHERE), application("closed", WHERE))
    wait_set_told(running, "closed", WHERE, "failed calling webhook", f"{NAME}-admission")
    free = {"apiVersion": "v1", "kind": "Pod", **pod_template("free", {f"{PREFIX}/inject": "true"})}
    free["metadata"] |= {"name": "free", "namespace": "default"}
    running.apply(settings("default"), free)
    running.kubectl("delete", "pod", "free", "-n", "default", "--wait=false")
    before = release.life()
    running.kubectl("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    release.wait()
    assert release.life() != before
    assert pods(running, "closed") == []
    running.kubectl("scale", ADMISSION, "--replicas=2", "-n", NAMESPACE)
    release.wait()
    running.kubectl("rollout", "restart", "deployment/closed", "-n", WHERE)
    wait_served(running, release.trust(), "closed", WHERE, seconds=SERVED_SECONDS)
    remove(running, "closed")


@pytest.mark.parametrize(
    ("name", "period"),
    [pytest.param("slow", 1.0, id="slow"), pytest.param("slower", 15.0, id="past time-outs")],
)
def test_a_slow_api_server_delays_and_breaks_nothing(
    running: Cluster, release: Release, name: str, period: float
) -> None:
    """Pods are let in and served, once, although the API server stands still most of the time:
    for most of each second, and for longer than it waits for admission itself.  One more is asked
    for until the server has stood still three times meanwhile."""
    running.apply(exposed(name, WHERE))
    roots, address = release.trust(), address_of(running, name, WHERE)
    status = ("rollout", "status", f"deployment/{name}", "-n", WHERE, "--timeout=60s")
    pods_asked = 1
    with faults.slowed(running, "kube-apiserver", share=0.75, period=period) as stops:
        # Who types this is told of time-outs as well, and types it again.
        wait_done(lambda: running.apply(application(name, WHERE)))
        wait_done(lambda: look(running, roots, address, f"{name}.{WHERE}.svc"))
        while len(stops) < STOPS:
            pods_asked += 1
            more = ("scale", f"deployment/{name}", "-n", WHERE, f"--replicas={pods_asked}")
            wait_done(lambda more=more: running.kubectl(*more))
            wait_done(lambda: running.kubectl(*status, seconds=90))
    assert_each_once(release, name, pods_asked)
    remove(running, name)


def wait_done(step: Callable[[], object]) -> None:
    """Try until it succeeds."""

    def is_done() -> bool:
        try:
            step()
        except ClusterFailed:
            return False
        return True

    wait_until(is_done, 2 * SERVED_SECONDS, "it is done")


def assert_each_once(release: Release, name: str, count: int = 1) -> None:
    """See that so many pods serve, and that nothing was issued for their name but what they do."""
    issued = issued_for(release, f"{name}.{WHERE}.svc")
    assert twice(issued) == []
    serials = served_by_each(release, name, WHERE)
    assert len(serials) == count
    assert sorted(serials) == sorted(one.serial for one in issued)


def test_a_stopped_kubelet_takes_no_certificate_away(running: Cluster, release: Release) -> None:
    """What runs goes on and is renewed meanwhile; what is new starts when the kubelet does."""
    pushed = application("pushed", WHERE, reload="signal:HUP:/usr/sbin/nginx")
    running.apply(exposed("pushed", WHERE), pushed)
    wait_served(running, release.trust(), "pushed", WHERE, seconds=SERVED_SECONDS)
    before = served(running, release, "pushed")
    running.apply(exposed("held", WHERE))
    with faults.stopped(running, "kubelet"):
        running.apply(application("held", WHERE))
        faults.run_past_kubelet(release, "penstock", "renew", f"pushed.{WHERE}.svc", "--wait=60")
        assert served(running, release, "pushed") != before
        served(running, release, "steady")
        with pytest.raises(ClusterFailed):
            wait_served(running, release.trust(), "held", WHERE, seconds=20)
    wait_served(running, release.trust(), "held", WHERE, seconds=SERVED_SECONDS)
    assert_each_once(release, "held")
    issued = issued_for(release, f"pushed.{WHERE}.svc")
    assert sorted(one.serial for one in issued) == sorted(
        [before, *served_by_each(release, "pushed", WHERE)]
    )
    assert twice(issued) == []
    remove(running, "held", "pushed")


def test_a_pod_evicted_while_it_waits_is_replaced_by_one_that_serves(
    running: Cluster, release: Release
) -> None:
    """In the middle of its first certificate, which a freeze holds; the next one says why it is
    not there yet, and gets its own, the only one."""
    with contextlib.ExitStack() as held:
        # Let in before the freeze, and not started until it holds.
        with faults.cordoned(running):
            running.apply(exposed("moved", WHERE), application("moved", WHERE))
            wait_until(lambda: bool(pods(running, "moved")), 30, "its pod is made")
            held.enter_context(faults.frozen(release))
        (first,) = pods(running, "moved")
        wait_told(running, first, WHERE, WAITING, "is frozen")
        faults.evict(running, first, namespace=WHERE)
        wait_set_told(running, "moved", WHERE, "denied the request", "is frozen")
        assert issued_for(release, f"moved.{WHERE}.svc") == []
    wait_served(running, release.trust(), "moved", WHERE, seconds=SERVED_SECONDS)
    assert first not in pods(running, "moved")
    assert_each_once(release, "moved")
    remove(running, "moved")


def test_a_token_for_another_audience_opens_nothing(running: Cluster) -> None:
    """The pod waits, and says that the broker does not know it; with its own audience it starts."""
    pod = sidecar_by_hand(running, "stranger")
    token = volume(pod, "penstock-token")["projected"]["sources"][0]["serviceAccountToken"]
    right = token["audience"]
    token["audience"] = "elsewhere"
    running.apply(pod)
    wait_told(running, "stranger", WHERE, WAITING, "this node")
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
    wait_told(running, name, WHERE, WAITING, "not the broker")
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
    """It is refused when it is applied; past that, the broker keeps what it had and says so, and a
    new pod is served by that: it waits for nothing."""
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
    assert "alow" in policy_status(release)
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


@pytest.mark.timeout(1500)
def test_a_broker_that_restarts_while_many_pods_start(
    running: Cluster, release: Release, report: Report, pod_count: int
) -> None:
    """All of them serve in the end, those that waited for it said so, and what was issued is what
    they serve, one for each."""
    running.apply(exposed("many", WHERE), application("many", WHERE, replicas=pod_count))
    wait_until(lambda: len(pods(running, "many")) >= pod_count // 3, 120, "a third is made")
    # It comes back once somebody has missed it, however long a pod takes to start.
    running.kubectl("scale", BROKER, "--replicas=0", "-n", NAMESPACE)
    try:
        wait_until(lambda: bool(who_misses_the_broker(running)), 600, "a pod says that it is away")
    finally:
        running.kubectl("scale", BROKER, "--replicas=1", "-n", NAMESPACE)
    status = ("rollout", "status", "deployment/many", "-n", WHERE, "--timeout=600s")
    told = running.kubectl(*status, seconds=620)
    assert "successfully rolled out" in told
    assert_each_once(release, "many", pod_count)
    waited = who_misses_the_broker(running)
    assert is_told_away(described(running, waited[0], WHERE).splitlines())
    heading = "Faults"
    report.figure(heading, "pods that started while the broker restarted", str(pod_count))
    report.figure(heading, "of these, said that they wait for it", str(len(waited)))
    remove(running, "many")


def who_misses_the_broker(cluster: Cluster) -> list[str]:
    """Return the pods of the many that said, in an event of their own, that the broker is away."""
    said = events_by_uid(cluster, WHERE)
    found = [one["metadata"] for one in living(cluster, "many", WHERE)]
    return [one["name"] for one in found if is_told_away(said.get(one["uid"], []))]


def is_told_away(lines: list[str]) -> bool:
    """Say whether one of the lines tells that the broker is away."""
    return any(WAITING in one and "the broker is away" in one for one in lines)
