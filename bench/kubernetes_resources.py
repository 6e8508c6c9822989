"""What containers take of the node, as the kernel counts it, beside what they ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import MIB
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import NAMESPACE

__all__ = ["Taken", "control_groups", "measure_own", "number_in", "quantity"]

COMPONENT: Final = "app.kubernetes.io/component"

UNITS: Final = {"m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
"""Of Kubernetes' quantities, those that the chart uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One kind of container of ours; of several replicas the one that took most."""

    container: str
    requested_mib: float
    limit_mib: float
    charged_mib: float
    """At rest, page cache included."""
    peak_mib: float
    """The most since its start."""
    requested_cpu: float
    """In cores."""
    cpu_percent: float
    """At rest, of one core."""


def measure_own(cluster: Cluster, seconds: float) -> list[Taken]:
    """Look for *seconds* at every container that runs in the release's namespace."""
    pods = cluster.get("pods", namespace=NAMESPACE, labels=COMPONENT)["items"]
    running = [
        (f"{pod['metadata']['labels'][COMPONENT]}: {one['name']}", one, _spec(pod, one["name"]))
        for pod in pods
        for one in (
            *pod["status"].get("initContainerStatuses", ()),
            *pod["status"]["containerStatuses"],
        )
        if "running" in one["state"]
    ]
    ids = [one["containerID"].rpartition("/")[2] for _, one, _ in running]
    memory, cpu = (control_groups(cluster.control_group(k), ids) for k in ("memory", "cpuacct"))
    before = {one: number_in(cpu[one] / "cpuacct.usage") for one in ids}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    found: dict[str, Taken] = {}
    for (name, _, spec), one in zip(running, ids, strict=True):
        asked = spec.get("resources", {})
        used = number_in(cpu[one] / "cpuacct.usage") - before[one]
        taken = Taken(
            container=name,
            requested_mib=quantity(asked.get("requests", {}).get("memory", "0")) / MIB,
            limit_mib=quantity(asked.get("limits", {}).get("memory", "0")) / MIB,
            charged_mib=number_in(memory[one] / "memory.usage_in_bytes") / MIB,
            peak_mib=number_in(memory[one] / "memory.max_usage_in_bytes") / MIB,
            requested_cpu=quantity(asked.get("requests", {}).get("cpu", "0")),
            cpu_percent=used / 1e9 / passed * 100,
        )
        if name not in found or found[name].peak_mib < taken.peak_mib:
            found[name] = taken
    return [found[name] for name in sorted(found)]


def _spec(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    spec = pod["spec"]
    containers = (*spec.get("initContainers", ()), *spec["containers"])
    (found,) = (one for one in containers if one["name"] == name)
    return found  # type: ignore[no-any-return]


def quantity(text: str) -> float:
    """Return what a quantity of Kubernetes such as ``64Mi`` or ``5m`` comes to.

    Raises:
        ValueError: It has another unit than those that the chart uses.
    """
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def control_groups(root: Path, containers: Sequence[str]) -> dict[str, Path]:
    """Return the control group of each container, which has its name.

    Raises:
        ClusterFailed: One has none.
    """
    wanted = set(containers)
    found = {path.name: path for path in root.rglob("*") if path.name in wanted}
    if missing := wanted - set(found):
        raise ClusterFailed(f"no control group of {len(missing)} containers below {root}")
    return found


def number_in(path: Path) -> int:
    """Return the number that a file of a control group holds."""
    return int(path.read_text("ascii"))
