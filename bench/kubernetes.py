"""What it takes to have pods serve on a real cluster of one node; `bench/run --only kubernetes`."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.figures import percentile
from bench.kubernetes_cert_manager import measure_cert_manager
from bench.kubernetes_field import WHERE, Field, Image, archives_of, image_of
from bench.kubernetes_plain import measure_plain
from bench.kubernetes_resources import Taken, control_groups, measure_own, number_in
from bench.kubernetes_upgrade import Upgraded, load_values, measure_upgrade
from bench.kubernetes_vault_injector import AGENT, injector_program, measure_vault_injector
from bench.processes import MIB, usage_of
from bench.scenarios import Tell
from broker.admission.pods import CONTAINER
from tests.kubernetes.applications import PREFIX, pod_template
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import CHART, NAMESPACE, Release

__all__ = [
    "EFFORTS",
    "Admitted",
    "AtRest",
    "Effort",
    "OnCluster",
    "Started",
    "measure",
]

SETTLE_SECONDS: Final = 20.0
"""How long pods are left alone before what they take at rest is looked at."""

OURS: Final = "Penstock: a key and a certificate for each pod"
INJECTED: Final = "Vault's agent injector: a key and a certificate for each pod"
THEIRS: Final = "cert-manager: one key and one certificate for all pods, in a Secret"
PLAIN: Final = "neither: one Secret that is there already"

WARM: Final = 10
"""Dry runs before those that count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    singles: int
    """How often one pod is started alone."""
    pods: int
    """How many are started at once."""
    rest_seconds: float
    dry_runs: int
    upgrade_pods: int
    """How many start while the broker is replaced."""


EFFORTS: Final[Mapping[str, Effort]] = {
    "full": Effort(singles=30, pods=100, rest_seconds=30.0, dry_runs=200, upgrade_pods=20),
    "quick": Effort(singles=5, pods=30, rest_seconds=20.0, dry_runs=100, upgrade_pods=10),
    "smoke": Effort(singles=2, pods=4, rest_seconds=3.0, dry_runs=10, upgrade_pods=2),
}
"""About fifteen minutes, eight, and five, on two idle cores, the images not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """From ``kubectl apply`` to a verified connection, of each pod."""

    what: str
    pods: int
    """How many were started at once."""
    times: int
    median_seconds: float
    p99_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRest:
    """One sidecar with nothing to do: the median of all of them."""

    pods: int
    charged_mib: float
    """What the kernel charges to its container, page cache included."""
    resident_mib: float
    private_mib: float
    cpu_percent: float
    """Of one core."""
    begun_cpu_seconds: float
    """Processor time from its start until it had nothing to do, probes included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A dry run of one pod, as the API server answers it."""

    what: str
    times: int
    median_ms: float
    p99_ms: float


@dataclass(slots=True)
class OnCluster:
    """All that came out."""

    install_seconds: float = 0.0
    started: list[Started] = field(default_factory=list)
    at_rest: AtRest | None = None
    injector_at_rest: AtRest | None = None
    """The same of Vault's agent injector."""
    own: list[Taken] = field(default_factory=list)
    """What the release's own containers take after those pods have started."""
    admitted: list[Admitted] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    upgraded: Upgraded | None = None


def measure(home: Path, effort: Effort, tell: Tell, *, images: Path | None = None) -> OnCluster:
    """Measure everything that *effort* names; with archives of *images* nothing is built."""
    made = OnCluster()
    injector_program()
    with ExitStack() as stack:
        archives = archives_of(home, stack, images)
        made.images = [image_of(archive) for archive in archives]
        tell(str(made.images))
        cluster = stack.enter_context(Cluster())
        for archive in (*archives, *(tree_archive(tree) for tree in TREES)):
            cluster.load_image(archive)
        # What is upgraded to in the end has to be what the images were made with.
        release = Release(cluster, shutil.copytree(CHART, home / "chart"))
        release.make_namespace()
        begun = time.monotonic()
        release.install(load_values(release))
        made.install_seconds = time.monotonic() - begun
        tell(f"installed within {made.install_seconds:.1f} s")
        field_of = Field(release)
        try:
            _measure_pods(made, field_of, effort, tell)
            made.upgraded = measure_upgrade(field_of, effort.upgrade_pods)
        except ClusterFailed as error:
            raise ClusterFailed(f"{error}\n{cluster.story(NAMESPACE)}") from error
        tell(str(made.upgraded))
        _measure_others(made, field_of, home, effort, tell)
    return made


def _measure_pods(made: OnCluster, field_of: Field, effort: Effort, tell: Tell) -> None:
    singles = []
    for number in range(effort.singles):
        singles += field_of.start(f"one{number}", 1)
        field_of.remove(f"one{number}")
    made.started.append(started(OURS, 1, singles))
    tell(str(made.started[-1]))
    made.started.append(started(OURS, effort.pods, field_of.start("many", effort.pods)))
    tell(str(made.started[-1]))
    time.sleep(SETTLE_SECONDS)
    made.at_rest = measure_at_rest(field_of, "many", effort.rest_seconds)
    tell(str(made.at_rest))
    made.own = measure_own(field_of.cluster, effort.rest_seconds)
    tell(str(made.own))
    made.admitted = measure_admission(field_of, "many", effort.dry_runs)
    tell(str(made.admitted))
    field_of.remove("many")


def _measure_others(
    made: OnCluster, field_of: Field, home: Path, effort: Effort, tell: Tell
) -> None:
    def add(what: str, found: tuple[list[float], list[float]]) -> None:
        made.started.append(started(what, 1, found[0]))
        made.started.append(started(what, effort.pods, found[1]))
        tell(str(made.started[-2:]))

    def look(name: str) -> None:
        time.sleep(SETTLE_SECONDS)
        seconds = effort.rest_seconds
        made.injector_at_rest = measure_at_rest(field_of, name, seconds, container=AGENT)
        tell(str(made.injector_at_rest))

    add(PLAIN, measure_plain(field_of, effort.singles, effort.pods))
    singles = max(2, effort.singles // 3)
    folder = home / "vault-injector"
    add(INJECTED, measure_vault_injector(field_of, folder, singles, effort.pods, look))
    # The last of all: its controllers stay, and look after their objects.
    folder = home / "cert-manager"
    add(THEIRS, measure_cert_manager(field_of, folder, effort.singles, effort.pods))


def started(what: str, pods: int, seconds: Sequence[float]) -> Started:
    """Return what times of pods, *pods* at once, come to."""
    return Started(
        what=what,
        pods=pods,
        times=len(seconds),
        median_seconds=statistics.median(seconds),
        p99_seconds=percentile(seconds, 0.99),
        longest_seconds=max(seconds),
    )


def measure_at_rest(
    field_of: Field, name: str, seconds: float, *, container: str = CONTAINER
) -> AtRest:
    """Look at every sidecar of an application for *seconds*."""
    cluster = field_of.cluster
    pods = cluster.get("pods", namespace=WHERE, labels=f"app={name}")["items"]
    ids = [
        status["containerID"].rpartition("/")[2]
        for pod in pods
        for kind in ("initContainerStatuses", "containerStatuses")
        for status in pod["status"][kind]
        if status["name"] == container
    ]
    memory, cpu = (
        control_groups(cluster.control_group(kind), ids) for kind in ("memory", "cpuacct")
    )
    before = {one: number_in(cpu[one] / "cpuacct.usage") for one in ids}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    used = [
        (number_in(cpu[one] / "cpuacct.usage") - before[one]) / 1e9 / passed * 100 for one in ids
    ]
    charged = [number_in(memory[one] / "memory.usage_in_bytes") / MIB for one in ids]
    processes = [(memory[one] / "cgroup.procs").read_text("ascii").split() for one in ids]
    usages = [usage_of(int(found[0])) for found in processes]
    return AtRest(
        pods=len(ids),
        charged_mib=statistics.median(charged),
        resident_mib=statistics.median(one.resident_mib for one in usages),
        private_mib=statistics.median(one.private_mib for one in usages),
        cpu_percent=statistics.median(used),
        begun_cpu_seconds=statistics.median(before.values()) / 1e9,
    )


def measure_admission(field_of: Field, name: str, times: int) -> list[Admitted]:
    """Ask for the same pod again and again, with a sidecar to be added and without."""
    pki = field_of.cluster.state / "pki"
    found = []
    for what, past in (
        ("with the sidecar added", {}),
        ("past the webhook", {"inject": "disabled"}),
    ):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            **pod_template(name, {f"{PREFIX}/inject": "true"}),
        }
        pod["metadata"]["name"] = "dry-run"
        pod["metadata"]["labels"] |= {f"{PREFIX}/{key}": value for key, value in past.items()}
        asked = {
            "host": "127.0.0.1",
            "port": 6443,
            "ca": str(pki / "ca.crt"),
            "certificate": str(pki / "admin.crt"),
            "key": str(pki / "admin.key"),
            "namespace": WHERE,
            "pod": pod,
            "times": WARM + times,
        }
        taken = json.loads(field_of.run("kubernetes_admission.py", asked))[WARM:]
        middle, late = statistics.median(taken), percentile(taken, 0.99)
        found.append(Admitted(what=what, times=len(taken), median_ms=middle, p99_ms=late))
    return found
