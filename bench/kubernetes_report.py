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

THEIRS: Final = """\
cert-manager is its published controllers, built from source, without their webhook; it issues by \
a CA of its own, in its own process. With Penstock as its issuer by ACME a certificate takes \
[20 s or so](kubernetes-report.md), most of it cert-manager's looks at http-01.

Vault's agent injector is the published one, built from source, and adds an init container and a \
sidecar. Vault is one process beside the cluster that keeps everything in memory, where Penstock's \
broker writes to a disk. The limits are the injector's own, 500m and 128 MiB; the request is not: \
at 250m for each pod a node of two cores takes seven, so 1m is asked for."""
"""What stands behind the rows of the other side."""

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
    injected = found.get("injector_at_rest")
    on_cluster = OnCluster(
        install_seconds=found["install_seconds"],
        started=[Started(**each) for each in found["started"]],
        at_rest=None if at_rest is None else AtRest(**at_rest),
        injector_at_rest=None if injected is None else AtRest(**injected),
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
        _at_rest_table({"Penstock": found.at_rest, "Vault's agent": found.injector_at_rest}),
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
            ("errors told to a client meanwhile, 429 and 503 apart", found.upgraded.faults),
            ("certificates signed for an order or a CSR that has one", found.upgraded.signed_twice),
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
    return f"### From `kubectl apply` to served\n\n{table(head, rows)}\n\n{THEIRS}" if rows else ""


def _at_rest_table(at_rest: Mapping[str, AtRest | None]) -> str:
    rows = [
        [
            who,
            f"{each.pods}",
            f"{each.charged_mib:.1f}",
            f"{each.resident_mib:.1f}",
            f"{each.private_mib:.1f}",
            f"{each.cpu_percent:.3f}",
            f"{each.begun_cpu_seconds:.2f}",
        ]
        for who, each in at_rest.items()
        if each is not None
    ]
    head = ["whose", "sidecars", "MiB charged", "MiB resident", "MiB private", "% of one core"]
    head.append("s of processor time to get there")
    return "### One sidecar at rest, the median\n\n" + table(head, rows) if rows else ""


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
        f"{upgraded.clients} ACME clients made {upgraded.orders} orders, each of them one in "
        f"{upgraded.rhythm_seconds:.2f} s (median): {upgraded.lost} were lost, the longest pause "
        f"of a client between two certificates was {upgraded.pause_seconds:.1f} s, the longest "
        f"that one request had no answer was {upgraded.away_seconds:.1f} s, and "
        f"{upgraded.asked_again} times one was sent again. Of {upgraded.pods} pods that were "
        f"applied at the same moment the last served after {upgraded.pods_longest_seconds:.1f} s. "
        f"The CA's own ledger has {upgraded.signed} certificates of all these, "
        f"{upgraded.signed_twice} of them signed for an order or a CSR that has another."
    )
