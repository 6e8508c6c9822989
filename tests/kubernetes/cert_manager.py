"""cert-manager's own controllers on the cluster, and what a user sees of a certificate of theirs.

They are a pod with an administrator's rights: what they may do is their chart's matter, not ours.
Its webhook, which looks at objects before they are stored, is left out; its definitions are not.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.kubernetes.archives import write_image
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT, namespace
from tests.kubernetes.programs import asset, program

NAMESPACE: Final = "cert-manager"
CONTROLLER_IMAGE: Final = "local.test/cert-manager-controller:test"
SOLVER_IMAGE: Final = "local.test/cert-manager-acmesolver:test"
START_SECONDS: Final = 300
POLL_SECONDS: Final = 0.5


class CertManager:
    """The controllers, as long as their cluster lasts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, scratch: Path) -> None:
        """Make both images, each of one program and nothing else, and start the controllers."""
        for name, tag in (("controller", CONTROLLER_IMAGE), ("acmesolver", SOLVER_IMAGE)):
            archive = scratch / f"{name}.tar"
            files = {name: program(f"cert-manager-{name}")}
            write_image(archive, tag, files=files, entrypoint=[f"/{name}"], user=65532)
            self._cluster.load_image(archive)
        definitions = sorted(asset("crds").glob("*.yaml"))
        named = [part for path in definitions for part in ("-f", str(path))]
        self._cluster.kubectl("apply", "--server-side", *named)
        self._cluster.apply(namespace(NAMESPACE), *_accounts(), _deployment())
        self.wait()

    def wait(self) -> None:
        """Wait until the controllers run.

        Raises:
            ClusterFailed: They do not; with their log.
        """
        limit = f"--timeout={START_SECONDS}s"
        status = ("rollout", "status", "deployment/cert-manager", "-n", NAMESPACE, limit)
        try:
            self._cluster.kubectl(*status, seconds=START_SECONDS + 10)
        except ClusterFailed as error:
            raise ClusterFailed(f"{error}\n{self._cluster.story(NAMESPACE)}") from error

    def kill(self) -> None:
        """Kill the controllers without a word; another pod takes over."""
        gone = ("--grace-period=0", "--force", "--wait=true")
        self._cluster.kubectl("delete", "pod", "-n", NAMESPACE, "-l", "app=cert-manager", *gone)

    def log(self) -> str:
        """Return the end of what they wrote."""
        return self._cluster.kubectl(
            "logs", "deployment/cert-manager", "-n", NAMESPACE, "--tail=40"
        )

    def wait_certificate(self, name: str, where: str, *, seconds: float, revision: int = 1) -> Any:
        """Wait until a Certificate is ready at a revision, and return it.

        Raises:
            ClusterFailed: It is not in time; with all that cert-manager made on the way.
        """
        end = time.monotonic() + seconds
        while True:
            found = self._cluster.get("certificate", name, namespace=where)
            if is_ready(found) and found["status"].get("revision", 0) >= revision:
                return found
            if time.monotonic() > end:
                raise ClusterFailed(f"{name}: not within {seconds:g} s\n{self.story(where)}")
            time.sleep(POLL_SECONDS)

    def story(self, where: str) -> str:
        """Return how requests, orders and challenges of a namespace stand, and the log."""
        kinds = "certificaterequests,orders,challenges,ingresses,pods"
        seen = self._cluster.kubectl("get", kinds, "-n", where, "-o", "wide")
        told = [one["status"] for one in self._cluster.get("challenges", namespace=where)["items"]]
        return "\n".join([seen, json.dumps(told, indent=1), self.log()])

    def secret(self, name: str, where: str) -> tuple[x509.Certificate, str]:
        """Return the leaf that lies in a Secret, and the whole chain in PEM."""
        data = self._cluster.get("secret", name, namespace=where)["data"]
        chain = base64.b64decode(data["tls.crt"])
        return x509.load_pem_x509_certificates(chain)[0], chain.decode("ascii")


def is_ready(one: Any) -> bool:
    """Say whether cert-manager calls an object ready."""
    conditions = one.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _accounts() -> list[dict[str, Any]]:
    who = {"name": "cert-manager", "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": who},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "cert-manager"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **who}],
        },
    ]


def _deployment() -> dict[str, Any]:
    container = {
        "name": "controller",
        "image": CONTROLLER_IMAGE,
        "args": [f"--acme-http01-solver-image={SOLVER_IMAGE}"],
        "securityContext": dict(STRICT),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cert-manager", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "cert-manager"}},
            # Two would race: without the command's own election nobody says who leads.
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {"app": "cert-manager"}},
                "spec": {"serviceAccountName": "cert-manager", "containers": [container]},
            },
        },
    }
