"""Pods that ask for certificates by annotation, on a real cluster with the chart installed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.kubernetes.applications import (
    PREFIX,
    USER,
    address_of,
    application,
    exposed,
    look,
    opted_in,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import AGENT_IMAGE
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT, namespace, wait_ready
from tests.kubernetes.programs import PYTHON_TREE
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.kubernetes.telling import wait_set_told
from tests.peers.process import wait_until

SERVED_SECONDS = 240.0
"""Longest wait for an application to serve; 5 s on a machine that does nothing else."""

SHOP = "shop"


@pytest.fixture(scope="module")
def shop(release: Release) -> Iterator[Cluster]:
    """A namespace that opted in, with an application that serves."""
    cluster = release.cluster
    cluster.apply(opted_in(SHOP))
    cluster.apply(settings(SHOP), exposed("web", SHOP), application("web", SHOP))
    wait_served(cluster, release.trust(), "web", SHOP, seconds=SERVED_SECONDS)
    yield cluster
    cluster.kubectl("delete", "namespace", SHOP, "--wait=false")


def pods_of(cluster: Cluster, name: str, where: str = SHOP) -> list[dict[str, object]]:
    """Return the pods of an application."""
    found: list[dict[str, object]] = cluster.get("pods", namespace=where, labels=f"app={name}")[
        "items"
    ]
    return found


def test_a_pod_serves_the_name_of_its_service(shop: Cluster, release: Release) -> None:
    """By the annotation alone: whoever has the published roots verifies it."""
    served = look(shop, release.trust(), address_of(shop, "web", SHOP), "web.shop.svc")
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "web.shop.svc" in names.get_values_for_type(x509.DNSName)


def test_the_application_starts_after_its_certificate(shop: Cluster) -> None:
    """The sidecar is first, and the application's container starts once it is ready."""
    (pod,) = pods_of(shop, "web")
    first = pod["spec"]["initContainers"][0]  # type: ignore[index]
    assert (first["name"], first["image"], first["restartPolicy"]) == (
        "penstock-agent",
        AGENT_IMAGE,
        "Always",
    )
    written = shop.kubectl(
        *("exec", pod["metadata"]["name"], "-n", SHOP, "-c", "main"),  # type: ignore[index]
        *("--", "stat", "-L", "--format=%Y", "/var/run/penstock/tls/tls.crt"),
    )
    (running,) = pod["status"]["containerStatuses"]  # type: ignore[index]
    started = datetime.datetime.fromisoformat(running["state"]["running"]["startedAt"])
    assert int(written) <= started.timestamp()


def test_the_key_is_the_applications_alone(shop: Cluster) -> None:
    """In memory, of the application's own user, read-only to the application."""
    inside = ("exec", "deployment/web", "-n", SHOP, "-c", "main", "--")
    key = "/var/run/penstock/tls/tls.key"
    told = shop.kubectl(*inside, "stat", "-L", "--format=%a %u", key)
    assert told.split() == ["600", str(USER)]
    assert shop.kubectl(*inside, "stat", "-f", "--format=%T", key).strip() == "tmpfs"
    with pytest.raises(ClusterFailed, match="Read-only file system"):
        shop.kubectl(*inside, "touch", "/var/run/penstock/tls/mine")


def test_a_name_of_another_service_is_refused(shop: Cluster) -> None:
    """No pod is made, and the event says which name and why; with its own name it is let in."""
    shop.apply(exposed("greedy", SHOP), application("greedy", SHOP, names="web.shop.svc"))
    wait_set_told(shop, "greedy", SHOP, "denied", "web.shop.svc")
    assert not pods_of(shop, "greedy")
    shop.apply(application("greedy", SHOP, names="greedy.shop.svc"))
    wait_until(lambda: len(pods_of(shop, "greedy")) == 1, 30, "its pod is made")
    shop.kubectl("delete", "deployment,service", "greedy", "-n", SHOP)


def test_a_namespace_that_did_not_opt_in_is_left_alone(shop: Cluster) -> None:
    """The same annotations change nothing there."""
    shop.apply(namespace("elsewhere"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        **pod_template("plain", {f"{PREFIX}/inject": "true"}),
    }
    pod["metadata"] |= {"name": "plain", "namespace": "elsewhere"}
    shop.apply(pod)
    made = shop.get("pod", "plain", namespace="elsewhere")
    assert "initContainers" not in made["spec"]
    shop.kubectl("delete", "namespace", "elsewhere", "--wait=false")


def test_a_pod_without_the_annotation_is_left_alone(shop: Cluster) -> None:
    """Also where the namespace opted in."""
    pod = {"apiVersion": "v1", "kind": "Pod", **pod_template("quiet", {})}
    pod["metadata"] |= {"name": "quiet", "namespace": SHOP}
    shop.apply(pod)
    made = shop.get("pod", "quiet", namespace=SHOP)
    assert "initContainers" not in made["spec"]
    shop.kubectl("delete", "pod", "quiet", "-n", SHOP, "--wait=false")


def test_a_job_ends_with_its_work(shop: Cluster) -> None:
    """The sidecar leaves when the work is done, and the Job is complete."""
    work = "import ssl; ssl.create_default_context().load_cert_chain"
    files = "('/var/run/penstock/tls/tls.crt', '/var/run/penstock/tls/tls.key')"
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {f"{PREFIX}/inject": "true"}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": PYTHON_TREE.tag,
                    "command": ["python3", "-c", work + files],
                    "securityContext": dict(STRICT),
                }
            ],
        },
    }
    shop.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "work", "namespace": SHOP},
            "spec": {"backoffLimit": 0, "template": template},
        }
    )
    shop.kubectl("wait", "--for=condition=Complete", "job/work", "-n", SHOP, "--timeout=90s")
    shop.kubectl("delete", "job", "work", "-n", SHOP, "--wait=false")


def test_without_a_broker_served_pods_go_on_and_new_ones_wait(
    shop: Cluster, release: Release
) -> None:
    """What serves keeps its certificate; what is new is refused with why, and made afterwards."""
    shop.kubectl("scale", f"statefulset/{NAME}", "--replicas=0", "-n", NAMESPACE)
    shop.kubectl("wait", "--for=delete", f"pod/{NAME}-0", "-n", NAMESPACE, "--timeout=60s")
    look(shop, release.trust(), address_of(shop, "web", SHOP), "web.shop.svc")
    shop.apply(exposed("late", SHOP), application("late", SHOP))
    wait_set_told(shop, "late", SHOP, "denied", "the broker")
    shop.kubectl("scale", f"statefulset/{NAME}", "--replicas=1", "-n", NAMESPACE)
    release.wait()
    shop.kubectl("rollout", "restart", "deployment/late", "-n", SHOP)
    wait_served(shop, release.trust(), "late", SHOP, seconds=SERVED_SECONDS)
    shop.kubectl("delete", "deployment,service", "late", "-n", SHOP)


def test_how_long_until_it_serves(shop: Cluster, release: Release, report: Report) -> None:
    """From `kubectl apply` of a Deployment to a verified connection, one pod at a time."""
    taken = []
    for number in range(5):
        name = f"timed{number}"
        shop.apply(exposed(name, SHOP))
        begun = time.monotonic()
        shop.apply(application(name, SHOP))
        wait_served(shop, release.trust(), name, SHOP, seconds=SERVED_SECONDS)
        taken.append(time.monotonic() - begun)
        shop.kubectl("delete", "deployment,service", name, "-n", SHOP, "--wait=false")
    report.seconds("Times", "one pod, from apply to a verified connection", taken)
    assert max(taken) < SERVED_SECONDS


def test_what_a_sidecar_takes_at_rest(shop: Cluster, report: Report) -> None:
    """Its memory, as the kernel charges it to the container, is far below its limit."""
    (pod,) = pods_of(shop, "web")
    (running,) = pod["status"]["initContainerStatuses"]  # type: ignore[index]
    container = running["containerID"].rpartition("/")[2]
    found = list(shop.control_group("memory").rglob(f"{container}/memory.usage_in_bytes"))
    assert len(found) == 1
    used = int(found[0].read_text("ascii"))
    report.megabytes("Sidecar", "memory of one at rest, as charged to its container", used)
    assert used < 48 * 1024 * 1024


def test_pods_in_the_releases_namespace_are_as_strict_as_can_be(release: Release) -> None:
    """Pod security lets all of them in where it is restricted."""
    wait_ready(release.cluster, f"{NAME}-0", where=NAMESPACE)
    told = release.cluster.get("namespace", NAMESPACE)
    assert told["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
