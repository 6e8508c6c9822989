"""The same application with its pair in a Secret that is there already: what the node itself takes.

The difference is what a sidecar and a certificate of its own cost a pod at its start.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from bench.kubernetes_field import PASSED_BY, WHERE, Field
from tests.kubernetes.applications import application
from tests.peers.authority import make_root, make_server

__all__ = ["measure_plain"]

PAIR: Final = "/var/run/penstock/tls"
"""Where nginx's configuration looks; the Secret is mounted there instead."""


def measure_plain(field_of: Field, singles: int, pods: int) -> tuple[list[float], list[float]]:
    """Return how long one pod took each time, and how long each of *pods* at once took."""
    root = make_root("plain Secrets in a benchmark")
    field_of.roots = root.certificate_pem.decode("ascii")

    def start(name: str, count: int) -> list[float]:
        pair = make_server(root, [f"{name}.{WHERE}.svc"])
        data = {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem()}
        field_of.cluster.apply(secret_of(name, data))
        seen = field_of.start(name, count, objects=[plain_application(name, count)])
        field_of.remove(name)
        return seen

    alone = [seconds for number in range(singles) for seconds in start(f"plain{number}", 1)]
    return alone, start("plain", pods)


def secret_of(name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """Return a Secret with a pair."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": WHERE},
        "data": {key: base64.b64encode(pem).decode("ascii") for key, pem in data.items()},
    }


def plain_application(name: str, pods: int) -> dict[str, Any]:
    """Return the application without annotations, and with the Secret of its name mounted."""
    made = application(name, WHERE, replicas=pods)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = {}
    template["metadata"]["labels"] |= PASSED_BY
    (container,) = template["spec"]["containers"]
    container["volumeMounts"].append({"name": "pair", "mountPath": PAIR, "readOnly": True})
    template["spec"]["volumes"].append({"name": "pair", "secret": {"secretName": name}})
    return made
