"""One node's namespaces, as a test sees them: programs run in it, are stopped and go on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.peers.process import PeerFailed, clean_environment, tail

KEEPER: Final = Path(__file__).with_name("keeper.py")

RUN_SECONDS: Final = 320.0
"""Longest that one command inside may take, unless told otherwise."""

END_SECONDS: Final = 60.0
"""Longest that ending everything may take: the disk is given back by then too."""

DETACH: Final = 'echo $$ > "$1"; log=$2; shift 2; exec "$@" >>"$log" 2>&1 </dev/null'
"""What a program is started by: its number is kept as the node itself counts processes."""


class ClusterFailed(PeerFailed):
    """Something of the cluster did not start, or a command in it failed; the text has its log."""


class Node:
    """Namespaces that end with this object, and with the process that has it."""

    def __init__(self) -> None:
        self._keeper: subprocess.Popen[bytes] | None = None
        self._state: Path | None = None
        self._first = 0

    @property
    def state(self) -> Path:
        """The folder that all of the node is kept in; it is gone when the node is."""
        if self._state is None:
            raise ClusterFailed("the node is not up")
        return self._state

    def up(self) -> None:
        """Make the namespaces.

        Raises:
            ClusterFailed: Not root, or this machine forbids it.
        """
        if os.geteuid() != 0:
            raise ClusterFailed("a node needs root: namespaces, mounts and control groups")
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", str(KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline()
        if not answer:
            raise ClusterFailed(f"the node's keeper ended with {self._keeper.wait()}")
        told = json.loads(answer)
        self._state, self._first = Path(told["state"]), told["first"]

    def down(self) -> None:
        """End every process of the node and remove what it left."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.close()
        keeper.stdout.close()
        keeper.wait(END_SECONDS)
        self._state = None

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs *command* in the node's namespaces."""
        enter = ["nsenter", f"--target={self._first}", "--mount", "--net", "--ipc", "--pid"]
        return [*enter, "--", *(str(part) for part in command)]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of what runs inside: nothing of the person's who runs tests."""
        return clean_environment(self.state, more)

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a program that goes on until the node ends."""
        detached = ["setsid", "--fork", "sh", "-c", DETACH, "sh"]
        files = [self.state / f"{name}.pid", self.state / "log" / f"{name}.log"]
        self.run([*detached, *files, *command])

    def run(
        self,
        command: Sequence[str | Path],
        *,
        text: str | None = None,
        more: Mapping[str, str] | None = None,
        seconds: float = RUN_SECONDS,
    ) -> str:
        """Run one command inside and return what it wrote to standard output.

        Raises:
            ClusterFailed: It ended with something else than 0, or not in time.
        """
        done = self.attempt(command, text=text, more=more, seconds=seconds)
        if done.returncode != 0:
            said = tail(done.stderr or done.stdout)
            shown = shlex.join(str(part) for part in command)
            raise ClusterFailed(f"{shown}: exit {done.returncode}\n{said}")
        return done.stdout

    def attempt(
        self,
        command: Sequence[str | Path],
        *,
        text: str | None = None,
        more: Mapping[str, str] | None = None,
        seconds: float = RUN_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command inside and return how it ended, whatever that was."""
        try:
            return subprocess.run(
                self.inside(command),
                input=text if text is not None else "",
                env=self.environment(more),
                cwd="/",
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            shown = shlex.join(str(part) for part in command)
            raise ClusterFailed(f"{shown}: not within {seconds:g} s") from error

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program that was started."""
        pid = (self.state / f"{name}.pid").read_text("ascii").strip()
        self.run(["kill", f"-{number.name.removeprefix('SIG')}", pid])

    def is_running(self, name: str) -> bool:
        """Say whether a program that was started still runs."""
        pid = (self.state / f"{name}.pid").read_text("ascii").strip()
        return self.attempt(["kill", "-0", pid]).returncode == 0

    def log(self, name: str) -> str:
        """Return what a program that was started has written."""
        return (self.state / "log" / f"{name}.log").read_text("utf-8", errors="replace")
