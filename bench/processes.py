"""What a process and its children have used: processor time and memory, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Usage", "descendants", "parse_stat", "usage_of"]

PROC: Final = Path("/proc")

TICK_SECONDS: Final = 1.0 / os.sysconf("SC_CLK_TCK")
"""Unit of the processor times in /proc/PID/stat: 10 ms on Linux."""

MIB: Final = 1024.0 * 1024.0


@dataclass(frozen=True, slots=True)
class Stat:
    """The members of /proc/PID/stat that are read here (proc_pid_stat(5))."""

    parent: int
    cpu_seconds: float
    """User and system time, of children that have ended and were waited for too."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes has used since it began, and what it holds now."""

    cpu_seconds: float
    resident_mib: float
    private_mib: float
    processes: int


def parse_stat(text: str) -> Stat:
    """Return what is read of a line of /proc/PID/stat.

    The name of the program stands in parentheses and may hold anything, so fields are counted
    from the last parenthesis.
    """
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Stat(parent=int(fields[1]), cpu_seconds=ticks * TICK_SECONDS)


def descendants(roots: Iterable[int], parents: Mapping[int, int]) -> set[int]:
    """Return *roots* and everything that stems from them, by a table of child → parent."""
    family = set(roots)
    while True:
        more = {child for child, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def usage_of(root: int) -> Usage:
    """Return what the process *root* and its descendants have used and hold."""
    stats = {int(entry.name): _stat(entry) for entry in PROC.iterdir() if entry.name.isdigit()}
    alive = {pid: stat for pid, stat in stats.items() if stat is not None}
    family = descendants([root], {pid: stat.parent for pid, stat in alive.items()})
    memory = [_memory(pid) for pid in family]
    return Usage(
        cpu_seconds=sum(alive[pid].cpu_seconds for pid in family if pid in alive),
        resident_mib=sum(resident for resident, _ in memory) / MIB,
        private_mib=sum(private for _, private in memory) / MIB,
        processes=len(family),
    )


def _stat(entry: Path) -> Stat | None:
    try:
        return parse_stat((entry / "stat").read_text("utf-8", errors="replace"))
    except OSError:
        return None  # it ended between the listing and now


def _memory(pid: int) -> tuple[int, int]:
    """Return resident and private bytes of one process; nothing of one that has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    kib = {name: int(value.split()[0]) for name, _, value in (one.partition(":") for one in lines)}
    private = kib.get("Private_Clean", 0) + kib.get("Private_Dirty", 0)
    return kib.get("Rss", 0) * 1024, private * 1024
