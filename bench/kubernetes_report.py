"""What a cluster takes, as a report: JSON for machines, tables for docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.figures import Aim
from bench.kubernetes import Admitted, AtRest, OnCluster, Started
from bench.kubernetes_field import Image
from bench.kubernetes_resources import Taken
from bench.kubernetes_upgrade import Upgraded
from bench.report import heading, now_and_here, table

__all__ = [
    "END",
    "START",
    "KubernetesReport",
    "aims",
    "read_report",
    "render",
    "take",
    "write_report",
]

START: Final = (
    "<!-- kubernetes figures start: written by bench/run --only kubernetes --write-docs -->"
)
END: Final = "<!-- kubernetes figures end -->"

AGENT_IMAGE_MIB: Final = 60.0
"""Largest image of the agent above its base."""

SIDECAR_MIB: Final = 64.0
"""Memory limit that a sidecar is given where nothing else is said."""

INJECTOR: Final = "https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations"
SCALING: Final = "https://cert-manager.io/docs/devops-tips/scaling-cert-manager/"

PEERS: Final = f"""\
### What others publish

| who | what | where |
| --- | --- | --- |
| Vault's agent injector | a sidecar asks for 64 MiB and 250m of a processor, and is held to \
128 MiB and 500m | \
[annotations]({INJECTOR}) |
| cert-manager | no time from a pod to its certificate; at most 20 requests a second to the API \
server unless told otherwise | [scaling]({SCALING}) |

`vault agent` by itself was measured [among the agents](#on-the-host-one-certificate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesReport:
    """One run."""

    taken_at: str
    effort: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    on_cluster: OnCluster


def take(on_cluster: OnCluster, effort: str, versions: Mapping[str, str]) -> KubernetesReport:
    """Return the report of a run that has just ended on this machine."""
    return KubernetesReport(
        on_cluster=on_cluster, effort=effort, versions=dict(versions), **now_and_here()
    )


def write_report(report: KubernetesReport, path: Path) -> None:
    """Write *report* as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def read_report(path: Path) -> KubernetesReport:
    """Return the report that `write_report` wrote."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found = document.pop("on_cluster")
    at_rest, upgraded = found["at_rest"], found["upgraded"]
    on_cluster = OnCluster(
        install_seconds=found["install_seconds"],
        started=[Started(**each) for each in found["started"]],
        at_rest=None if at_rest is None else AtRest(**at_rest),
        own=[Taken(**each) for each in found["own"]],
        admitted=[Admitted(**each) for each in found["admitted"]],
        images=[Image(**each) for each in found["images"]],
        upgraded=None if upgraded is None else Upgraded(**upgraded),
    )
    return KubernetesReport(on_cluster=on_cluster, **document)


def render(report: KubernetesReport) -> str:
    """Return the tables of a report in Markdown."""
    found = report.on_cluster
    parts = [
        heading(report.taken_at, report.effort, report.commit, report.machine, report.versions),
        _aims_table(found),
        _started_table(found.started),
        _at_rest_table(found.at_rest),
        _own_table(found.own),
        _admitted_table(found.admitted),
        _images_table(found.images),
        _upgraded(found.upgraded),
        PEERS,
    ]
    return "\n\n".join(part for part in parts if part)


def aims(found: OnCluster) -> Sequence[Aim]:
    """Return the aims with what was measured for each."""
    made = [
        Aim(
            what="image of the agent above its base",
            bound=AGENT_IMAGE_MIB,
            measured=each.above_base_mib,
            unit="MiB",
        )
        for each in found.images
        if each.name == "penstock-agent"
    ]
    if found.at_rest is not None:
        what = f"a sidecar at rest, of {found.at_rest.pods}, as charged to it"
        measured = found.at_rest.charged_mib
        made.append(Aim(what=what, bound=SIDECAR_MIB, measured=measured, unit="MiB"))
    if found.upgraded is not None:
        for what, number in (
            ("orders lost while the broker is replaced", found.upgraded.lost),
            ("errors told to a client meanwhile", found.upgraded.faults),
            ("orders with two certificates", found.upgraded.orders_with_two_certificates),
        ):
            made.append(Aim(what=what, bound=0.0, measured=float(number), unit=""))
    return made


def _aims_table(found: OnCluster) -> str:
    rows = [
        [
            aim.what,
            f"{aim.bound:g} {aim.unit}".rstrip(),
            f"{aim.measured:.1f} {aim.unit}" if aim.unit else f"{aim.measured:g}",
            aim.outcome,
        ]
        for aim in aims(found)
    ]
    if not rows:
        return ""
    return "### Aims of a cluster\n\n" + table(["aim", "at most", "measured", "outcome"], rows)


def _started_table(started: Sequence[Started]) -> str:
    rows = [
        [
            each.what,
            f"{each.pods}",
            f"{each.times}",
            f"{each.median_seconds:.1f}",
            f"{each.p99_seconds:.1f}",
            f"{each.longest_seconds:.1f}",
        ]
        for each in started
    ]
    head = ["who", "pods at once", "pods measured", "median s", "p99 s", "longest s"]
    return "### From `kubectl apply` to served\n\n" + table(head, rows) if rows else ""


def _at_rest_table(at_rest: AtRest | None) -> str:
    if at_rest is None:
        return ""
    row = [
        f"{at_rest.pods}",
        f"{at_rest.charged_mib:.1f}",
        f"{at_rest.resident_mib:.1f}",
        f"{at_rest.private_mib:.1f}",
        f"{at_rest.cpu_percent:.3f}",
        f"{at_rest.begun_cpu_seconds:.2f}",
    ]
    head = ["sidecars", "MiB charged", "MiB resident", "MiB private", "% of one core"]
    head.append("s of processor time to get there")
    return "### One sidecar at rest, the median\n\n" + table(head, [row])


def _own_table(own: Sequence[Taken]) -> str:
    rows = [
        [
            each.container,
            f"{each.charged_mib:.0f}",
            f"{each.peak_mib:.0f}",
            f"{each.requested_mib:.0f}",
            f"{each.limit_mib:.0f}",
            f"{each.cpu_percent:.2f}",
            f"{each.requested_cpu * 100:g}",
        ]
        for each in own
    ]
    head = ["container", "MiB at rest", "MiB at most", "MiB requested", "MiB allowed"]
    head += ["% of one core at rest", "% requested"]
    if not rows:
        return ""
    return (
        "### The release's own containers, after those pods have started\n\n"
        "Memory as the kernel charges it, page cache included; of replicas the one that took "
        "most.\n\n" + table(head, rows)
    )


def _admitted_table(admitted: Sequence[Admitted]) -> str:
    rows = [
        [each.what, f"{each.times}", f"{each.median_ms:.1f}", f"{each.p99_ms:.1f}"]
        for each in admitted
    ]
    head = ["a pod, as the API server answers", "times", "median ms", "p99 ms"]
    return "### Admission\n\n" + table(head, rows) if rows else ""


def _images_table(images: Sequence[Image]) -> str:
    rows = [[each.name, f"{each.above_base_mib:.1f}", f"{each.base_mib:.1f}"] for each in images]
    head = ["image, without compression", "MiB above its base", "MiB of the base"]
    return "### Images\n\n" + table(head, rows) if rows else ""


def _upgraded(upgraded: Upgraded | None) -> str:
    if upgraded is None:
        return ""
    return (
        "### The broker replaced under load\n\n"
        f"`helm upgrade` took {upgraded.seconds:.1f} s until the new broker was ready. Meanwhile "
        f"an ACME client made {upgraded.orders} orders, one each {upgraded.rhythm_seconds:.2f} s "
        f"(median): {upgraded.lost} were lost, the longest pause between two certificates was "
        f"{upgraded.pause_seconds:.1f} s, the longest that one request had no answer was "
        f"{upgraded.away_seconds:.1f} s, and it asked {upgraded.asked_again} times again. Of "
        f"{upgraded.pods} pods that were applied at the same moment the last served after "
        f"{upgraded.pods_longest_seconds:.1f} s; {upgraded.orders_with_two_certificates} orders "
        "had two certificates."
    )
