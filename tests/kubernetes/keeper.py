"""Holds the namespaces of one node, and ends all in them when whoever asked for them is gone.

Run as a program of its own, by the standard library alone: it answers with one line of JSON on
standard output, then reads standard input until that ends, which also happens when the process at
its other end is killed.  The node's first process is process 1 of a process namespace, so that the
kernel ends all others with it; mounts and network devices go with their namespaces.  What is left
for this program to remove is the node's folder and its control groups.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NAME: Final = "penstock-kubernetes"
STATE_PARENT: Final = Path("/var/tmp")
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")

NODE_ADDRESS: Final = "10.99.0.2"
"""The node's address; nothing outside its network namespace can reach it."""

NODE_GATEWAY: Final = "10.99.0.1"
"""Nobody has it; kubelet and kube-proxy ask which way is out."""

NEW_MOUNTS: Final = 0x00020000
NEW_IPC: Final = 0x08000000
NEW_PROCESSES: Final = 0x20000000
NEW_NETWORK: Final = 0x40000000
DIE_WITH_PARENT: Final = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""

REMOVE_SECONDS: Final = 20
"""How long control groups may stay busy after their last process was killed."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    """Do a call of the C library that answers 0 or sets errno."""
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def state_of(pid: int) -> Path:
    """Return the folder of the node that the keeper *pid* holds."""
    return STATE_PARENT / f"{NAME}-{pid}"


def control_groups(name: str) -> Iterator[Path]:
    """Return the control group *name* in each hierarchy of this machine."""
    unified = (CONTROL_GROUPS / "cgroup.controllers").exists()
    hierarchies = [CONTROL_GROUPS] if unified else sorted(CONTROL_GROUPS.iterdir())
    for hierarchy in hierarchies:
        if hierarchy.is_mount():
            yield hierarchy / name


def remove_control_groups(name: str) -> None:
    """Remove what the kubelet made; a group is busy for a moment after its last process."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for group in control_groups(name):
        while group.is_dir():
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            if time.monotonic() > deadline:
                print(f"{NAME}: {group} stays busy", file=sys.stderr)
                return
            time.sleep(0.05)


def remove_stale() -> None:
    """Remove what keepers left that were killed themselves."""
    for state in STATE_PARENT.glob(f"{NAME}-*"):
        pid = int(state.name.rpartition("-")[2])
        if not Path(f"/proc/{pid}").exists():
            remove_control_groups(state.name)
            shutil.rmtree(state, ignore_errors=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def do(*command: str) -> None:
    """Run one command of the system, which has to succeed."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def set_up_mounts(state: Path) -> None:
    """Let the node write where its programs have fixed paths, without touching the machine's."""
    do("mount", "--make-rprivate", "/")
    do("mount", "-t", "proc", "proc", "/proc")
    for part in ("upper", "work"):
        (state / "var-lib" / part).mkdir(parents=True)
    layers = f"lowerdir=/var/lib,upperdir={state}/var-lib/upper,workdir={state}/var-lib/work"
    do("mount", "-t", "overlay", "overlay", "-o", layers, "/var/lib")
    (state / "var-log").mkdir()
    do("mount", "--bind", str(state / "var-log"), "/var/log")
    do("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    # Volumes that pods share with each other need it.
    do("mount", "--make-rshared", "/")


def set_up_network() -> None:
    """Give the node one address: a pair of devices, both ends of it here."""
    do("ip", "link", "set", "lo", "up")
    do("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0p")
    do("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", "node0")
    do("ip", "link", "set", "node0", "up")
    do("ip", "link", "set", "node0p", "up")
    do("ip", "route", "add", "default", "via", NODE_GATEWAY, "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n", "ascii")


def be_first(state: Path, told: int) -> None:
    """Be process 1 of the node: set it up, then bury what ends."""
    die_with_parent(0)
    set_up_mounts(state)
    set_up_network()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    os.write(told, b"up ")
    os.close(told)
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def hold(state: Path, told: int, keeper: int) -> None:
    """Make the namespaces, start their first process in them and wait for its end."""
    die_with_parent(keeper)
    call("unshare", NEW_MOUNTS | NEW_IPC | NEW_PROCESSES | NEW_NETWORK)
    first = os.fork()
    if first == 0:
        try:
            be_first(state, told)
        finally:
            os._exit(1)
    os.write(told, f"{first} ".encode())
    os.close(told)
    os.waitpid(first, 0)


def start_holder(state: Path) -> tuple[int, int]:
    """Return the process that holds the namespaces, and their first process."""
    heard, told = os.pipe()
    keeper = os.getpid()
    holder = os.fork()
    if holder == 0:
        try:
            os.close(heard)
            os.dup2(2, 1)  # standard output is for the answer alone
            hold(state, told, keeper)
        finally:
            os._exit(1)
    os.close(told)
    with os.fdopen(heard, "rb") as pipe:
        answer = pipe.read().split()
    if len(answer) != 2 or b"up" not in answer:
        raise RuntimeError("the node's namespaces could not be made; what is above says why")
    return holder, int(next(part for part in answer if part != b"up"))


def main() -> int:
    """Hold one node until standard input ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    remove_stale()
    state = state_of(os.getpid())
    state.mkdir(mode=0o755)
    holder = first = 0
    try:
        for group in control_groups(state.name):
            group.mkdir(exist_ok=True)
        holder, first = start_holder(state)
        print(json.dumps({"state": str(state), "first": first}), flush=True)
        sys.stdin.buffer.read()
    finally:
        if first:
            os.kill(first, signal.SIGKILL)
            os.waitpid(holder, 0)
        remove_control_groups(state.name)
        shutil.rmtree(state, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
