"""Manifests of small pods, as strict as the strictest standard of pod security wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import PYTHON_TREE

POD_SECONDS: Final = 180
"""Longest wait for a pod to be ready; 2 s on an idle machine."""

STRICT: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of a container that every namespace lets in."""


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def python_pod(name: str, code: str, *, where: str = "default", port: int = 0) -> dict[str, Any]:
    """Return a pod that runs a few lines of Python; ready when *port* answers, if one is given."""
    container: dict[str, Any] = {
        "name": "main",
        "image": PYTHON_TREE.tag,
        "command": ["python3", "-u", "-c", code],
        "securityContext": dict(STRICT),
    }
    if port:
        container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": where, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def service(name: str, port: int, *, where: str = "default") -> dict[str, Any]:
    """Return a Service for the pod of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": where},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def living(cluster: Cluster, app: str, where: str) -> list[Any]:
    """Return an application's pods that are not about to go."""
    found = cluster.get("pods", namespace=where, labels=f"app={app}")["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def wait_ready(cluster: Cluster, *names: str, where: str = "default") -> None:
    """Wait until pods are ready."""
    wanted = [f"pod/{name}" for name in names]
    limit = f"--timeout={POD_SECONDS}s"
    cluster.kubectl("wait", "--for=condition=Ready", *wanted, "-n", where, limit)


def in_pod(cluster: Cluster, name: str, command: Sequence[str], *, where: str = "default") -> str:
    """Run a command in a pod's main container and return its output."""
    return cluster.kubectl("exec", name, "-n", where, "-c", "main", "--", *command)


def remove(cluster: Cluster, *names: str, where: str = "default") -> None:
    """Delete pods and Services and wait for neither."""
    cluster.kubectl(
        "delete", "pod,service", *names, "-n", where, "--ignore-not-found", "--wait=false"
    )


def review(cluster: Cluster, token: str, audience: str) -> Mapping[str, Any]:
    """Ask the API server whose token this is."""
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    told = cluster.kubectl("create", "-f", "-", "-o", "json", text=json.dumps(asked))
    status: Mapping[str, Any] = json.loads(told)["status"]
    return status
