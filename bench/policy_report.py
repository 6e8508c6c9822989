"""What policies cost, as a report: JSON for machines, tables for docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.figures import Aim
from bench.policy import Deciding, Policies, Reloading
from bench.report import heading, now_and_here, table

__all__ = ["END", "START", "PolicyReport", "aims", "read_report", "render", "take", "write_report"]

START: Final = "<!-- policy figures start: written by bench/run --only policy --write-docs -->"
END: Final = "<!-- policy figures end -->"

REPLAY_SECONDS: Final = 60.0
"""Time of ``policy diff`` over 100,000 orders, in seconds."""

DECISION_US: Final = 200.0
"""Median time of a decision among the most rules, in microseconds."""

RELOAD_SECONDS: Final = 2.0
"""Time of a reload after a change of one file, in seconds."""

STALL_MS: Final = 50.0
"""Longest that the loop may be held by a reload, in milliseconds: nobody notices it in an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport:
    """One run."""

    taken_at: str
    effort: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    policies: Policies


def take(policies: Policies, effort: str, versions: Mapping[str, str]) -> PolicyReport:
    """Return the report of a run that has just ended on this machine."""
    return PolicyReport(policies=policies, effort=effort, versions=dict(versions), **now_and_here())


def write_report(report: PolicyReport, path: Path) -> None:
    """Write *report* as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def read_report(path: Path) -> PolicyReport:
    """Return the report that `write_report` wrote."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found = document.pop("policies")
    deciding = [Deciding(**each) for each in found.pop("deciding")]
    reloading = [Reloading(**each) for each in found.pop("reloading")]
    policies = Policies(deciding=deciding, reloading=reloading, **found)
    return PolicyReport(policies=policies, **document)


def render(report: PolicyReport) -> str:
    """Return the tables of a report in Markdown."""
    policies = report.policies
    parts = [
        heading(report.taken_at, report.effort, report.commit, report.machine, report.versions),
        _aims_table(policies),
        _deciding_table(policies.deciding),
        _reloading_table(policies),
        _replay_table(policies.replays),
    ]
    return "\n\n".join(part for part in parts if part)


def aims(policies: Policies) -> Sequence[Aim]:
    """Return the aims with what was measured for each."""
    most = max(policies.deciding, key=lambda each: each.rules)
    made = [
        Aim(
            what=f"a decision among {most.rules} rules, median",
            bound=DECISION_US,
            measured=most.p50_us,
            unit="µs",
        )
    ]
    for each in policies.reloading:
        made.append(
            Aim(
                what=f"reload, {each.what}, {each.rules} rules",
                bound=RELOAD_SECONDS,
                measured=each.seconds,
                unit="s",
            )
        )
    stall = max(each.stall_ms for each in policies.reloading)
    made.append(Aim(what="event loop held by a reload", bound=STALL_MS, measured=stall, unit="ms"))
    for replay in policies.replays:
        made.append(
            Aim(
                what=f"policy diff over {replay['orders']} orders",
                bound=REPLAY_SECONDS,
                measured=replay["seconds"],
                unit="s",
            )
        )
    return made


def _aims_table(policies: Policies) -> str:
    rows = [
        [aim.what, f"{aim.bound:g} {aim.unit}", f"{aim.measured:.2f} {aim.unit}", aim.outcome]
        for aim in aims(policies)
    ]
    return "### Aims of policies\n\n" + table(["aim", "at most", "measured", "outcome"], rows)


def _deciding_table(deciding: Sequence[Deciding]) -> str:
    rows = [
        [
            f"{each.rules}",
            f"{each.per_second:.0f}",
            f"{each.p50_us:.0f}",
            f"{each.p99_us:.0f}",
        ]
        for each in deciding
    ]
    head = ["rules", "decisions a second", "p50 µs", "p99 µs"]
    return "### Decisions, one at a time\n\n" + table(head, rows)


def _reloading_table(policies: Policies) -> str:
    rows = [
        [
            each.what,
            f"{each.rules}",
            f"{each.parsed} of {each.files}",
            f"{each.seconds:.2f}",
            f"{each.stall_ms:.1f}",
            f"{each.p99_ms:.1f}",
        ]
        for each in policies.reloading
    ]
    head = ["reload", "rules", "files parsed", "s", "longest stall ms", "p99 ms"]
    idle = f"A loop at rest on this machine is late by {policies.idle_stall_ms:.1f} ms at most."
    return "### Reloads beside a loop that goes on\n\n" + table(head, rows) + f"\n\n{idle}"


def _replay_table(replays: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{each['orders']}",
            f"{each['certificates']}",
            f"{each['rules']}",
            f"{each['seconds']:.1f}",
            f"{each['per_second']}",
        ]
        for each in replays
    ]
    head = ["orders", "live certificates", "new rules", "s", "a second"]
    return "### `penstock policy diff`\n\n" + table(head, rows) if rows else ""
