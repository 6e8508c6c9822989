"""The service units: systemd reads them without complaint, and they are shut in."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.peers.installation import installed

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = REPOSITORY / "deploy" / "systemd"

HERE = {
    "/usr/local/bin/penstock-agent": "/bin/true",
    "/opt/penstock/bin/penstock": "/bin/true",
    "User=penstock": "User=daemon",
    "Group=penstock": "Group=daemon",
}
"""What an installation brings, and what stands for it where there is none."""

MOST_EXPOSED = {"penstock-agent.service": 3.0, "penstock.service": 4.0}
"""Worst mark that ``systemd-analyze security`` may give, of 10.

The agent runs as root, for it writes other users' key files; without the shutting in it has 9.6."""


def unit(name: str, folder: Path) -> Path:
    """Write a unit into *folder*, with programs and users that are here."""
    text = (UNITS / name).read_text("utf-8")
    for there, here in HERE.items():
        text = text.replace(there, here)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    return subprocess.run(
        [str(installed("systemd-analyze")), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(MOST_EXPOSED))
def test_unit_is_understood(name: str, tmp_path: Path) -> None:
    """An option that systemd does not know would be passed over, and guard nothing."""
    done = analyze("verify", "--man=no", unit(name, tmp_path))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "worst"), MOST_EXPOSED.items(), ids=sorted(MOST_EXPOSED, reverse=False)
)
def test_unit_is_shut_in(name: str, worst: float, tmp_path: Path) -> None:
    """What can be kept from the process is kept from it."""
    done = analyze("security", "--offline=yes", "--no-pager", unit(name, tmp_path))
    (mark,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(mark) <= worst, done.stdout


def test_a_fault_in_a_unit_would_be_noticed(tmp_path: Path) -> None:
    """The check itself can fail."""
    path = unit("penstock-agent.service", tmp_path)
    path.write_text(path.read_text("utf-8").replace("NoNewPrivileges", "NoNewPrivilege"), "utf-8")
    assert "NoNewPrivilege" in analyze("verify", "--man=no", path).stderr


def test_broker_s_unit_is_the_one_that_is_documented() -> None:
    """What people copy from the page is what was checked."""
    page = (REPOSITORY / "docs" / "operations" / "install.md").read_text("utf-8")
    assert (UNITS / "penstock.service").read_text("utf-8") in page
