"""What can go wrong with a cluster, played on the real one and taken back at the end of a block."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.credentials import NODE_NAME
from tests.kubernetes.programs import program
from tests.kubernetes.release import NAME, NAMESPACE, Release

EVICTION: Final = "policy/v1"

SLOW_PERIOD_SECONDS: Final = 1.0
"""How long one stop and go of a slowed program takes together, if not said otherwise."""


@contextlib.contextmanager
def stopped(cluster: Cluster, name: str) -> Iterator[None]:
    """Stop a program of the cluster in the middle of what it does; it goes on afterwards.

    To others a stopped API server or kubelet is one that does not answer: connections stay open.
    """
    cluster.node.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.node.signal(name, signal.SIGCONT)


@contextlib.contextmanager
def slowed(
    cluster: Cluster, name: str, *, share: float = 0.9, period: float = SLOW_PERIOD_SECONDS
) -> Iterator[Sequence[float]]:
    """Let a program run only for a part of each *period*, *share* of it standing still.

    Yields when each stop was over, by the monotonic clock.

    This kernel has no netem; a server that is stopped and let go answers as late as a slow one.
    """
    over = threading.Event()
    stops: list[float] = []

    def play() -> None:
        while not over.is_set():
            with stopped(cluster, name):
                over.wait(period * share)
            stops.append(time.monotonic())
            over.wait(period * (1 - share))

    player = threading.Thread(target=play, name=f"slows {name}")
    player.start()
    try:
        yield stops
    finally:
        over.set()
        player.join()


@contextlib.contextmanager
def cordoned(cluster: Cluster) -> Iterator[None]:
    """Let no pod come to the node: those that are made wait to be placed."""
    cluster.kubectl("cordon", NODE_NAME)
    try:
        yield
    finally:
        cluster.kubectl("uncordon", NODE_NAME)


@contextlib.contextmanager
def frozen(release: Release, community: str = "default") -> Iterator[None]:
    """Let the broker issue nothing, and let nobody in, for a community."""
    of = ("community", community, "--reason", "a test holds it")
    release.penstock("freeze", *of)
    try:
        yield
    finally:
        release.penstock("unfreeze", *of)


def run_past_kubelet(release: Release, *command: str) -> str:
    """Run a command beside the broker, in its container, whether or not there is a kubelet."""
    cluster = release.cluster
    pod = cluster.get("pod", f"{NAME}-0", namespace=NAMESPACE)
    (broker,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "broker"]
    container = broker["containerID"].rpartition("/")[2]
    socket = f"--address={cluster.state / 'containerd.sock'}"
    runtime = [program("ctr"), socket, "--namespace=k8s.io", "tasks", "exec"]
    return cluster.run([*runtime, "--exec-id=past-kubelet", container, *command])


def evict(cluster: Cluster, pod: str, *, namespace: str) -> None:
    """Evict a pod as a drain would: disruption budgets are asked, the pod ends gracefully."""
    wanted = {
        "apiVersion": EVICTION,
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(wanted))


def kill(cluster: Cluster, name: str) -> None:
    """Kill a program of the cluster; ``restart`` brings it back with what it had written."""
    cluster.node.signal(name, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while cluster.node.is_running(name) and time.monotonic() < deadline:
        time.sleep(0.05)
