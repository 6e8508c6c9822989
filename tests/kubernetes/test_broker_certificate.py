"""The broker's own certificate from the real cert-manager, as helm/examples/values has it.

A self-signed issuer makes the root, an issuer of kind CA gives the broker's certificate: nothing of
it is Penstock's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml
from cryptography import x509

from tests.kubernetes import cert_manager
from tests.kubernetes.applications import (
    address_of,
    application,
    exposed,
    look,
    opted_in,
    settings,
    wait_admitted,
    wait_served,
)
from tests.kubernetes.cert_manager import CertManager
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.peers import authority
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

EXAMPLE: Final = REPOSITORY / "helm" / "examples" / "values" / "cert-manager.yaml"
WHERE: Final = "managed"
SECRET: Final = f"{NAME}-tls"
HOST: Final = "acme.corp.example"
"""What the example calls the broker for clients outside."""

ISSUE_SECONDS: Final = 300.0
SERVED_SECONDS: Final = 180.0
TAKEN_SECONDS: Final = 180.0
"""Longest wait until a renewed pair is shown: 15 s of the kubelet's, and the broker's look."""

DIRECTORY: Final = """\
import json, socket, ssl, sys
asked = json.load(sys.stdin)
context = ssl.create_default_context(cadata=asked["roots"])
with socket.create_connection((asked["address"], 8443), timeout=5) as plain:
    with context.wrap_socket(plain, server_hostname=asked["host"]) as tls:
        head = f"GET /acme/directory HTTP/1.1\\r\\nHost: {asked['host']}:8443\\r\\n"
        tls.sendall(f"{head}Connection: close\\r\\n\\r\\n".encode())
        print(tls.makefile().read())
"""
"""An ACME client's first request, of one who comes by the URL for clients outside."""


def of_cert_manager(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return an object of cert-manager's in the release's namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def issuers() -> list[dict[str, Any]]:
    """Return a root that signs itself, and the issuer that the example names."""
    root = {
        "isCA": True,
        "commonName": "corporate root",
        "secretName": "corp-root",
        "issuerRef": {"kind": "Issuer", "name": "self"},
    }
    return [
        of_cert_manager("Issuer", "self", {"selfSigned": {}}),
        of_cert_manager("Certificate", "corp-root", root),
        of_cert_manager("Issuer", "corp", {"ca": {"secretName": "corp-root"}}),
    ]


@pytest.fixture(scope="module")
def manager(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertManager]:
    """cert-manager, with the issuer of the example."""
    cluster = release.cluster
    # Another test's may still be on its way out.
    cluster.kubectl("delete", "namespace", cert_manager.NAMESPACE, "--ignore-not-found")
    controllers = CertManager(cluster)
    controllers.start(tmp_path_factory.mktemp("cert-manager"))
    cluster.apply(*issuers())
    controllers.wait_certificate("corp-root", NAMESPACE, seconds=ISSUE_SECONDS)
    yield controllers
    made = ("issuer/self", "issuer/corp", "certificate/corp-root", "secret/corp-root")
    cluster.kubectl("delete", *made, "-n", NAMESPACE)
    cluster.kubectl("delete", "namespace", cert_manager.NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def managed(release: Release, manager: CertManager) -> Iterator[Release]:
    """The release with the example's values."""
    release.wait()
    release.upgrade(yaml.safe_load(EXAMPLE.read_text("utf-8")))
    manager.wait_certificate(NAME, NAMESPACE, seconds=ISSUE_SECONDS)
    wait_until(lambda: is_reached(release), TAKEN_SECONDS, "the Services lead to the new pod")
    yield release
    release.upgrade()
    # Admission verifies the broker by the roots of before until the kubelet brings it the new ones.
    release.cluster.apply(opted_in(WHERE), exposed("web", WHERE))
    wait_admitted(release.cluster, "web", WHERE, seconds=SERVED_SECONDS)
    release.cluster.kubectl("delete", "namespace", WHERE, "--wait=false")
    # Its Certificate went with the release; what it made stays, as it would with anybody.
    release.cluster.kubectl("delete", f"secret/{SECRET}", "-n", NAMESPACE)


def roots(cluster: Cluster) -> str:
    """Return the root that cert-manager made."""
    data = cluster.get("secret", "corp-root", namespace=NAMESPACE)["data"]
    return base64.b64decode(data["tls.crt"]).decode("ascii")


def shown(release: Release) -> Any:
    """Return what the broker shows to ACME clients, verified by cert-manager's root alone."""
    cluster = release.cluster
    return look(cluster, roots(cluster), address_of(cluster, NAME, NAMESPACE), HOST, port=8443)


def shown_to_agents(release: Release) -> Any:
    """Return what the broker shows to agents, verified the same way."""
    cluster, agents = release.cluster, f"{NAME}-agents"
    address = address_of(cluster, agents, NAMESPACE)
    return look(cluster, roots(cluster), address, f"{agents}.{NAMESPACE}.svc", port=8445)


def is_reached(release: Release) -> bool:
    """Say whether clients and agents verify what they are shown, each by their own Service."""
    try:
        shown(release)
        shown_to_agents(release)
    except ClusterFailed:
        return False
    return True


def test_broker_shows_what_cert_manager_gave_it(managed: Release, manager: CertManager) -> None:
    """For every name that it has, on the ports of ACME clients and of agents."""
    leaf, _ = manager.secret(SECRET, NAMESPACE)
    served = shown(managed)
    assert served.serial_number == leaf.serial_number
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = set(names.get_values_for_type(x509.DNSName))
    assert {HOST, f"{NAME}.{NAMESPACE}.svc", f"{NAME}-agents.{NAMESPACE}.svc"} <= found
    assert shown_to_agents(managed).serial_number == leaf.serial_number


def test_clients_and_pods_verify_it(managed: Release) -> None:
    """An ACME client outside by its URL, pods by the roots that the broker published."""
    cluster = managed.cluster
    root = roots(cluster)
    wait_until(lambda: root in managed.trust(), SERVED_SECONDS, "pods have cert-manager's root")
    asked = {"roots": root, "address": address_of(cluster, NAME, NAMESPACE), "host": HOST}
    told = cluster.run(["python3", "-c", DIRECTORY], text=json.dumps(asked), seconds=20)
    assert f"https://{HOST}:8443/acme/" in told
    cluster.apply(opted_in(WHERE), settings(WHERE), exposed("web", WHERE))
    wait_admitted(cluster, "web", WHERE, seconds=SERVED_SECONDS)
    cluster.apply(application("web", WHERE))
    wait_served(cluster, managed.trust(), "web", WHERE, seconds=SERVED_SECONDS)


def test_renewed_certificate_is_taken_up_without_a_restart(
    managed: Release, manager: CertManager
) -> None:
    """Another key, another certificate, the same pod; nobody else had to do anything."""
    before, former = managed.life(), shown(managed)
    found = managed.cluster.get("certificate", NAME, namespace=NAMESPACE)
    renew_now(managed.cluster, NAME)
    revision = found["status"]["revision"] + 1
    manager.wait_certificate(NAME, NAMESPACE, seconds=ISSUE_SECONDS, revision=revision)
    leaf, _ = manager.secret(SECRET, NAMESPACE)
    assert leaf.serial_number != former.serial_number
    wait_until(
        lambda: shown(managed).serial_number == leaf.serial_number,
        TAKEN_SECONDS,
        "the broker shows the renewed certificate",
    )
    assert leaf.public_key() != former.public_key()
    assert managed.life() == before


def renew_now(cluster: Cluster, name: str) -> None:
    """Have a Certificate issued anew, as cert-manager's own `cmctl renew` would."""
    condition = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "renewed by hand",
        "lastTransitionTime": authority.real_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    patch = [{"op": "add", "path": "/status/conditions/-", "value": condition}]
    how = ("-n", NAMESPACE, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    cluster.kubectl("patch", "certificate", name, *how)
