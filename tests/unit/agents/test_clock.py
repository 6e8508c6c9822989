"""The agent's only reader of the clock."""

import os
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path

import pytest

from agents.clock import SystemClock, seconds_alive


def test_the_time_is_aware_and_in_utc() -> None:
    """A time without its zone would be read as another by whoever compares it."""
    assert SystemClock().now().tzinfo is UTC


def test_monotonic_seconds_never_go_back() -> None:
    """What is measured by it cannot be negative."""
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first


def stat(begun: object, name: str = "python3") -> str:
    """Return what the kernel tells of a process that began so many ticks after the machine."""
    before = "S 1 1 1 0 -1 4194304 10 0 0 0 5 5 0 0 20 0 1 0"
    return f"4711 ({name}) {before} {begun} 12345678 999 18446744073709551615\n"


@pytest.mark.parametrize("name", ["python3", "a b) S 1 (c", ")"])
def test_a_process_knows_how_long_it_has_been_there(tmp_path: Path, name: str) -> None:
    """Whatever it is called."""
    path = tmp_path / "stat"
    path.write_text(stat(100 * os.sysconf("SC_CLK_TCK"), name))
    assert seconds_alive(str(path), lambda: 103.5) == 3.5


@pytest.mark.parametrize(
    ("text", "now"),
    [
        (stat(0), 5_000.0),
        (stat(0), 30.0),
        (stat(100 * os.sysconf("SC_CLK_TCK")), 99.0),
        (stat("soon"), 1.0),
        ("", 1.0),
        ("4711 (python3) S 1", 1.0),
    ],
    ids=[
        "all began at 0",
        "all began at 0, in a young sandbox",
        "begins later",
        "no number",
        "nothing",
        "short",
    ],
)
def test_a_kernel_that_does_not_tell_is_no_reason_to_hurry(
    tmp_path: Path, text: str, now: float
) -> None:
    """Else a probe would answer at once, each second, for nothing."""
    path = tmp_path / "stat"
    path.write_text(text)
    assert seconds_alive(str(path), lambda: now) == 0
    assert seconds_alive(str(tmp_path / "none"), lambda: now) == 0


def test_the_machine_tells_of_this_very_process() -> None:
    """A child is younger than whoever began it."""
    code = "from agents.clock import seconds_alive; print(seconds_alive())"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 0 < float(done.stdout) <= time.monotonic() - begun + 1 / os.sysconf("SC_CLK_TCK")
