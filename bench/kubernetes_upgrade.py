"""The broker replaced by ``helm upgrade`` while an ACME client orders and pods start."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from bench.kubernetes_field import Field
from tests.kubernetes.release import NAME, NAMESPACE, Release

__all__ = ["Upgraded", "load_values", "measure_upgrade"]

KEY_ID: Final = "bench"
"""Id of the binding key whose account orders while the broker is replaced."""

LEAD_SECONDS: Final = 3.0
"""How long the ACME client orders before the upgrade begins, and after it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """The broker replaced while an ACME client orders and pods start."""

    seconds: float
    """From ``helm upgrade`` until the new broker is ready."""
    orders: int
    lost: int
    """Orders that were made and never had their certificate."""
    faults: int
    """What the client was told that it could not ask again about."""
    asked_again: int
    away_seconds: float
    """Longest that one request of the client had no answer, however often it was sent."""
    pause_seconds: float
    """Longest time between two finished orders of the client."""
    rhythm_seconds: float
    """The median of those times."""
    pods: int
    pods_longest_seconds: float
    orders_with_two_certificates: int


def load_values(release: Release) -> dict[str, Any]:
    """Return values of the chart with which one bound account is asked for no proof."""
    reader = YAML(typ="safe", pure=True)
    files = reader.load((release.chart / "values.yaml").read_text("utf-8"))["policies"]["files"]
    policy = reader.load(files["default.yaml"])
    policy["trusted"].append(
        {
            "eab": [KEY_ID],
            "names": ["**.load.svc"],
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
    """Replace the broker while an ACME client orders and *pods* start."""
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
            time.sleep(LEAD_SECONDS)
            seen = field_of.start("upgraded", pods, meanwhile=upgrade)
            time.sleep(LEAD_SECONDS)
        finally:
            stop.touch()
        told = json.loads(ordering.result())
    field_of.remove("upgraded")
    between = [late - early for early, late in zip(told["ends"], told["ends"][1:], strict=False)]
    orders = [one["order"] for one in _certificates(release)]
    return Upgraded(
        seconds=taken[0],
        orders=told["made"],
        lost=told["made"] - told["valid"],
        faults=len(told["faults"]),
        asked_again=told["again"],
        away_seconds=told["away"],
        pause_seconds=max(between),
        rhythm_seconds=statistics.median(between),
        pods=pods,
        pods_longest_seconds=max(seen),
        orders_with_two_certificates=len(orders) - len(set(orders)),
    )


def _client(field_of: Field, stop: Path) -> dict[str, Any]:
    """Return what the ACME client is asked, with the broker's name known on the node."""
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
        "zone": "load.svc",
        "stop": str(stop),
    }


def _certificates(release: Release) -> list[dict[str, Any]]:
    told = json.loads(release.penstock("cert", "list", "--json", "--limit", "1000"))
    listed: list[dict[str, Any]] = told["certificates"] if isinstance(told, dict) else told
    return listed
