"""The report of a soak, as the page docs/soak.md."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.soak.deliveries import Delivery
from tests.soak.faults import Fault
from tests.soak.judging import Judged

__all__ = ["Soaked", "render"]

REPOSITORY = Path(__file__).resolve().parents[2]

HEAD = """\
# Soak

`make soak` runs, unattended, twenty real agents (`penstock-agent`) beside nginx, Apache httpd,
HAProxy and Postfix as packaged, with one broker in front of Pebble, whose certificates live five
minutes. Meanwhile it ends broker, agents and Pebble by `kill -9`, and stops Pebble by SIGSTOP; a
seed decides when. A prober, which knows neither broker nor agents, connects to every server each
second and verifies what it is served. At the end every reload in the servers' own logs is squared
with the receipts, and every certificate is followed by `penstock cert trace` from its order to its
end: each stage has its time and its event, in order, with the ids that the store has. A kill
explains one reload that is done again and the receipts that were lost with it, a certificate that
was taken back one reload more; the run fails on anything that cannot be explained.

**What is done for Pebble.** It keeps nothing: a kill costs it its accounts, its orders and its
root. After each the run does what [the runbook](runbooks/account-lost.md) tells a person to do
(`penstock upstream recover --agree-to-terms`, then `penstock order again` for each order that is
left to decide), and gives the new root to nodes and prober, which trust every root that there was.
Policy has the comparison of a renewed certificate with the former pass over its root there.
"""


@dataclass(slots=True, kw_only=True)
class Soaked:
    """One run."""

    seed: int
    minutes: float
    hosts: int
    lifetime_seconds: int
    judged: Judged
    faults: Sequence[Fault] = field(default_factory=tuple)
    broken: Sequence[str] = field(default_factory=tuple)

    @property
    def violations(self) -> list[str]:
        """All that must not be."""
        return [*self.judged.violations, *self.broken]


def render(soaked: Soaked) -> str:
    """Return the page."""
    now = datetime.now(UTC).isoformat(timespec="minutes")  # noqa: TID251  no broker runs here
    violations = soaked.violations
    outcome = "no violation" if not violations else f"{len(violations)} violations"
    parts = [
        HEAD,
        "## The last run\n",
        (
            f"Taken {now}, commit {_commit()}, {platform.python_implementation()} "
            f"{platform.python_version()}, kernel {platform.release()}. Seed {soaked.seed}, "
            f"{soaked.minutes:g} minutes of faults, {soaked.hosts} hosts, certificates of "
            f"{soaked.lifetime_seconds} s: **{outcome}**.\n"
        ),
    ]
    parts += [f"- {one}" for one in violations[:50]] + ([""] if violations else [])
    parts += ["### Faults\n", _faults(soaked.faults), ""]
    parts += ["### Figures\n", _pairs(soaked.judged.figures), ""]
    parts += ["### How deliveries ended\n", _pairs(soaked.judged.stages), ""]
    if soaked.judged.unseen:
        parts += ["Those that did not end with a certificate seen served:\n"]
        parts += [_unseen(soaked.judged.unseen), ""]
    parts += ["### Reloads\n", _reloads(soaked.judged), ""]
    return "\n".join(parts)


def _faults(faults: Sequence[Fault]) -> str:
    rows = []
    for what in sorted({_kind(fault) for fault in faults}):
        away = [fault.away_seconds for fault in faults if _kind(fault) == what]
        rows.append([what, f"{len(away)}", f"{min(away):.1f}–{max(away):.1f}"])
    return _table(["fault", "times", "seconds away"], rows)


def _kind(fault: Fault) -> str:
    return fault.what.split(" of ")[0]


def _pairs(pairs: Mapping[str, Any]) -> str:
    return _table(["what", "number"], [[name, f"{value}"] for name, value in pairs.items()])


def _unseen(deliveries: Sequence[Delivery]) -> str:
    rows = [[one.node, one.stage, one.reason, _in_cell(one.note)] for one in deliveries]
    return _table(["node", "end", "cause", "note"], rows)


def _in_cell(text: str | None) -> str:
    """Return *text* so that it stays within its cell of a table."""
    return " ".join((text or "none").replace("|", "\\|").split())


def _reloads(judged: Judged) -> str:
    rows = [[kind, *(f"{each}" for each in told)] for kind, told in judged.reloads.items()]
    head = ["server", "in its log", "told by receipts", "done again after a kill, or put back"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _commit() -> str:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
