"""Holds one machine for as long as somebody holds the other end of its standard input.

    machine_keeper.py PLACE LAYERS INIT...

It is a program of its own, run as root: it makes a cgroup, starts ``machine_boot.sh`` in namespaces
of its own, and tells its own process id and that of the machine's first process.  When its input
ends, because the test has finished or because it was killed, the first process is killed, and with
it the kernel takes down all the others, their mounts and their network; then the cgroup is removed.
Should the keeper itself be killed, the machine is too: it asked for a signal at its parent's death.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path

BOOT = Path(__file__).with_name("machine_boot.sh")

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")

POLL_SECONDS = 0.01

LOOK_SECONDS = 1.0
"""How often it is seen whether the machine has ended by itself, in seconds."""

GONE_SECONDS = 10.0
"""Longest until the kernel has taken everything down, in seconds; it takes under a tenth of one."""

NAME = "penstock-machine-"
"""What its cgroups begin with; the keeper's process id follows."""


def own_cgroup() -> Path:
    """Return the folder of this process's cgroup in the unified hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    (root, *_) = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (own,) = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    return Path(root) / own.lstrip("/")


def make_cgroup() -> Path:
    """Make a cgroup for the machine, after clearing away those of keepers that were killed."""
    parent = own_cgroup()
    for former in parent.glob(f"{NAME}*"):
        if not is_running(former.name.removeprefix(NAME)):
            remove_cgroup(former)
    made = parent / f"{NAME}{os.getpid()}"
    made.mkdir()
    return made


def is_running(pid: str) -> bool:
    """Say whether a process is there that has not ended; one that nobody waited for has."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def remove_cgroup(cgroup: Path) -> None:
    """Kill whatever is in a cgroup, and remove it with those below."""
    with contextlib.suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + GONE_SECONDS
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"{cgroup} still has processes")
        time.sleep(POLL_SECONDS)
    for folder, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(folder)


def start(cgroup: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the machine in its cgroup; it dies with this process."""
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    command = ["sh", "-c", enter, str(cgroup), "setpriv", "--pdeathsig", "KILL"]
    command += ["unshare", *NAMESPACES, "--fork", "--kill-child", "sh", str(BOOT), *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def first_process(unshare: subprocess.Popen[bytes]) -> int | None:
    """Return the id of the machine's first process once that is apart, None if it never was.

    Before that it sees what we see: whoever enters its namespaces then is still here.
    """
    assert unshare.stdout is not None
    if unshare.stdout.readline() != b"apart\n":
        return None
    return int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text())


def main() -> int:
    """Hold it; the status is that of the machine if it ends before the input does."""
    cgroup = make_cgroup()
    try:
        unshare = start(cgroup, sys.argv[1:])
        try:
            sys.stdout.write(f"{os.getpid()} {first_process(unshare)}\n")
            sys.stdout.flush()
            while unshare.poll() is None:
                readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
                if readable and not os.read(0, 1):
                    return 0
            return unshare.returncode
        finally:
            unshare.kill()
            unshare.wait(GONE_SECONDS)
    finally:
        remove_cgroup(cgroup)


if __name__ == "__main__":
    sys.exit(main())
