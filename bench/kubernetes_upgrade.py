"""The broker replaced by ``helm upgrade`` while ACME clients order and pods start."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from bench.kubernetes_client import ended_file
from bench.kubernetes_field import Field
from tests.kubernetes.issued import issued, twice
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import NAME, NAMESPACE, Release
from tests.peers.process import wait_until

__all__ = ["Upgraded", "load_values", "measure_upgrade"]

KEY_ID: Final = "bench"
"""Id of the binding key whose accounts order while the broker is replaced."""

ZONE: Final = "load.svc"
"""What the names are below that they order."""

CLIENTS: Final = 4
"""How many order at once, each under an account of its own."""

BEGIN_SECONDS: Final = 120.0
"""Longest wait for a certificate of each client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """The broker replaced while ACME clients order and pods start."""

    seconds: float
    """From ``helm upgrade`` until the new broker is ready."""
    clients: int
    orders: int
    lost: int
    """Orders that were made and never had their certificate."""
    faults: int
    """Errors that a client was told, other than to be patient."""
    asked_again: int
    away_seconds: float
    """Longest that one request of a client had no answer, however often it was sent."""
    pause_seconds: float
    """Longest time between two finished orders of one client."""
    rhythm_seconds: float
    """The median of those times."""
    pods: int
    pods_longest_seconds: float
    signed: int
    """Certificates that the CA's own ledger has for these clients and pods."""
    signed_twice: int
    """Those of them that share their order or their CSR with another, or have none."""


def load_values(release: Release) -> dict[str, Any]:
    """Return values of the chart with which one bound account is asked for no proof."""
    reader = YAML(typ="safe", pure=True)
    files = reader.load((release.chart / "values.yaml").read_text("utf-8"))["policies"]["files"]
    policy = reader.load(files["default.yaml"])
    policy["trusted"].append(
        {
            "eab": [KEY_ID],
            "names": [f"**.{ZONE}"],
            "profiles": ["server"],
            "because": "the names of a benchmark",
        }
    )
    rates = dict.fromkeys(("account", "new_orders", "address", "new_accounts"), "off")
    return {
        "config": {"limits": {"rates": rates}},
        "policies": {"files": {"default.yaml": json.dumps(policy)}},
    }


def measure_upgrade(field_of: Field, pods: int) -> Upgraded:
    """Replace the broker while ACME clients order and *pods* start."""
    release, cluster = field_of.release, field_of.cluster
    stop = cluster.state / "stop-the-client"
    asked = _client(field_of, stop)
    taken: list[float] = []

    def upgrade() -> None:
        begun = time.monotonic()
        release.upgrade({**load_values(release), "podAnnotations": {"bench": "upgraded"}})
        taken.append(time.monotonic() - begun)

    with ThreadPoolExecutor(1) as threads:
        ordering = threads.submit(field_of.run, "kubernetes_client.py", asked)
        try:
            _wait_ended(stop, [0] * CLIENTS, ordering)
            seen = field_of.start("upgraded", pods, meanwhile=upgrade)
            # What was under way when the broker came back ends, and one more.
            _wait_ended(stop, [1 + number for number in _ended(stop)], ordering)
        finally:
            stop.touch()
        told = json.loads(ordering.result())
    signed = issued(release, lambda name: name.endswith(f".{ZONE}") or name.startswith("upgraded."))
    field_of.remove("upgraded")
    between = [
        late - early
        for one in told
        for early, late in zip(one["ends"], one["ends"][1:], strict=False)
    ]
    made, valid = (sum(one[what] for one in told) for what in ("made", "valid"))
    if len(signed) < valid + pods:
        raise ClusterFailed(
            f"the CA's ledger has {len(signed)} certificates of {valid} orders and {pods} pods"
        )
    return Upgraded(
        seconds=taken[0],
        clients=len(told),
        orders=made,
        lost=made - valid,
        faults=sum(len(one["faults"]) for one in told),
        asked_again=sum(one["again"] for one in told),
        away_seconds=max(one["away"] for one in told),
        pause_seconds=max(between),
        rhythm_seconds=statistics.median(between),
        pods=pods,
        pods_longest_seconds=max(seen),
        signed=len(signed),
        signed_twice=len(twice(signed)),
    )


def _ended(stop: Path) -> list[int]:
    """Return how many orders of each client have ended."""
    files = [ended_file(stop, number) for number in range(CLIENTS)]
    return [int(one.read_text("ascii") or 0) if one.exists() else 0 for one in files]


def _wait_ended(stop: Path, before: Sequence[int], ordering: Future[str]) -> None:
    """Wait until each client has ended more orders than *before*."""

    def is_so() -> bool:
        if ordering.done():
            raise ClusterFailed(f"the ACME clients have ended: {ordering.result()}")
        return all(now > then for now, then in zip(_ended(stop), before, strict=True))

    wait_until(is_so, BEGIN_SECONDS, "every client has a certificate more")


def _client(field_of: Field, stop: Path) -> dict[str, Any]:
    """Return what the ACME clients are asked, with the broker's name known on the node."""
    release, cluster = field_of.release, field_of.cluster
    host = f"{NAME}.{NAMESPACE}.svc"
    address = cluster.get("service", NAME, namespace=NAMESPACE)["spec"]["clusterIP"]
    hosts = cluster.state / "hosts-of-the-node"
    hosts.write_text(f"127.0.0.1 localhost\n{address} {host}\n", "ascii")
    # In the node's own mounts; the machine's file is as it was.
    cluster.run(["mount", "--bind", hosts, "/etc/hosts"])
    roots = cluster.state / "roots.pem"
    roots.write_text(field_of.roots, "ascii")
    told = release.penstock("eab", "mint", "--id", KEY_ID, "--reusable", "--json")
    key = json.loads(told)
    return {
        "directory": f"https://{host}:8443/acme/directory",
        "ca": str(roots),
        "key_id": key["key_id"],
        "mac_key": key["mac_key"],
        "zone": ZONE,
        "clients": CLIENTS,
        "stop": str(stop),
    }
