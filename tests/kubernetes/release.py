"""The chart, installed on the cluster as its reader would, with the images built here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import AGENT_IMAGE, BROKER_IMAGE, REPOSITORY
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import namespace
from tests.peers.process import wait_until

CHART: Final = REPOSITORY / "helm" / "penstock"
NAME: Final = "penstock"
NAMESPACE: Final = "penstock"
CLAIM: Final = "penstock-state"

FETCH: Final = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"

INSTALL_SECONDS: Final = 300
"""Longest wait for broker and admission to be ready; 30 s on an idle machine."""

TAKEN_SECONDS: Final = 180
"""Longest wait for a configuration to be in force; the kubelet looks every ten seconds or so."""


def image_values(image: str) -> dict[str, str]:
    """Return how the chart's values name an image."""
    registry, _, rest = image.partition("/")
    repository, _, tag = rest.partition(":")
    return {"registry": registry, "repository": repository, "tag": tag}


def values(more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of a test: our images, and the one volume that there is."""
    return {
        "image": image_values(BROKER_IMAGE),
        "agentImage": image_values(AGENT_IMAGE),
        "persistence": {"existingClaim": CLAIM},
        **(more or {}),
    }


class Release:
    """One release of the chart."""

    def __init__(self, cluster: Cluster, chart: Path = CHART) -> None:
        self.cluster = cluster
        self.chart = chart

    def make_namespace(self) -> None:
        """Make its namespace, as strict as pod security can be, and a claim with a volume."""
        strict = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.cluster.apply(namespace(NAMESPACE, **strict))
        self.cluster.volume(CLAIM)
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeName": CLAIM,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": CLAIM, "namespace": NAMESPACE},
                "spec": wanted,
            }
        )

    def install(self, more: Mapping[str, Any] | None = None) -> str:
        """Install the chart and wait until everything of it is ready; return its notes."""
        said = self.send("install", more)
        self.wait()
        return said

    def upgrade(self, more: Mapping[str, Any] | None = None) -> str:
        """Upgrade to these values and wait until everything is ready, and serves by them."""
        said = self.send("upgrade", more)
        self.wait()
        maps = self.cluster.get("configmaps", namespace=NAMESPACE)["items"]
        for text in (
            str(one["data"]["penstock.yaml"])
            for one in maps
            if one["metadata"]["name"] == f"{NAME}-config"
        ):
            wait_until(partial(self.is_serving_by, text), TAKEN_SECONDS, "it is in force")
        return said

    def is_serving_by(self, text: str) -> bool:
        """Say whether the broker serves by that penstock.yaml; not while it is between two."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            return f'penstock_config_info{{sha256="{digest}"}} 1.0' in self.health("/metrics")
        except ClusterFailed:
            return False

    def wait(self) -> None:
        """Wait until broker and admission are ready.

        Raises:
            ClusterFailed: They are not; with pods, events and logs.
        """
        for what in (f"statefulset/{NAME}", f"deployment/{NAME}-admission"):
            limit = f"--timeout={INSTALL_SECONDS}s"
            asked = ("rollout", "status", what, "-n", NAMESPACE, limit)
            try:
                self.cluster.kubectl(*asked, seconds=INSTALL_SECONDS + 10)
            except ClusterFailed as error:
                raise ClusterFailed(f"{error}\n{self.cluster.story(NAMESPACE)}") from error

    def uninstall(self) -> None:
        """Take the release away and wait until its pods are gone."""
        self.cluster.helm("uninstall", NAME, "-n", NAMESPACE, "--wait", seconds=INSTALL_SECONDS)

    def penstock(self, *arguments: str) -> str:
        """Run a command of the broker in its pod."""
        return self.cluster.kubectl(
            "exec", f"{NAME}-0", "-n", NAMESPACE, "-c", "broker", "--", "penstock", *arguments
        )

    def life(self) -> tuple[str, int]:
        """Return what is another after a restart: the broker's pod, and how often it began anew."""
        pod = self.cluster.get("pod", f"{NAME}-0", namespace=NAMESPACE)
        (broker,) = pod["status"]["containerStatuses"]
        return str(pod["metadata"]["uid"]), int(broker["restartCount"])

    def health(self, path: str) -> str:
        """Return a page of the broker's port for probes and metrics.

        Raises:
            ClusterFailed: Its answer says no, as `/readyz` of a broker that cannot serve.
        """
        pod = self.cluster.get("pod", f"{NAME}-0", namespace=NAMESPACE)
        url = f"http://{pod['status']['podIP']}:8081{path}"
        return self.cluster.run(["python3", "-c", FETCH, url], seconds=10)

    def trust(self) -> str:
        """Return the roots that the broker published, in PEM."""
        found = self.cluster.get("configmap", f"{NAME}-trust", namespace=NAMESPACE)
        return str(found["data"]["ca.crt"])

    def send(self, verb: str, more: Mapping[str, Any] | None) -> str:
        """Install or upgrade, and wait for nothing; return the notes."""
        file = self.cluster.state / "values.json"
        file.write_text(json.dumps(values(more)), "utf-8")
        return self.cluster.helm(verb, NAME, str(self.chart), "-n", NAMESPACE, "-f", str(file))
