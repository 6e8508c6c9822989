"""TXT records through a program of the operator's, run for real."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.hook import HookSettings, HookZone
from broker.upstreams.placement import PlacedRecord, ZoneLocks
from tests.fakes.zones import FakeZoneMap
from tests.peers.process import wait_until

NAME = "_acme-challenge.www.example.com"
ALIASES = {NAME: "www.acme.example"}

PATIENCE_SECONDS = (1, 5, 25)
"""How long a program that hangs may take, in seconds: one after the other, until it had the time to
start what it starts."""


def hook(tmp_path: Path, body: str, *, locks: ZoneLocks | None = None, **more: Any) -> HookZone:
    """Return a zone whose program runs *body*, with its arguments in ``words``."""
    program = tmp_path / "hook"
    program.write_text(
        f"#!{sys.executable} -I\nimport json, os, sys, time\nwords = sys.argv[1:]\n{body}\n"
    )
    program.chmod(0o755)
    settings = HookSettings(command=(str(program), "--zone"), **more)
    return HookZone(settings, locks or ZoneLocks(), zones=FakeZoneMap(ALIASES, ("acme.example",)))


def state_of(pid: int) -> str:
    """Return the letter that the kernel has for the state of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


async def test_the_program_is_called_as_by_lego(tmp_path: Path) -> None:
    """``present`` and then ``cleanup``, the name where the alias leads with its dot, the value."""
    log = tmp_path / "log"
    zone = hook(
        tmp_path,
        f"print(json.dumps([words, sorted(os.environ), sys.stdin.read()]), "
        f"file=open({str(log)!r}, 'a'))",
        environment={"API_TOKEN": "hush"},
    )
    placed = await zone.publish(NAME, "value; $(touch pwned) 'x")
    assert placed == PlacedRecord("acme.example.", "www.acme.example.", "value; $(touch pwned) 'x")
    await zone.remove(placed)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    calls = [words for words, _, _ in lines]
    assert calls == [["--zone", action, placed.name, placed.value] for action in
                     ("present", "cleanup")]  # fmt: skip
    variables = set(lines[0][1]) - {"LC_CTYPE"}
    assert variables == {"API_TOKEN", "LANG", "PATH"}
    assert lines[0][2] == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("sys.stderr.write('hush ' * 9000); sys.exit(3)", "status 3", id="status"),
        pytest.param("os.kill(os.getpid(), 9)", "signal 9", id="signal"),
        pytest.param("print('x' * 100_000)", "more than the limit of 65536 bytes", id="chatty"),
    ],
)
async def test_a_program_that_fails_is_broken(tmp_path: Path, body: str, words: str) -> None:
    """What it says goes to the log, bounded, and into no error."""
    zone = hook(tmp_path, body)
    with structlog.testing.capture_logs() as logs, pytest.raises(Broken, match=words) as caught:
        await zone.publish(NAME, "value")
    assert "hush" not in caught.value.reason
    assert all(len(str(entry)) < 5000 for entry in logs)


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Nothing of its session is left, and the caller is not held up by what it started."""
    pids = tmp_path / "pids"
    body = (
        f"child = os.fork()\nprint(os.getpid(), file=open({str(pids)!r}, 'a'), flush=True)\n"
        "time.sleep(60)"
    )
    started_pids: list[int] = []
    for seconds in PATIENCE_SECONDS:
        pids.write_text("")
        zone = hook(tmp_path, body, timeout=timedelta(seconds=seconds))
        with pytest.raises(Unreachable, match=f"had not ended after {seconds} s and was killed"):
            await zone.publish(NAME, "value")
        started_pids = [int(line) for line in pids.read_text().split()]
        if len(started_pids) == 2:
            break
    assert len(started_pids) == 2

    def have_ended() -> bool:
        return all(state_of(pid) in ("Z", "gone") for pid in started_pids)

    # A process that was killed ends when it is next given a processor; its body sleeps for longer.
    await asyncio.to_thread(wait_until, have_ended, 30, "both have ended")


async def test_a_grandchild_that_got_away_does_not_hold_the_answer(tmp_path: Path) -> None:
    """It keeps the pipes open in a session of its own; the program itself has ended well."""
    pids = tmp_path / "pids"
    # The program ends once its grandchild is in a session of its own, and not before.
    body = (
        "ours, theirs = os.pipe()\nchild = os.fork()\n"
        "if child == 0:\n    os.setsid()\n    os.write(theirs, b'x')\n    time.sleep(20)\n"
        f"else:\n    os.read(ours, 1)\n    open({str(pids)!r}, 'w').write(str(child))\n"
    )
    zone = hook(tmp_path, body, timeout=timedelta(seconds=10))
    await zone.publish(NAME, "value")
    grandchild = int(pids.read_text())
    assert state_of(grandchild) not in ("Z", "gone"), "it was waited for"
    os.kill(grandchild, 9)


async def test_values_that_come_at_once_all_stand(tmp_path: Path) -> None:
    """The program writes whole record sets: without turns, one would overwrite the others."""
    stored = tmp_path / "zone"
    stored.write_text("[]")
    body = (
        f"path = {str(stored)!r}\nvalues = json.load(open(path))\ntime.sleep(0.2)\n"
        "values = [one for one in values if one != words[3]]\n"
        "values += [words[3]] if words[1] == 'present' else []\n"
        "json.dump(values, open(path, 'w'))"
    )
    locks = ZoneLocks()
    zones = [hook(tmp_path, body, locks=locks) for _ in range(2)]
    values = ["one", "two", "three", "four"]
    placed = await asyncio.gather(
        *(zones[place % 2].publish(NAME, value) for place, value in enumerate(values))
    )
    assert sorted(json.loads(stored.read_text())) == sorted(values)
    await asyncio.gather(*(zones[0].remove(record) for record in placed[:3]))
    assert json.loads(stored.read_text()) == ["four"]


async def test_a_program_that_is_not_there_is_broken() -> None:
    """The operator reads which one."""
    settings = HookSettings(command=("/nonexistent/hook",))
    zone = HookZone(settings, ZoneLocks(), zones=FakeZoneMap())
    with pytest.raises(Broken, match=r"/nonexistent/hook present .* cannot be started: no such"):
        await zone.publish(NAME, "value")


async def test_a_name_outside_the_zone_is_never_asked_for(tmp_path: Path) -> None:
    """An alias that leads elsewhere is told, and nothing is run."""
    zone = hook(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')", zone="other.example")
    with pytest.raises(Broken, match=r"lies outside the zone other.example."):
        await zone.publish(NAME, "value")
    assert not (tmp_path / "ran").exists()
