"""The load generator: a Go program beside this file, built once and spoken to line by line."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.peers import process
from tests.peers.installation import CACHE, PeerMissing, go_toolchain, short_hash

__all__ = ["Burst", "Generator", "Target", "build"]

SOURCES: Final = Path(__file__).absolute().parent / "generator"

BUILD_SECONDS: Final = 300.0
"""Longest build; from an empty build cache it takes about 40 s on two busy cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A directory to order from, and how an account comes by its names there."""

    directory_url: str
    ca_bundle: Path
    binding: tuple[str, str] | None = None
    """(key id, MAC key base64url) of the external account binding; None: names are proved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What the generator saw of a number of orders."""

    orders: int
    errors: int
    faults: dict[str, int]
    seconds: float
    milliseconds: list[float]
    requests: int
    polls: int
    bad_nonces: int
    cpu_seconds: float


def build() -> Path:
    """Return the program, building it where it is not in the cache yet.

    Raises:
        PeerMissing: There is no Go that is new enough.
        subprocess.CalledProcessError: It does not compile.
    """
    toolchain = go_toolchain()
    if toolchain is None:
        raise PeerMissing("the load generator needs Go; run tests/peers/install")
    go, version = toolchain
    sources = sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod"])
    digest = short_hash(version, *(path.read_text("utf-8") for path in sources))
    program = CACHE / f"generator-{digest}" / "generator"
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            made = program.with_suffix(".new")
            command = [go, "build", "-trimpath", "-buildvcs=false", "-o", str(made), "."]
            environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
            environment |= {"GOFLAGS": "", "GOPROXY": "off"}  # it needs the standard library alone
            subprocess.run(command, cwd=SOURCES, env=environment, timeout=BUILD_SECONDS, check=True)
            made.rename(program)
    return program


class Generator:
    """A running generator; ends with the ``with`` block."""

    def __init__(self, home: Path, target: Target | None, *, http_port: int, dns_port: int) -> None:
        """Prepare one that orders from *target*; without one it only answers challenges."""
        self._home = home
        self._target = target
        self._ports = (http_port, dns_port)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._home,
            env=process.clean_environment(self._home),
        )
        try:
            self._read()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def order(self, orders: int, concurrency: int) -> Burst:
        """Have so many orders placed by so many accounts at a time, and return what was seen."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"orders": orders, "concurrency": concurrency}) + "\n")
        self._process.stdin.flush()
        return Burst(**self._read())

    def _command(self) -> list[str]:
        http_port, dns_port = self._ports
        command = [str(build()), "-http", f"127.0.0.1:{http_port}", "-dns", f"127.0.0.1:{dns_port}"]
        if self._target is not None:
            command += ["-directory", self._target.directory_url]
            command += ["-ca", str(self._target.ca_bundle)]
            if self._target.binding is not None:
                key_id, mac_key = self._target.binding
                command += ["-eab-kid", key_id, "-eab-key", mac_key]
        return command

    def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise process.PeerFailed("the load generator ended; its reason is on standard error")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _stop(self) -> None:
        if self._process is None:
            return
        started, self._process = self._process, None
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.close()
        started.stdout.close()
        try:
            started.wait(process.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(process.STOP_SECONDS)
