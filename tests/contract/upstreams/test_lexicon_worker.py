"""What the worker of a DNS provider can see and do: its own secret, and little else.

A stand-in for a provider's code that means harm is run after the worker has given up what it
gives up, in a real process under this kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from broker.upstreams import provider
from broker.upstreams.children import ChildResult, run_child
from broker.upstreams.placement import PlacedRecord, ZoneLocks
from broker.upstreams.provider import ProviderSettings, ProviderZone

SECRET = "the passphrase of the broker's keys"

HARM = """
import importlib.util, json, os, socket, subprocess, sys
spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
taken = worker.confine(sys.argv[4:]) if sys.argv[2] == "confined" else []
home = sys.argv[3]

def attempt(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return "done"

def unix():
    with socket.socket(socket.AF_UNIX) as speaker:
        speaker.connect(home + "/operator.sock")

print(json.dumps({
    "taken": taken,
    "read": attempt(lambda: open(home + "/passphrase").read()),
    "list": attempt(lambda: os.listdir(home)),
    "write": attempt(lambda: open(home + "/new", "w")),
    "environment": attempt(lambda: open(f"/proc/{os.getppid()}/environ", "rb").read()),
    "program": attempt(lambda: subprocess.run(["/bin/true"], check=True)),
    "operator": attempt(unix),
    "tcp": attempt(lambda: socket.socket(socket.AF_INET).close()),
    "handles": sorted(int(one) for one in os.listdir("/proc/self/fd")) if not taken else [],
    "variables": sorted(os.environ),
}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state directory with a secret and an operator socket that answers."""
    (tmp_path / "passphrase").write_text(SECRET, "ascii")
    return tmp_path


def harm(home: Path, mode: str, *files: str) -> dict[str, object]:
    """Run the stand-in and return what it could do."""
    with socket.socket(socket.AF_UNIX) as operator:
        operator.bind(str(home / "operator.sock"))
        operator.listen()
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", HARM, str(provider.WORKER), mode, str(home), *files],
            capture_output=True,
            text=True,
            check=True,
        )
    (home / "operator.sock").unlink()
    outcome: dict[str, object] = json.loads(done.stdout)
    return outcome


def test_the_worker_reaches_no_other_secret(home: Path) -> None:
    """Files, other processes, programs and the operator's socket are closed to it."""
    found = harm(home, "confined")
    assert found["taken"] == ["files", "sockets"], "this kernel offers no Landlock or seccomp"
    refused = {"read", "list", "write", "environment", "program", "operator"}
    assert {name: found[name] for name in refused} == dict.fromkeys(refused, "PermissionError")
    assert found["tcp"] == "done"


def test_unconfined_it_would_reach_them(home: Path) -> None:
    """The negative twin: the same attempts succeed where nothing was given up."""
    found = harm(home, "free")
    names = {"read", "list", "write", "environment", "program", "operator", "tcp"}
    assert {name: found[name] for name in names} == dict.fromkeys(names, "done")


def test_a_file_that_is_named_can_be_read(home: Path) -> None:
    """An account file that an option of the provider points to; its neighbours stay closed."""
    found = harm(home, "confined", str(home / "passphrase"))
    assert found["read"] == "done"
    assert found["list"] == "PermissionError"


async def test_a_child_inherits_nothing(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Neither the broker's environment nor an open file; the secret is in no argument."""
    monkeypatch.setenv("PENSTOCK_PASSPHRASE", SECRET)
    handle = os.open(home / "passphrase", os.O_RDONLY)
    os.set_inheritable(handle, True)  # noqa: FBT003 - its signature
    look = "import os, json, sys; given = sys.stdin.read(); print(json.dumps(["
    look += "sorted(os.environ), sorted(os.listdir('/proc/self/fd')), sys.argv, given]))"
    try:
        done = await run_child(
            [sys.executable, "-I", "-c", look],
            what="look",
            timeout=provider.CHANGE_TIME,
            environment={"HOME": "/nonexistent"},
            given=b"secret",
        )
    finally:
        os.close(handle)
    variables, handles, arguments, given = json.loads(done.output)
    assert set(variables) - {"LC_CTYPE"} == {"HOME", "LANG", "PATH"}
    assert handles == ["0", "1", "2", "3"], "3 is the listing itself"
    assert (arguments, given) == (["-c"], "secret")


@pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_child_is_fed_on_each_loop(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The broker runs on uvloop, whose pipes are of other classes."""
    echo = "import sys; sys.stdout.write(sys.stdin.read() * 2); sys.stderr.write('no'); sys.exit(3)"

    async def run() -> ChildResult:
        return await run_child(
            [sys.executable, "-I", "-c", echo],
            what="echo",
            timeout=provider.CHANGE_TIME,
            given=b"x" * 1000,
        )

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(run()) == ChildResult(3, b"x" * 2000, b"no")


async def test_each_worker_is_told_one_providers_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What goes down the pipe holds this solver's secret and none of another's."""
    told: list[bytes] = []

    async def listen(command: list[str], *, given: bytes, **_more: object) -> object:
        assert not any("hush" in word for word in command)
        told.append(given)
        return ChildResult(0, b'{"done": true, "confined": ["files"]}', b"")

    monkeypatch.setattr(provider, "run_child", listen)
    monkeypatch.setenv("ANOTHER_SECRET", "hush-environment")
    for name in ("one", "two"):
        settings = ProviderSettings(
            provider=name, zone="a.example", secrets={"auth_token": f"hush-{name}"}
        )
        placed = PlacedRecord("a.example.", "b.a.example.", "value")
        await ProviderZone(settings, ZoneLocks()).remove(placed)
    assert [b"hush-one" in one for one in told] == [True, False]
    assert [b"hush-two" in one for one in told] == [False, True]
    assert not any(b"hush-environment" in one for one in told)
