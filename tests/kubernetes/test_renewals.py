"""Certificates of pods that run on: renewed, taken up by who serves them, nothing started anew."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from cryptography import x509

from tests.kubernetes.applications import (
    NGINX,
    PREFIX,
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
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "renewals"
FOLDER: Final = "/etc/web-tls"
"""Where these applications look for their files, as many did before there was Penstock."""

TOLD: Final = "told"
"""The application whose annotation says by which signal nginx takes a new certificate up."""

UNTOLD: Final = "untold"
"""Its twin, which says nothing."""

SERVED_SECONDS: Final = 180.0
RENEW_SECONDS: Final = 90
"""Longest that `penstock renew` follows a certificate; 1 s on an idle machine."""

ADMISSION: Final = f"{NAME}-admission.{NAMESPACE}.svc"
WEBHOOK_PORT: Final = 9443


@pytest.fixture(scope="module")
def web(release: Release) -> Iterator[Cluster]:
    """Two applications that serve from a folder of their own; one of them says how it reloads."""
    cluster = release.cluster
    release.wait()
    config = settings(WHERE)
    config["data"]["nginx.conf"] = NGINX.replace("/var/run/penstock/tls", FOLDER)
    cluster.apply(opted_in(WHERE), config, exposed(TOLD, WHERE), exposed(UNTOLD, WHERE))
    cluster.apply(
        application(TOLD, WHERE, path=FOLDER, reload="signal:HUP:/usr/sbin/nginx"),
        application(UNTOLD, WHERE, path=FOLDER),
    )
    for name in (TOLD, UNTOLD):
        wait_served(cluster, release.trust(), name, WHERE, seconds=SERVED_SECONDS)
    yield cluster
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")


def pod_of(cluster: Cluster, name: str) -> dict[str, Any]:
    """Return the one pod of an application."""
    (found,) = cluster.get("pods", namespace=WHERE, labels=f"app={name}")["items"]
    pod: dict[str, Any] = found
    return pod


def life(pod: dict[str, Any]) -> tuple[str, dict[str, int]]:
    """Return what is another after a restart: the pod, and how often each container began anew."""
    status = pod["status"]
    every = [*status["initContainerStatuses"], *status["containerStatuses"]]
    return pod["metadata"]["uid"], {one["name"]: int(one["restartCount"]) for one in every}


def served(cluster: Cluster, release: Release, name: str) -> int:
    """Return the serial number of what an application serves to a client that verifies it."""
    address = address_of(cluster, name, WHERE)
    return int(look(cluster, release.trust(), address, f"{name}.{WHERE}.svc").serial_number)


def in_folder(cluster: Cluster, name: str) -> int:
    """Return the serial number of what lies where the application was told to look."""
    inside = ("exec", f"deployment/{name}", "-n", WHERE, "-c", "main", "--")
    text = cluster.kubectl(*inside, "cat", f"{FOLDER}/tls.crt")
    return int(x509.load_pem_x509_certificates(text.encode())[0].serial_number)


def renew(release: Release, pod: dict[str, Any]) -> None:
    """Renew the certificate of a pod as an operator would, and follow it to its end."""
    metadata = pod["metadata"]
    node = f"{metadata['name']}.{metadata['namespace']}.cluster"
    told = json.loads(release.penstock("renew", node, f"--wait={RENEW_SECONDS}", "--json"))
    assert [one["stage"] for one in told] == ["seen"], told


def test_renewed_certificate_is_served_by_the_same_pod(
    web: Cluster, release: Release, report: Report
) -> None:
    """From the folder that `path` names, by the signal that `reload` names; nothing restarts."""
    pod, before = pod_of(web, TOLD), served(web, release, TOLD)
    assert in_folder(web, TOLD) == before
    begun = time.monotonic()
    renew(release, pod)
    wait_until(
        lambda: served(web, release, TOLD) != before, SERVED_SECONDS, "nginx serves the new one"
    )
    took = time.monotonic() - begun
    assert served(web, release, TOLD) == in_folder(web, TOLD)
    assert life(pod_of(web, TOLD)) == life(pod)
    report.figure("Times", "`penstock renew` of a running pod until it is served", f"{took:.1f} s")


def test_without_its_signal_an_application_serves_the_one_before(
    web: Cluster, release: Release
) -> None:
    """The twin: the new one lies there, and nginx was never told."""
    pod, before = pod_of(web, UNTOLD), served(web, release, UNTOLD)
    renew(release, pod)
    assert in_folder(web, UNTOLD) != before
    assert served(web, release, UNTOLD) == before
    assert life(pod_of(web, UNTOLD)) == life(pod)


def test_admission_serves_its_renewed_certificate_and_lets_pods_in(
    web: Cluster, release: Release
) -> None:
    """Each replica, in the same pod; whoever goes by the webhook's CA bundle verifies it."""
    before = admission(web)
    former = {name: shown(web, pod) for name, pod in before.items()}
    for pod in before.values():
        renew(release, pod)
    wait_until(
        lambda: all(shown(web, pod) != former[name] for name, pod in before.items()),
        SERVED_SECONDS,
        "every replica shows its new certificate",
    )
    assert lives(admission(web)) == lives(before)
    hang_up(web)
    asked = {"apiVersion": "v1", "kind": "Pod", **pod_template(TOLD, {f"{PREFIX}/inject": "true"})}
    asked["metadata"] |= {"name": "asked", "namespace": WHERE}
    text = json.dumps(asked)
    told = web.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=text)
    assert json.loads(told)["spec"]["initContainers"][0]["name"] == "penstock-agent"
    assert lives(admission(web)) == lives(before)


def lives(pods: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, int]]]:
    """Return what is another after a restart, of several pods."""
    return sorted((life(one) for one in pods.values()), key=str)


def hang_up(cluster: Cluster) -> None:
    """End the API server's connections to admission: it has to verify a certificate anew."""
    service = address_of(cluster, f"{NAME}-admission", NAMESPACE)
    which = ["--no-header", "--tcp", "state", "established", "dst", service]
    cluster.run(["ss", "--kill", *which])
    assert cluster.run(["ss", *which]).strip() == ""


def admission(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return the pods of admission, by their names."""
    labels = "app.kubernetes.io/component=admission"
    found = cluster.get("pods", namespace=NAMESPACE, labels=labels)["items"]
    living = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    assert len(living) == 2
    return {one["metadata"]["name"]: one for one in living}


def shown(cluster: Cluster, pod: dict[str, Any]) -> int:
    """Return the serial number of what a replica shows, verified as the API server does."""
    kind = "mutatingwebhookconfiguration"
    (webhook,) = cluster.get(kind, f"{NAMESPACE}-{NAME}-admission")["webhooks"]
    bundle = base64.b64decode(webhook["clientConfig"]["caBundle"]).decode("ascii")
    address = pod["status"]["podIP"]
    found = look(cluster, bundle, address, ADMISSION, port=WEBHOOK_PORT)
    return int(found.serial_number)


def test_bundle_of_others_would_not_do(web: Cluster) -> None:
    """The twin: by the roots of the API server's own CA nobody verifies admission."""
    strange = (web.state / "pki" / "ca.crt").read_text("ascii")
    address = next(iter(admission(web).values()))["status"]["podIP"]
    with pytest.raises(ClusterFailed, match="CERTIFICATE_VERIFY_FAILED"):
        look(web, strange, address, ADMISSION, port=WEBHOOK_PORT)


def test_roots_are_copied_where_a_namespace_opted_in_alone(web: Cluster, release: Release) -> None:
    """What is copied are the roots themselves; a namespace without the label has none."""
    copy = web.get("configmap", f"{NAME}-trust", namespace=WHERE)["data"]
    assert copy == {"ca.crt": release.trust()}
    with pytest.raises(ClusterFailed, match="not found"):
        web.get("configmap", f"{NAME}-trust", namespace="default")
