"""What keys in Vault cost, as a report: JSON for machines, tables for docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.figures import Aim, Cell
from bench.report import cells_table, heading, now_and_here, table
from bench.vault import FILE, VAULT, Keys, Signing, place, scene_name

__all__ = ["END", "START", "VaultReport", "read_report", "render", "take", "write_report"]

START: Final = "<!-- vault figures start: written by bench/run --only vault --write-docs -->"
END: Final = "<!-- vault figures end -->"

MOST: Final = 1.3
"""Median latency of an order with its key in Vault, as a multiple of that with a key file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultReport:
    """One run."""

    taken_at: str
    effort: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    keys: Keys


def take(keys: Keys, effort: str, versions: Mapping[str, str]) -> VaultReport:
    """Return the report of a run that has just ended on this machine."""
    return VaultReport(keys=keys, effort=effort, versions=dict(versions), **now_and_here())


def write_report(report: VaultReport, path: Path) -> None:
    """Write *report* as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def read_report(path: Path) -> VaultReport:
    """Return the report that `write_report` wrote."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    keys = document.pop("keys")
    signing = [Signing(**each) for each in keys.pop("signing")]
    cells = [Cell(**each) for each in keys.pop("cells")]
    return VaultReport(keys=Keys(signing=signing, cells=cells, **keys), **document)


def render(report: VaultReport) -> str:
    """Return the tables of a report in Markdown."""
    keys = report.keys
    parts = [
        heading(report.taken_at, report.effort, report.commit, report.machine, report.versions)
    ]
    parts += [_aims_table(keys), _signing_table(keys.signing), _latency_table(keys)]
    parts.append(cells_table(keys.cells, title="Orders by turns", is_naming_behind=True))
    return "\n\n".join(part for part in parts if part)


def ratio_of(keys: Keys, concurrency: int, *, is_granted: bool) -> float | None:
    """Return the median latency with the key in Vault over that with a key file."""
    in_vault = keys.cell(scene_name(VAULT, is_granted=is_granted), concurrency)
    in_file = keys.cell(scene_name(FILE, is_granted=is_granted), concurrency)
    if in_vault is None or in_file is None or in_file.p50_ms <= 0:
        return None
    return in_vault.p50_ms / in_file.p50_ms


def aims(keys: Keys) -> Sequence[Aim]:
    """Return the aims with what was measured for each."""
    made = []
    for is_granted, what in ((True, "no proof asked for"), (False, "proved by http-01")):
        measured = ratio_of(keys, 8, is_granted=is_granted)
        if measured is not None:
            text = f"median latency to that with a key file, 8 clients, {what}"
            made.append(Aim(what=text, bound=MOST, measured=measured, unit="×"))
    if keys.cells:
        errors = float(sum(cell.errors for cell in keys.cells))
        made.append(Aim(what="errors", bound=0.0, measured=errors, unit=""))
    return made


def _aims_table(keys: Keys) -> str:
    rows = [
        [aim.what, f"{aim.bound:g} {aim.unit}", f"{aim.measured:.2f} {aim.unit}", aim.outcome]
        for aim in aims(keys)
    ]
    return "### Aims of keys in Vault\n\n" + table(["aim", "at most", "measured", "outcome"], rows)


def _signing_table(signing: Sequence[Signing]) -> str:
    head = ["key", "at once", "signatures a second", "p50 ms", "p99 ms", "ms CPU each"]
    head += ["of Vault", "connections"]
    rows = []
    for each in signing:
        row = [each.keeper, f"{each.concurrency}", f"{each.per_second:.0f}"]
        row += [f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.cpu_ms:.3f}"]
        in_vault = each.keeper == VAULT
        row.append(f"{each.vault_cpu_ms:.3f}" if in_vault else "–")
        rows.append([*row, f"{each.connections}" if in_vault else "–"])
    return "### Signatures, ES256\n\n" + table(head, rows) if rows else ""


def _latency_table(keys: Keys) -> str:
    rows = []
    for is_granted in (True, False):
        scene = scene_name(VAULT, is_granted=is_granted)
        for cell in keys.cells:
            if cell.scene != scene:
                continue
            at = place(scene, cell.concurrency)
            waited = keys.signing_ms.get(at, 0.0)
            ratio = ratio_of(keys, cell.concurrency, is_granted=is_granted)
            share = 100 * waited / cell.p50_ms if cell.p50_ms > 0 else 0.0
            row = [scene, f"{cell.concurrency}", f"{keys.signatures.get(at, 0.0):.1f}"]
            row += [f"{waited:.1f}", f"{share:.0f} %"]
            rows.append([*row, "–" if ratio is None else f"{ratio:.2f}"])
    head = ["orders", "clients", "signatures an order", "ms waited for them", "share of the median"]
    head.append("median to that with a key file")
    return "### What Vault adds to an order\n\n" + table(head, rows) if rows else ""
