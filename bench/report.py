"""From what was measured to a report: JSON for machines, tables for docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.figures import Aim, Cell, ratio
from bench.scenarios import Measured

__all__ = [
    "Report",
    "cells_table",
    "heading",
    "now_and_here",
    "read_report",
    "render",
    "table",
    "take",
    "write_docs",
    "write_report",
]

ROOT: Final = Path(__file__).resolve().parents[1]

BEFORE: Final = Path(__file__).resolve().parent / "before.json"
"""The report of the day before anything was made faster."""

START: Final = "<!-- figures start: written by bench/run --write-docs -->"
END: Final = "<!-- figures end -->"

PROC_CPU: Final = Path("/proc/cpuinfo")
PROC_MEMORY: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run."""

    taken_at: str
    effort: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    measured: Measured


def take(measured: Measured, effort: str, versions: Mapping[str, str]) -> Report:
    """Return the report of a run that has just ended on this machine."""
    return Report(effort=effort, versions=dict(versions), measured=measured, **now_and_here())


def now_and_here() -> dict[str, Any]:
    """Return when it is, which commit lies here, and what machine this is."""
    now = datetime.now(UTC).isoformat(timespec="minutes")  # noqa: TID251  no broker runs here
    return {"taken_at": now, "commit": _commit(), "machine": _machine()}


def write_report(report: Report, path: Path) -> None:
    """Write *report* as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def read_report(path: Path) -> Report:
    """Return the report that `write_report` wrote."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    measured = document.pop("measured")
    cells = [Cell(**cell) for cell in measured.pop("cells")]
    return Report(measured=Measured(cells=cells, **measured), **document)


def render(report: Report, before: Report | None) -> str:
    """Return the tables of a report in Markdown, beside an earlier one where there is one."""
    parts = [_heading(report), _aims_table(report.measured), cells_table(report.measured.cells)]
    parts += [_ratios(report.measured), _latency(report.measured), _memory(report.measured)]
    if before is not None:
        parts.append(_comparison(before, report))
    return "\n\n".join(part for part in parts if part)


def write_docs(text: str, page: Path, *, start: str = START, end: str = END) -> None:
    """Put *text* between the two marks of *page*.

    Raises:
        ValueError: The marks are not there.
    """
    whole = page.read_text("utf-8")
    found = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if found.search(whole) is None:
        raise ValueError(f"{page} lacks the marks between which figures are written")
    page.write_text(found.sub(lambda _: f"{start}\n\n{text}\n\n{end}", whole), "utf-8")


def aims(measured: Measured) -> Sequence[Aim]:
    """Return the aims of the project with what was measured for each."""
    made = []
    for scene, bound, what in (
        ("tunnel", 6.0, "an order through the tunnel"),
        ("built-in CA", 4.0, "an order with the built-in CA"),
    ):
        cells = [cell for cell in measured.cells if cell.scene == scene]
        if cells:
            worst = max(cell.cpu_ms for cell in cells)
            made.append(Aim(what=f"{what}, worst cell", bound=bound, measured=worst, unit="ms CPU"))
    if {"empty", "full"} <= set(measured.store_cpu_ms):
        more = 100 * (measured.store_cpu_ms["full"] / measured.store_cpu_ms["empty"] - 1)
        made.append(Aim(what="more on a full store", bound=5.0, measured=more, unit="%"))
    added = added_ms(measured, 1)
    if added is not None:
        what = "median latency that the tunnel adds, 1 client"
        made.append(Aim(what=what, bound=15.0, measured=added, unit="ms"))
    crowd = [cell.errors for cell in measured.cells if cell.concurrency == 32 and _is_ours(cell)]
    if crowd:
        what = "errors of Penstock, 32 clients"
        made.append(Aim(what=what, bound=0.0, measured=float(sum(crowd)), unit=""))
    return made


def added_ms(measured: Measured, concurrency: int) -> float | None:
    """Return the median latency through the tunnel less that of the CA itself."""
    through = measured.cell("tunnel, granted", concurrency)
    direct = measured.cell("the CA itself, granted", concurrency)
    return None if through is None or direct is None else through.p50_ms - direct.p50_ms


def _is_ours(cell: Cell) -> bool:
    return cell.scene not in ("step-ca", "acme2certifier")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(
    taken_at: str,
    effort: str,
    commit: str,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:
    """Return when, where and of what a report was taken."""
    told = "; ".join(f"{name} {value}" for name, value in machine.items())
    of = ", ".join(f"{name} {value}" for name, value in versions.items())
    return (
        f"Taken {taken_at}, effort `{effort}`, commit {commit}.\nMachine: {told}.\nVersions: {of}."
    )


def _heading(report: Report) -> str:
    return heading(report.taken_at, report.effort, report.commit, report.machine, report.versions)


def _aims_table(measured: Measured) -> str:
    rows = [
        [aim.what, f"{aim.bound:g} {aim.unit}", f"{aim.measured:.1f} {aim.unit}", aim.outcome]
        for aim in aims(measured)
    ]
    return "### Aims\n\n" + table(["aim", "at most", "measured", "outcome"], rows)


def cells_table(
    cells: Sequence[Cell], *, title: str = "All cells", is_naming_behind: bool = False
) -> str:
    """Return the figures of every cell; with *is_naming_behind* it is told what stands behind."""
    head = ["server", "clients", "ms CPU an order", "behind it", "orders a second", "p50 ms"]
    head += ["p99 ms", "errors", "requests", "generator ms CPU", "MiB"]
    rows = []
    for cell in cells:
        behind = ", ".join(
            f"{name} {each:.1f}" if is_naming_behind else f"{each:.1f}"
            for name, each in cell.behind_cpu_ms.items()
        )
        row = [cell.scene, f"{cell.concurrency}", f"{cell.cpu_ms:.1f}", behind or "–"]
        row += [f"{cell.orders_per_second:.1f}", f"{cell.p50_ms:.1f}", f"{cell.p99_ms:.1f}"]
        row += [f"{cell.errors}", f"{cell.requests:.1f}", f"{cell.generator_cpu_ms:.1f}"]
        rows.append([*row, f"{cell.resident_mib:.0f}"])
    return f"### {title}\n\n" + table(head, rows)


def _ratios(measured: Measured) -> str:
    rows = []
    for ours, theirs in (("built-in CA", "step-ca"), ("tunnel, granted", "acme2certifier")):
        for concurrency in (1, 8, 32):
            mine, other = measured.cell(ours, concurrency), measured.cell(theirs, concurrency)
            if mine is None or other is None:
                continue
            cpu = ratio(mine.cpu_ms, other.cpu_ms)
            rate = ratio(other.orders_per_second, mine.orders_per_second)
            row = [f"{ours} to {theirs}", f"{concurrency}", f"{cpu:.2f}", f"{rate:.2f}"]
            rows.append([*row, f"{ratio(mine.p50_ms, other.p50_ms):.2f}"])
    if not rows:
        return ""
    head = ["Penstock to its peer", "clients", "CPU: theirs is … of ours"]
    head += ["orders a second: ours is … of theirs", "p50: theirs is … of ours"]
    return "### Ratios, over 1 in our favour\n\n" + table(head, rows)


def _latency(measured: Measured) -> str:
    rows = []
    for concurrency in (1, 8, 32):
        added = added_ms(measured, concurrency)
        if added is not None:
            rows.append([f"{concurrency}", f"{added:.1f}"])
    if not rows:
        return ""
    return "### What the tunnel adds\n\n" + table(["clients", "ms added to the median"], rows)


def _memory(measured: Measured) -> str:
    rows = [
        [scene, f"{rest:.0f}", f"{worked:.0f}" if worked is not None else "–"]
        for scene, rest in measured.rest_mib.items()
        for worked in [measured.worked_mib.get(scene)]
    ]
    text = "### Memory\n\n" + table(["server", "MiB at rest", "MiB after the long run"], rows)
    if measured.store_cpu_ms:
        store = ", ".join(f"{name} {each:.2f} ms" for name, each in measured.store_cpu_ms.items())
        text += f"\n\n### Store\n\nProcessor time an order: {store}."
    return text


def _comparison(before: Report, now: Report) -> str:
    rows = []
    for cell in now.measured.cells:
        earlier = before.measured.cell(cell.scene, cell.concurrency)
        if earlier is None or not _is_ours(cell):
            continue
        row = [cell.scene, f"{cell.concurrency}", f"{earlier.cpu_ms:.1f}", f"{cell.cpu_ms:.1f}"]
        rows.append([*row, f"{earlier.p50_ms:.1f}", f"{cell.p50_ms:.1f}"])
    head = ["server", "clients", "ms CPU before", "now", "p50 ms before", "now"]
    told = f"Before: {before.taken_at}, effort `{before.effort}`."
    return f"### Before and after\n\n{told}\n\n" + table(head, rows)


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


def _machine() -> dict[str, str]:
    models = re.findall(r"^model name\s*:\s*(.+)$", PROC_CPU.read_text("utf-8"), re.MULTILINE)
    (kib,) = re.findall(r"^MemTotal:\s+(\d+) kB$", PROC_MEMORY.read_text("ascii"), re.MULTILINE)
    busy, _, _ = os.getloadavg()
    optimised = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    made = "with" if optimised else "without"
    return {
        "processors": f"{os.cpu_count()} × {models[0] if models else platform.machine()}",
        "memory": f"{int(kib) // 1024} MiB",
        "kernel": platform.release().partition("-")[0],
        "CPython": f"{platform.python_version()}, built {made} profile-guided optimisation",
        "load at the end": f"{busy:.1f}",
    }
