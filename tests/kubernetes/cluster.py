"""A real cluster of one node: etcd, the API server, controllers, kubelet, containerd, DNS, proxy.

Everything runs in namespaces of its own (``keeper``): nothing outside can be reached from it, and
everything ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.kubernetes.configuration import commands, write_configuration
from tests.kubernetes.credentials import NODE_NAME, write_credentials
from tests.kubernetes.keeper import CONTROL_GROUPS, NODE_ADDRESS
from tests.kubernetes.node import RUN_SECONDS, ClusterFailed, Node
from tests.kubernetes.programs import pause_home, program
from tests.peers.installation import installed
from tests.peers.process import tail, wait_until

START_SECONDS: Final = 120.0
"""Longest wait for one part of the cluster; the slowest measures 11 s on idle cores."""

BEFORE_NODES: Final = ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns")


class Cluster:
    """One cluster, from nothing to nothing in a ``with`` block."""

    def __init__(self) -> None:
        self.node = Node()
        self.timings: dict[str, float] = {}
        """Step of the start → seconds since it began."""

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def state(self) -> Path:
        """The folder that all of the cluster is kept in."""
        return self.node.state

    @property
    def address(self) -> str:
        """The node's address, where pods reach what runs beside the cluster."""
        return NODE_ADDRESS

    def up(self) -> Path:
        """Start everything and return the administrator's kubeconfig file.

        Raises:
            ClusterFailed: Which part did not start, and the end of its log.
        """
        begun = time.monotonic()

        def took(step: str) -> None:
            self.timings[step] = round(time.monotonic() - begun, 2)

        try:
            self.node.up()
            write_credentials(self.state / "pki")
            write_configuration(self.state)
            took("namespaces and keys")
            lines = commands(self.state)
            for name in ("etcd", "containerd", "kube-apiserver"):
                self.node.start(name, lines[name])
            self._wait("containerd", self._is_containerd_up)
            self.load_image(pause_home() / "image.tar")
            took("containerd")
            self._wait("kube-apiserver", self._is_api_up)
            took("API server")
            for name in (*BEFORE_NODES, "kubelet"):
                self.node.start(name, lines[name])
            self.kubectl("apply", "-f", str(self.state / "dns.yaml"))
            self._wait("kubelet", self._is_node_ready)
            took("node")
            self._wait("kube-controller-manager", self._has_default_account)
            self._wait("coredns", self._is_dns_up)
            took("all")
        except BaseException:
            self.down()
            raise
        return self.state / "pki" / "admin.conf"

    def down(self) -> None:
        """End everything and remove it."""
        begun = time.monotonic()
        self.node.down()
        self.timings["down"] = round(time.monotonic() - begun, 2)

    def _wait(self, name: str, is_so: Any) -> None:
        def answered() -> bool:
            if not self.node.is_running(name):
                raise ClusterFailed(f"{name} ended\n{tail(self.node.log(name))}")
            return bool(is_so())

        try:
            wait_until(answered, START_SECONDS, f"{name} serves")
        except ClusterFailed:
            raise
        except Exception as error:
            raise ClusterFailed(f"{error}\n{tail(self.node.log(name))}") from error

    def _is_containerd_up(self) -> bool:
        return self.node.attempt([*self._ctr(), "version"]).returncode == 0

    def _is_api_up(self) -> bool:
        return self._kubectl("get", "--raw", "/readyz").returncode == 0

    def _is_node_ready(self) -> bool:
        told = self._kubectl("get", "node", NODE_NAME, "--no-headers")
        return told.returncode == 0 and " Ready" in told.stdout

    def _has_default_account(self) -> bool:
        return self._kubectl("get", "serviceaccount", "default", "-n", "default").returncode == 0

    def _is_dns_up(self) -> bool:
        ask = ["python3", "-c", _ASK, f"http://{NODE_ADDRESS}:8181/ready"]
        return self.node.attempt(ask).returncode == 0

    def _ctr(self) -> list[str]:
        socket = str(self.state / "containerd.sock")
        return [str(program("ctr")), "--address", socket, "--namespace", "k8s.io"]

    def load_image(self, archive: Path) -> None:
        """Give the node the images of an archive; nothing can be pulled."""
        self.node.run([*self._ctr(), "images", "import", archive])

    def tag_image(self, name: str, other: str) -> None:
        """Give an image of the node another name, under which its owner publishes it."""
        self.node.run([*self._ctr(), "images", "tag", "--force", name, other])

    def attempt(
        self, command: Sequence[str | Path], *, folder: Path, seconds: float = RUN_SECONDS
    ) -> tuple[int, str]:
        """Run a command line of a reader in *folder*; return its exit status and all it printed."""
        found = f"{program('kubectl').parent}:{installed('helm').parent}:{os.environ['PATH']}"
        typed = ["env", "-C", str(folder), f"PATH={found}", *command]
        done = self.node.attempt(typed, more=self._settings(), seconds=seconds)
        return done.returncode, done.stdout + done.stderr

    def run(
        self,
        command: Sequence[str | Path],
        *,
        text: str | None = None,
        seconds: float = RUN_SECONDS,
    ) -> str:
        """Run a command on the node as the cluster's administrator and return its output.

        Raises:
            ClusterFailed: It failed.
        """
        return self.node.run(command, text=text, more=self._settings(), seconds=seconds)

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs a program on the node, for what runs beside pods."""
        return self.node.inside(command)

    def kubectl(
        self, *arguments: str, text: str | None = None, seconds: float = RUN_SECONDS
    ) -> str:
        """Run kubectl and return its output.

        Raises:
            ClusterFailed: It failed; its words are in the text.
        """
        return self.run([program("kubectl"), *arguments], text=text, seconds=seconds)

    def helm(self, *arguments: str, seconds: float = RUN_SECONDS) -> str:
        """Run helm and return its output.

        Raises:
            ClusterFailed: It failed; its words are in the text.
        """
        return self.run([installed("helm"), *arguments], seconds=seconds)

    def apply(self, *manifests: Mapping[str, Any]) -> str:
        """Apply objects that are written in Python."""
        many = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self.kubectl("apply", "-f", "-", text=json.dumps(many))

    def get(
        self, kind: str, name: str = "", *, namespace: str = "default", labels: str = ""
    ) -> Any:
        """Return an object, or the list of all of a kind."""
        named = [name] if name else []
        chosen = ["-l", labels] if labels else []
        return json.loads(self.kubectl("get", kind, *named, "-n", namespace, *chosen, "-o", "json"))

    def volume(self, name: str, size: str = "1Gi", *, owner: int = 65532) -> Path:
        """Make a volume that a claim can have, and return its folder on this machine.

        The cluster has nothing that would make volumes when a claim asks for one.
        """
        folder = self.state / "volumes" / name
        folder.mkdir(parents=True)
        folder.chmod(0o770)
        os.chown(folder, owner, owner)
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "",
                    "hostPath": {"path": str(folder), "type": "Directory"},
                },
            }
        )
        return folder

    def control_group(self, kind: str) -> Path:
        """Return the control group of all pods, for what the kernel knows of them."""
        return CONTROL_GROUPS / kind / self.state.name

    def add_host(self, name: str, address: str = NODE_ADDRESS) -> None:
        """Let pods find *name*; without an address at the node, where peers of a test run."""
        with (self.state / "hosts").open("a", encoding="ascii") as hosts:
            hosts.write(f"{address} {name}\n")

    def story(self, namespace: str) -> str:
        """Return what a person would look at first when pods of a namespace are not ready."""
        told = [self._kubectl("get", "pods", "-n", namespace).stdout]
        ordered = ("--sort-by=.lastTimestamp", "--no-headers")
        told.append(tail(self._kubectl("get", "events", "-n", namespace, *ordered).stdout, 15))
        every = ("--all-containers", "--prefix", "--tail=12", "--ignore-errors")
        for pod in self._kubectl("get", "pods", "-n", namespace, "-o", "name").stdout.split():
            told.append(self._kubectl("logs", pod, "-n", namespace, *every).stdout)
        return "\n".join(told)

    def _kubectl(self, *arguments: str) -> Any:
        return self.node.attempt(
            [program("kubectl"), *arguments, "--request-timeout=5s"], more=self._settings()
        )

    def _settings(self) -> dict[str, str]:
        home = self.state / "helm"
        return {
            "KUBECONFIG": str(self.state / "pki" / "admin.conf"),
            "KUBECACHEDIR": str(self.state / "kubectl"),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }


_ASK: Final = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)"
