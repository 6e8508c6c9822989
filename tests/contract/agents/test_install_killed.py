"""Installing, ended at every call that changes the disk, and refused at every one.

The real system calls of a real process: strace kills it, or tells it that the disk is full.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.config import Layout
from agents.install import unfinished
from agents.recovery import recover
from tests.contract.agents.install_worker import IDLE
from tests.contract.agents.installing import SCENES, Scene, given, leftovers
from tests.fakes.node_authority import NOW
from tests.peers.installation import installed

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[3]

AT = 30
"""Which of its calls of each kind a process does not survive; no install makes as many."""


@contextmanager
def worker(injection: str) -> Iterator[subprocess.Popen[str]]:
    """Lend a worker whose processes have *injection* happen at call AT of each kind."""
    calls = ",".join(IDLE)
    command = [
        str(installed("strace")),
        *("-f", "-qqq", "-o", "/dev/null"),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:{injection}:when={AT}"),
        *(sys.executable, "-B", "-m", "tests.contract.agents.install_worker"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.communicate(timeout=20)


def ended(process: subprocess.Popen[str], scene: Scene, call: str, number: int) -> int:
    """Have the worker install, with the injection at that call; return how it ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(scene.order(call, AT - number)) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize(("layout", "before"), SCENES, ids=str)
def test_a_pair_survives_a_kill_at_any_call(tmp_path: Path, layout: Layout, before: str) -> None:
    """Key and chain always load together, the old pair or the new one, and it can go on from
    there."""
    scene = given(tmp_path, layout, before)
    seen, killed = set(), 0
    with worker("signal=KILL") as process:
        for call in IDLE:
            for number in range(1, AT):
                code = ended(process, scene, call, number)
                after = scene.served()
                assert after in {scene.old, scene.verified.fingerprint}, (call, number)
                seen.add(after)
                check_going_on(scene, after)
                scene.put_back()
                if code == 0:
                    assert after == scene.verified.fingerprint
                    break
                assert code == -signal.SIGKILL
                killed += 1
    assert seen == {scene.old, scene.verified.fingerprint}
    assert killed >= 10


def check_going_on(scene: Scene, after: str | None) -> None:
    """What a restarted agent does next brings the old pair back, or the new one in."""
    allowed, state = scene.node.allowed, str(scene.node.state)
    assert recover([scene.section], allowed=allowed, state_dir=state, now=NOW) == []
    assert scene.served() == after
    begun = unfinished(scene.section, allowed=allowed, state_dir=state)
    assert (begun is not None) == (after == scene.verified.fingerprint)
    if begun is not None:
        begun.undo()
        assert scene.served() == scene.old
    scene.node.install(scene.section, scene.verified, scene.key).settle()
    assert scene.served() == scene.verified.fingerprint
    recover([scene.section], allowed=allowed, state_dir=state, now=NOW)
    expected = 0 if scene.layout in {Layout.COMBINED, Layout.PKCS12} else 1
    assert len(list(leftovers(scene.folder))) == expected


@pytest.mark.parametrize(
    ("layout", "before"),
    [(Layout.PEM, "ours"), (Layout.PEM, "plain"), (Layout.COMBINED, "ours")],
    ids=str,
)
def test_a_full_disk_leaves_the_old_pair(tmp_path: Path, layout: Layout, before: str) -> None:
    """Wherever the disk turns out to be full, the install says so and nothing has changed, or it is
    done."""
    scene = given(tmp_path, layout, before)
    refused = 0
    with worker("error=ENOSPC") as process:
        for call in set(IDLE) - {"unlinkat", "fchmod", "fchown"}:
            for number in range(1, AT):
                code = ended(process, scene, call, number)
                after = scene.served()
                expected = scene.verified.fingerprint if code == 0 else scene.old
                assert after == expected, (call, number)
                check_going_on(scene, after)
                scene.put_back()
                if code == 0:
                    break
                refused += 1
                assert code == 1
    assert refused >= 5
