"""What the cluster tells of one object: in its events, and to whoever types `kubectl describe`.

Of that very object, by its uid: what another pod of the namespace said, or one of the same name
before it, is no answer to what this one waits for.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.peers.process import wait_until

SAID_SECONDS: Final = 180.0
"""Longest wait for an event; a pod says what it waits for some 20 s after its start."""

WAITING: Final = "Startup probe failed"
"""How an event begins by which a sidecar says what it waits for."""


def events_by_uid(cluster: Cluster, where: str, *chosen: str) -> Mapping[str, list[str]]:
    """Return what events of a namespace say, by the uid of whom they are about."""
    found = json.loads(cluster.kubectl("get", "events", "-n", where, *chosen, "-o", "json"))
    told: defaultdict[str, list[str]] = defaultdict(list)
    for one in found["items"]:
        told[one["involvedObject"].get("uid", "")].append(one["message"])
    return told


def events_of(cluster: Cluster, name: str, where: str, *, kind: str = "pod") -> list[str]:
    """Return what events of one object say; nothing, if there is no such object."""
    try:
        uid = cluster.get(kind, name, namespace=where)["metadata"]["uid"]
    except ClusterFailed:
        return []
    chosen = f"--field-selector=involvedObject.uid={uid}"
    return events_by_uid(cluster, where, chosen)[uid]


def described(cluster: Cluster, name: str, where: str, *, kind: str = "pod") -> str:
    """Return what `kubectl describe` says of one object; nothing, if there is no such object."""
    try:
        return cluster.kubectl("describe", kind, name, "-n", where)
    except ClusterFailed:
        return ""


def wait_told(
    cluster: Cluster, name: str, where: str, *words: str, kind: str = "pod",
    seconds: float = SAID_SECONDS,
) -> str:  # fmt: skip
    """Wait until an event of one object has all of *words*, and `kubectl describe` shows it.

    Returns the line of `kubectl describe`.

    Raises:
        ClusterFailed: Nothing like it was told in time; with what was.
    """
    deadline = time.monotonic() + seconds
    while True:
        told = described(cluster, name, where, kind=kind)
        lines = [line.strip() for line in told.splitlines() if _has(line, words)]
        if lines and any(_has(one, words) for one in events_of(cluster, name, where, kind=kind)):
            return lines[-1]
        if time.monotonic() > deadline:
            raise ClusterFailed(f"not within {seconds:g} s: {kind} {name} tells {words}\n{told}")
        time.sleep(0.5)


def wait_set_told(cluster: Cluster, app: str, where: str, *words: str) -> str:
    """Wait until the ReplicaSet of an application tells so: it makes the pods, if it is let."""

    def names() -> list[str]:
        found = cluster.get("replicasets", namespace=where, labels=f"app={app}")["items"]
        return [one["metadata"]["name"] for one in found]

    wait_until(lambda: len(names()) == 1, SAID_SECONDS, f"{app} has its ReplicaSet")
    return wait_told(cluster, names()[0], where, *words, kind="replicaset")


def _has(text: str, words: tuple[str, ...]) -> bool:
    return all(word in text for word in words)
