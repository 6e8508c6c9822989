"""The page that a run on the cluster writes: when, on what, what was tried, what was measured."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kubernetes.programs import DEBIAN_PROGRAMS, GROUPS
from tests.peers.authority import real_now
from tests.peers.installation import GO_PEERS, debian_version

REPOSITORY: Final = Path(__file__).resolve().parents[2]

HEAD: Final = """\
# On a real cluster

`make test-kubernetes` starts one node of Kubernetes from nothing (etcd, API server, controllers,
scheduler, kubelet, containerd, proxy, DNS), builds both images, and tries there what these tests
say. Written by the run; [how the cluster is made](adr/0036-images-and-the-test-cluster.md).

## The last run
"""

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tried:
    """One test: what it says, how it ended, how long it took."""

    file: str
    says: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class Report:
    """What a run came to, filled by the tests as they go."""

    tried: list[Tried] = field(default_factory=list)
    figures: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Heading → what was measured, and the number with its unit."""

    transcripts: dict[str, str] = field(default_factory=dict)
    """Heading → commands and what they printed."""

    def figure(self, heading: str, what: str, number: str) -> None:
        """Keep one number; the last one counts where a test is run twice."""
        kept = [line for line in self.figures.get(heading, []) if line[0] != what]
        self.figures[heading] = [*kept, (what, number)]

    def seconds(self, heading: str, what: str, measured: Sequence[float]) -> None:
        """Keep the median and the 99th percentile of durations, and how many there were."""
        ordered = sorted(measured)
        last = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
        middle = statistics.median(ordered)
        text = f"median {middle:.2f} s, 99th {last:.2f} s, of {len(ordered)}"
        self.figure(heading, what, text)

    def megabytes(self, heading: str, what: str, size: int) -> None:
        """Keep a size."""
        self.figure(heading, what, f"{size / MEBIBYTE:.1f} MiB")

    def page(self, seconds: float) -> str:
        """Return the whole page."""
        failed = [one for one in self.tried if one.outcome != "passed"]
        outcome = f"**{len(self.tried) - len(failed)} of {len(self.tried)} passed**"
        lines = [HEAD, f"Taken {taken()}. {outcome}, {seconds / 60:.1f} minutes in all.", ""]
        lines += table(["part", "version"], list(versions().items()))
        for heading, numbers in self.figures.items():
            lines += [f"## {heading}", "", *table(["what", "number"], numbers)]
        for heading, text in self.transcripts.items():
            lines += [f"## {heading}", "", "```console", text.rstrip(), "```", ""]
        lines += ["## What was tried", ""]
        rows = [(one.file, one.says, one.outcome, f"{one.seconds:.1f} s") for one in self.tried]
        lines += table(["file", "what holds", "outcome", "time"], rows)
        return "\n".join(lines).rstrip() + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table and the empty line after it."""
    written = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return [*written, ""]


def taken() -> str:
    """Return when and on what this is taken."""
    now = real_now().astimezone(datetime.UTC).isoformat(timespec="minutes")
    asked = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%h"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    cores = os.cpu_count()
    return f"{now}, commit {commit or 'unknown'}, {cores} cores, kernel {platform.release()}"


def versions() -> Mapping[str, str]:
    """Return the version of each part."""
    found = {group.name: group.version for group in GROUPS}
    found |= {peer.name: peer.version for peer in GO_PEERS if peer.name in {"helm", "vault"}}
    for package in ("containerd", "runc", "buildah", "nginx-light"):
        if package in DEBIAN_PROGRAMS.values():
            found[package] = debian_version(package)
    return found
