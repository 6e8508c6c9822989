"""Installs one pair for each line that it reads, each in a process of its own that can be killed.

Run under strace, which ends (or refuses) the N-th call of each kind in each process: a process that
is to come as far as its n-th call of one kind makes N - n of that kind first that change nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable

from agents.install import InstallFault, install
from tests.contract.agents.installing import describe, parse_order

NOTHING = os.open(os.devnull, os.O_WRONLY)
NOWHERE = "/nowhere/at/all"

IDLE: dict[str, Callable[[], object]] = {
    "write": lambda: os.write(NOTHING, b""),
    "fsync": lambda: os.fsync(NOTHING),
    "rename": lambda: os.rename(NOWHERE, NOWHERE),
    "renameat": lambda: os.rename(NOWHERE, NOWHERE, src_dir_fd=NOTHING, dst_dir_fd=NOTHING),
    "symlinkat": lambda: os.symlink(NOWHERE, NOWHERE, dir_fd=NOTHING),
    "linkat": lambda: os.link(NOWHERE, NOWHERE, follow_symlinks=False),
    "mkdir": lambda: os.mkdir(NOWHERE),
    "mkdirat": lambda: os.mkdir(NOWHERE, dir_fd=NOTHING),
    "unlinkat": lambda: os.unlink(NOWHERE, dir_fd=NOTHING),
    "fchmod": lambda: os.fchmod(-1, 0),
    "fchown": lambda: os.fchown(-1, -1, -1),
}
"""Every call by which an install changes a disk, made so that it changes nothing."""


def main() -> int:
    """Do what standard input says; tell how each ended on standard output."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            idle = IDLE[order["call"]]
            for _ in range(order["calls_before"]):
                with contextlib.suppress(OSError):
                    idle()
            os._exit(do(order))
        _, status = os.waitpid(pid, 0)
        # By a call of another kind, so that this process itself never makes its N-th.
        os.writev(sys.stdout.fileno(), [f"{os.waitstatus_to_exitcode(status)}\n".encode()])
    return 0


def do(order: dict[str, object]) -> int:
    """Install one; 0: done, 1: refused."""
    section, verified, key, allowed, state = parse_order(order)
    try:
        install(section, verified, key, allowed=allowed, state_dir=state)
    except InstallFault as fault:
        describe(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
