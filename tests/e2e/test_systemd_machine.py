"""The machine that systemd is booted on: apart from this one, and gone whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.deployments.penstock import REPOSITORY
from tests.peers.machine import Machine
from tests.peers.machine_keeper import NAME, is_running, own_cgroup
from tests.peers.process import PeerFailed, wait_until

pytestmark = pytest.mark.e2e

SECONDS: Final = 20.0
"""Longest wait for what takes a tenth of a second, in seconds."""

SLEEPING: Final = ("/bin/sleep", "1000")
"""What stands for systemd where the life of the machine alone is looked at."""

HOLDER: Final = """\
import sys, time
from pathlib import Path
from tests.peers.machine import Machine
machine = Machine(Path(sys.argv[1]), init=sys.argv[2:])
machine.start()
print(machine.keeper_pid, machine.pid, flush=True)
time.sleep(1000)
"""
"""A program that starts a machine and never ends it."""

DEVICES: Final = {"full", "null", "ptmx", "random", "tty", "urandom", "zero"}

OF_ITS_OWN: Final = {"overlay", "proc", "sysfs", "cgroup2", "tmpfs", "devpts", "mqueue", "ramfs"}
"""Kinds of file systems that it may have mounted: none of them lies on a disk of ours."""


def cgroup_of(keeper: int) -> Path:
    """Return the cgroup of a machine."""
    return own_cgroup() / f"{NAME}{keeper}"


def test_systemd_sees_nothing_of_this_machine(tmp_path: Path) -> None:
    """It clears /tmp when it boots: its own, and has no other, no disk, no device, no way out."""
    marker = tmp_path / "marker"
    marker.touch()
    with Machine(tmp_path) as machine:
        assert machine.read("cat", "/proc/1/comm") == "systemd"
        assert machine.run("test", "-e", str(marker), status=None).returncode == 1
        mounts = [line.split() for line in machine.read("cat", "/proc/self/mounts").splitlines()]
        assert {fields[2] for fields in mounts} <= OF_ITS_OWN
        options = {fields[1]: fields[3].split(",")[0] for fields in mounts}
        assert (options["/proc/sys"], options["/sys"]) == ("ro", "ro")
        devices = machine.read("find", "/dev", "-type", "c,b", "-printf", "%f\\n").split()
        assert set(devices) <= DEVICES
        links = machine.read("ls", "/sys/class/net").split()
        assert links == ["lo"]
        spaces = ["pid", "mnt", "net", "uts", "ipc", "cgroup"]
        theirs = machine.read("readlink", *(f"/proc/1/ns/{space}" for space in spaces)).split()
        ours = {os.readlink(f"/proc/self/ns/{space}") for space in spaces}
        assert len(theirs) == len(spaces)
        assert not ours & set(theirs)
        capabilities = machine.read("grep", "CapBnd", "/proc/1/status").split()[1]
        module, raw_io, clock = 16, 17, 25
        assert not int(capabilities, 16) & (1 << module | 1 << raw_io | 1 << clock)
    assert marker.exists()


def test_nothing_is_left_after_the_block(tmp_path: Path) -> None:
    """Neither process nor mount nor cgroup, also where the block ends by an error."""
    machine = Machine(tmp_path, init=SLEEPING)
    with pytest.raises(PeerFailed, match="gave 1"), machine:
        machine.run("false")
    assert not is_running(str(machine.pid))
    assert not is_running(str(machine.keeper_pid))
    assert not cgroup_of(machine.keeper_pid).exists()
    assert list((tmp_path / "machine").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("who", ["holder", "keeper"])
def test_it_dies_with_whoever_holds_it(who: str, tmp_path: Path) -> None:
    """A test that is killed leaves no machine behind, and neither does the keeper."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), *SLEEPING],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    with holder:
        assert holder.stdout is not None
        keeper, first = map(int, holder.stdout.readline().split())
        assert is_running(str(first))
        assert cgroup_of(keeper).exists()
        os.kill({"holder": holder.pid, "keeper": keeper}[who], signal.SIGKILL)
        wait_until(lambda: not is_running(str(first)), SECONDS, "its first process ends")
        holder.kill()
    with Machine(tmp_path / "next", init=SLEEPING):
        wait_until(lambda: not cgroup_of(keeper).exists(), SECONDS, "its cgroup is removed")


def test_machine_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Nothing is left of it either."""
    machine = Machine(tmp_path, init=["/no/such/program"])
    machine.start()
    wait_until(lambda: not is_running(str(machine.keeper_pid)), SECONDS, "it ends")
    with pytest.raises(PeerFailed, match="No such file or directory"):
        machine.stop()
    assert not cgroup_of(machine.keeper_pid).exists()
