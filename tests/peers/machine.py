"""A machine of its own: systemd as the first process of its own namespaces, in a Debian of its own.

It has no way out, no device but those that are nothing, and none of this machine's files; what it
writes lies in memory and ends with it.  Commands are run in it as they would be on a host, by root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from tests.peers import debian, process

__all__ = ["Machine"]

KEEPER: Final = Path(__file__).with_name("machine_keeper.py")

INIT: Final = ("/sbin/init",)

BOOT_SECONDS: Final = 60.0
"""Longest until every unit has been started, in seconds; on idle cores it takes two."""

COMMAND_SECONDS: Final = 60.0
"""Longest run of a command in it, in seconds; installing two wheels takes three."""

STOP_SECONDS: Final = 20.0
"""Longest until nothing is left of it, in seconds; it takes a tenth of one."""

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INSIDE: Final = ("sh", "-c", 'test -e /etc/penstock-test-machine && exec "$@"', "inside")
"""What each command begins with: nothing is ever run on the machine that the tests run on."""


class Machine:
    """A machine that lives as long as a ``with`` block, or as the process that it is in."""

    def __init__(self, tmp: Path, *, init: Sequence[str] = INIT) -> None:
        self._place = tmp / "machine"
        self._log_file = tmp / "machine.log"
        self._init = tuple(init)
        self._keeper: subprocess.Popen[str] | None = None
        self.pid = 0
        """Process id of its first process, as seen from here."""
        self.keeper_pid = 0
        """Process id of the program that holds it."""

    # ------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Start it and return once its first process is there.

        Raises:
            PeerFailed: It could not be started; what was said is in the text.
        """
        self._place.mkdir(parents=True)
        layers = ":".join(map(str, debian.layers()))
        command = [*_as_root(), sys.executable, "-I", str(KEEPER), str(self._place), layers]
        with self._log_file.open("ab") as log:
            self._keeper = subprocess.Popen(
                [*command, *self._init],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        keeper, _, first = _stream(self._keeper.stdout).readline().strip().partition(" ")
        if not first.isdigit():
            self.stop()
            raise process.PeerFailed(f"the machine did not start: {self._log()}")
        self.keeper_pid, self.pid = int(keeper), int(first)

    def wait_booted(self) -> None:
        """Wait until systemd has started everything, and nothing of it failed.

        Raises:
            PeerFailed: Units failed, or it took too long; which and why is in the text.
        """
        ask = ["systemctl", "is-system-running", "--wait"]
        process.wait_until(self._has_manager, BOOT_SECONDS, "systemd answers")
        state = self.run(*ask, status=None, seconds=BOOT_SECONDS).stdout.strip()
        if state != "running":
            failed = self.run("systemctl", "--failed", "--no-legend", "--plain", status=None)
            journal = self.run("journalctl", "--no-pager", "--lines=60", status=None)
            said = f"{failed.stdout}\n{journal.stdout}"
            raise process.PeerFailed(f"the machine is {state!r}: {said}")

    def _has_manager(self) -> bool:
        if self._running().poll() is not None:
            raise process.PeerFailed(f"the machine ended: {self._log()}")
        return self.run("test", "-S", "/run/systemd/private", status=None).returncode == 0

    def stop(self) -> None:
        """End it, and see that nothing is left of it.

        Raises:
            PeerFailed: Something is left.
        """
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        _stream(keeper.stdin).close()
        try:
            status = keeper.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
            status = -9
        _stream(keeper.stdout).close()
        if self.pid and status != 0:
            raise process.PeerFailed(f"the machine's keeper gave {status}: {self._log()}")

    def __enter__(self) -> Self:
        self.start()
        try:
            if self._init == INIT:
                self.wait_booted()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._keeper is None:
            raise process.PeerFailed("the machine is not running")
        return self._keeper

    def _log(self) -> str:
        return process.tail(self._log_file.read_text("utf-8", errors="replace"))

    # ----------------------------------------------------------------------------- work in it

    def run(
        self,
        *command: str,
        status: int | None = 0,
        given: str = "",
        seconds: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root and return what it said.

        Raises:
            PeerFailed: It ended with another status than *status*; None: any will do.
        """
        done = subprocess.run(
            [*self._entering(), *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if status is not None and done.returncode != status:
            said = f"{done.stdout}\n{done.stderr}"
            raise process.PeerFailed(f"{' '.join(command)} gave {done.returncode}: {said}")
        return done

    def _entering(self) -> Sequence[str]:
        self._running()
        enter = [*_as_root(), "nsenter", "--all", f"--target={self.pid}", "--wdns=/", "--"]
        return [*enter, "env", "-i", PATH, "LANG=C.UTF-8", "HOME=/root", *INSIDE]

    def read(self, *command: str) -> str:
        """Run a command and return its output, without the line break at its end."""
        return self.run(*command).stdout.rstrip("\n")

    def write(self, path: str, text: str, *, mode: str = "0644", owner: str = "root") -> None:
        """Write a file, with the folders above it."""
        self.run("install", "-D", "-m", mode, "-o", owner, "/dev/stdin", path, given=text)

    def copy(self, source: Path, path: str, *, mode: str = "0644") -> None:
        """Copy a file of this machine into it."""
        with source.open("rb") as content:
            place = [*self._entering(), "install", "-D", "-m", mode, "/dev/stdin", path]
            subprocess.run(place, stdin=content, check=True, timeout=COMMAND_SECONDS)

    def property_of(self, unit: str, name: str) -> str:
        """Return a property of a unit, as ``systemctl show`` has it."""
        return self.read("systemctl", "show", "--value", f"--property={name}", unit)

    def journal(self, unit: str) -> str:
        """Return what a unit logged, and what systemd logged about it, in plain lines."""
        # What was said before now is in the journal after this.
        self.run("journalctl", "--sync")
        return self.read("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


def _as_root() -> Sequence[str]:
    return () if os.geteuid() == 0 else ("sudo", "-n")


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
