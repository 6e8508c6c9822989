"""What agents cost, as a report: JSON for machines, tables for docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.agents import Agents
from bench.agents_channel import Held, Return
from bench.agents_memory import Resident
from bench.agents_push import Served, Wave
from bench.agents_sweep import Swept
from bench.figures import Aim
from bench.report import heading, now_and_here, table

__all__ = ["END", "START", "AgentsReport", "aims", "read_report", "render", "take", "write_report"]

START: Final = "<!-- agent figures start: written by bench/run --only agents --write-docs -->"
END: Final = "<!-- agent figures end -->"

NOISE_PERCENT: Final = 15.0
"""By how much the least of some rounds may differ from that of others and be called the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsReport:
    """One run."""

    taken_at: str
    effort: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    agents: Agents


def take(agents: Agents, effort: str, versions: Mapping[str, str]) -> AgentsReport:
    """Return the report of a run that has just ended on this machine."""
    return AgentsReport(agents=agents, effort=effort, versions=dict(versions), **now_and_here())


def write_report(report: AgentsReport, path: Path) -> None:
    """Write *report* as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def read_report(path: Path) -> AgentsReport:
    """Return the report that `write_report` wrote."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found = document.pop("agents")
    wave = found["wave"]
    if wave is not None:
        wave["times"] = [Served(**each) for each in wave["times"]]
    agents = Agents(
        resident=[Resident(**each) for each in found["resident"]],
        held=[Held(**each) for each in found["held"]],
        returned=None if found["returned"] is None else Return(**found["returned"]),
        one=[Served(**each) for each in found["one"]],
        wave=None if wave is None else Wave(**wave),
        swept=[Swept(**each) for each in found["swept"]],
    )
    return AgentsReport(agents=agents, **document)


def render(report: AgentsReport) -> str:
    """Return the tables of a report in Markdown."""
    agents = report.agents
    parts = [
        heading(report.taken_at, report.effort, report.commit, report.machine, report.versions)
    ]
    parts += [_aims_table(agents), _resident_table(agents.resident), _held_table(agents.held)]
    parts += [_served_table(agents), _wave(agents.wave), _return(agents.returned)]
    parts.append(_swept_table(agents.swept))
    return "\n\n".join(part for part in parts if part)


def aims(agents: Agents) -> Sequence[Aim]:
    """Return the aims with what was measured for each."""
    made = []
    ours = next((one for one in agents.resident if one.name == "penstock-agent"), None)
    if ours is not None and ours.private_mib is not None:
        for what, bound, measured in (
            ("resident", 24.0, ours.resident_mib),
            ("private", 12.0, ours.private_mib),
        ):
            text = f"idle agent that holds its connection, {what}"
            made.append(Aim(what=text, bound=bound, measured=measured, unit="MiB"))
    most = max(agents.held, key=lambda one: one.agents, default=None)
    if most is not None:
        text = f"{most.agents} agents connected, above the broker at rest"
        made.append(Aim(what=text, bound=400.0, measured=most.above_rest_mib, unit="MiB"))
        text = f"{most.agents} agents connected, of one core"
        made.append(Aim(what=text, bound=100.0, measured=most.cpu_percent, unit="%"))
    if agents.wave is not None:
        for what, measured in (
            ("has come to {} agents: each has its certificate", agents.wave.seen_seconds),
            ("is seen served by {} agents", agents.wave.served_seconds),
        ):
            text = f"a push {what.format(agents.wave.nodes)}"
            made.append(Aim(what=text, bound=3.0, measured=measured, unit="s"))
    more = _more_percent(agents.swept)
    if more is not None:
        text = "more for a sweep over what is not due"
        made.append(Aim(what=text, bound=NOISE_PERCENT, measured=more, unit="%"))
    return made


def _more_percent(swept: Sequence[Swept]) -> float | None:
    if len(swept) < 2 or swept[0].cpu_ms <= 0:
        return None
    return 100 * (swept[-1].cpu_ms / swept[0].cpu_ms - 1)


def _aims_table(agents: Agents) -> str:
    rows = [
        [aim.what, f"{aim.bound:g} {aim.unit}", f"{aim.measured:.1f} {aim.unit}", aim.outcome]
        for aim in aims(agents)
    ]
    return "### Aims of agents\n\n" + table(["aim", "at most", "measured", "outcome"], rows)


def _resident_table(resident: Sequence[Resident]) -> str:
    rows = []
    for one in resident:
        private = "–" if one.private_mib is None else f"{one.private_mib:.1f}"
        rows.append([one.name, one.what, f"{one.resident_mib:.1f}", private])
    head = ["program", "what it does", "MiB resident", "MiB private"]
    return "### On the host, one certificate\n\n" + table(head, rows) if rows else ""


def _held_table(held: Sequence[Held]) -> str:
    rows = []
    for one in held:
        row = [f"{one.agents}", f"{one.resident_mib:.0f}", f"{one.above_rest_mib:.0f}"]
        row += [f"{one.kib_each:.1f}", f"{one.cpu_percent:.2f}"]
        rows.append([*row, f"{one.simulator_cpu_percent:.2f}"])
    head = ["agents", "broker MiB", "above rest", "KiB each", "broker % of one core"]
    head.append("simulator %")
    return "### Connected and at rest\n\n" + table(head, rows) if rows else ""


def _served_table(agents: Agents) -> str:
    found = [*agents.one, *(agents.wave.times if agents.wave is not None else [])]
    rows = []
    for one in found:
        row = [one.what, f"{one.nodes}", f"{one.median_seconds:.2f}", f"{one.p99_seconds:.2f}"]
        rows.append([*row, f"{one.longest_seconds:.2f}"])
    head = ["from … until …", "times", "median s", "p99 s", "longest s"]
    return "### From renewed to served\n\n" + table(head, rows) if rows else ""


def _wave(wave: Wave | None) -> str:
    if wave is None:
        return ""
    return (
        f"A wave of {wave.nodes} nodes at once, after its canary: the last agent had its "
        f"certificate {wave.seen_seconds:.2f} s after the wave's first push and the last agent saw "
        f"it served {wave.served_seconds:.2f} s after it. The broker had kept the last receipt of "
        f"that after {wave.kept_seconds:.2f} s: only then does `penstock` itself say 'seen' of all "
        f"of them. It took {wave.broker_cpu_seconds:.1f} s of processor time until then, the "
        f"simulator on the same machine {wave.simulator_cpu_seconds:.1f} s."
    )


def _return(returned: Return | None) -> str:
    if returned is None:
        return ""
    return (
        "### Coming back\n\n"
        f"{returned.agents} agents after `kill -9` of the broker: it was ready "
        f"{returned.start_seconds:.1f} s after its start, half of them were back "
        f"{returned.half_seconds:.1f} s later, all after {returned.all_seconds:.1f} s; "
        f"{returned.cpu_seconds:.1f} s of its processor time, the start included."
    )


def _swept_table(swept: Sequence[Swept]) -> str:
    rows = []
    for one in swept:
        rounds = ", ".join(f"{each:.0f}" for each in one.rounds)
        row = [f"{one.managed}", f"{one.due}", f"{one.idle_cpu_ms:.0f}", f"{one.cpu_ms:.0f}"]
        rows.append([*row, rounds])
    if not rows:
        return ""
    seconds = f"{swept[0].window_seconds:.0f}"
    head = ["managed", "due", f"ms CPU in {seconds} s with nothing due", "with them due", "rounds"]
    return "### The sweep\n\n" + table(head, rows) + _difference(swept)


def _difference(swept: Sequence[Swept]) -> str:
    """Return how much more the largest took than the smallest in the same minutes."""
    if len(swept) < 2 or len(swept[0].rounds) < 2:
        return ""
    more = [late - early for early, late in zip(swept[0].rounds, swept[-1].rounds, strict=True)]
    error = statistics.stdev(more) / len(more) ** 0.5
    return (
        f"\n\nIn the same minutes {swept[-1].managed} took {statistics.mean(more):.0f} ms more "
        f"than {swept[0].managed}, with a standard error of {error:.0f} ms over {len(more)} "
        f"rounds; the middle one of the differences is {statistics.median(more):.0f} ms."
    )
