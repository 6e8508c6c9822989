"""The same application with cert-manager on the same cluster: a CA of its own, and a Secret.

It is what a cluster has without an agent in each pod.  All pods of an application share one key and
one certificate there, which lie in the cluster's store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench.kubernetes_field import WHERE, Field
from bench.kubernetes_plain import plain_application, secret_of
from tests.kubernetes.cert_manager import CertManager
from tests.peers.authority import make_root

__all__ = ["certificate_of", "issuer_of", "measure_cert_manager"]

ISSUER: Final = "bench"


def measure_cert_manager(
    field_of: Field, home: Path, singles: int, pods: int
) -> tuple[list[float], list[float]]:
    """Return how long one pod took each time, and how long each of *pods* at once took.

    The time includes the certificate's issuance, for it is applied together with the application.
    """
    home.mkdir(parents=True, exist_ok=True)
    CertManager(field_of.cluster).start(home)
    root = make_root("cert-manager in a benchmark")
    pair = {"tls.crt": root.certificate_pem, "tls.key": root.key_pem()}
    field_of.cluster.apply(secret_of(ISSUER, pair), issuer_of(ISSUER))
    field_of.roots = root.certificate_pem.decode("ascii")

    def start(name: str, count: int) -> list[float]:
        objects = [certificate_of(name), plain_application(name, count)]
        seen = field_of.start(name, count, objects=objects)
        field_of.remove(name)
        return seen

    alone = [seconds for number in range(singles) for seconds in start(f"theirs{number}", 1)]
    return alone, start("theirs", pods)


def issuer_of(secret: str) -> dict[str, Any]:
    """Return an issuer that signs by the CA whose pair lies in *secret*."""
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Issuer",
        "metadata": {"name": ISSUER, "namespace": WHERE},
        "spec": {"ca": {"secretName": secret}},
    }


def certificate_of(name: str) -> dict[str, Any]:
    """Return a Certificate for the service *name*, to lie in a Secret of that name."""
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": WHERE},
        "spec": {
            "secretName": name,
            "dnsNames": [f"{name}.{WHERE}.svc"],
            "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"name": ISSUER, "kind": "Issuer"},
        },
    }
