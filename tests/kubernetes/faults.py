"""What can go wrong with a cluster, played on the real one and taken back at the end of a block."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

from tests.kubernetes.cluster import Cluster

EVICTION: Final = "policy/v1"

SLOW_PERIOD_SECONDS: Final = 1.0
"""How long one stop and go of a slowed program takes together."""


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
def slowed(cluster: Cluster, name: str, *, share: float = 0.9) -> Iterator[None]:
    """Let a program run only for a part of each second, *share* of it standing still.

    This kernel has no netem; a server that is stopped and let go answers as late as a slow one.
    """
    over = threading.Event()

    def play() -> None:
        while not over.is_set():
            with stopped(cluster, name):
                over.wait(SLOW_PERIOD_SECONDS * share)
            over.wait(SLOW_PERIOD_SECONDS * (1 - share))

    player = threading.Thread(target=play, name=f"slows {name}")
    player.start()
    try:
        yield
    finally:
        over.set()
        player.join()


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
