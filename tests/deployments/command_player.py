"""Commands played by one process that has imported them: each in a fork of its own.

A command that is started as a program spends most of its processor time on imports.  The player is
the interpreter that an operator would start, with the commands imported and nothing done; a fork
of it has the command's own arguments, directory, environment and standard streams, and ends as an
interpreter ends, with the exit status that the command gave.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.peers import process

COMMAND_SECONDS: Final = 60
"""Longest run of a command, in seconds."""

IMPORTED: Final = ("broker.app", "broker.web.operator", "broker.web.routes")
"""What commands import while they run, beside their own modules."""


class CommandPlayer:
    """A process that plays commands one after another, as long as a ``with`` block lasts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            env=dict(environment),
        )
        self._turn = threading.Lock()

    def __enter__(self) -> CommandPlayer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=COMMAND_SECONDS)

    def play_at_once(
        self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str] | None:
        """Do as `play` does; None, and nothing done, while another command is being played."""
        if not self._turn.acquire(blocking=False):
            return None
        try:
            return self._play(words, cwd=cwd, environment=environment)
        finally:
            self._turn.release()

    def play(
        self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``penstock`` with *words* and return what came of it."""
        with self._turn:
            return self._play(words, cwd=cwd, environment=environment)

    def _play(
        self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            asked = {
                "words": list(words),
                "cwd": str(cwd),
                "environment": dict(environment),
                "streams": [f"/proc/{os.getpid()}/fd/{one.fileno()}" for one in (out, err)],
            }
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the player of commands has ended"
            status = int(answer)
            return subprocess.CompletedProcess(list(words), status, _text(out), _text(err))


@functools.cache
def shared_player() -> CommandPlayer:
    """Return the player of this process of pytest, which ends with it."""
    at_checkout = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    made = CommandPlayer(process.clean_environment(Path(tempfile.gettempdir()), at_checkout))
    atexit.register(made.__exit__)
    return made


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8")


# ------------------------------------------------------------------------------ in the player


def _imported() -> None:
    """Import all commands, and what they import later."""
    from broker.cli import COMMANDS

    for module in (*(where.partition(":")[0] for where, _ in COMMANDS.values()), *IMPORTED):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def _asked() -> Iterator[Mapping[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _status(pid: int) -> int:
    """Return the exit status of a fork, negative for a signal; one that takes too long is ended."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(COMMAND_SECONDS)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.alarm(0)


def _become(asked: Mapping[str, Any]) -> list[str]:
    """Be the process that was asked for; return its command line."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in enumerate(asked["streams"], start=1):
        stream = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    os.close(nothing)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    words: list[str] = asked["words"]
    sys.argv = ["penstock", *words]
    return words


def main() -> int:
    """Play what is asked for, a line each; a fork returns from here with its command's status."""
    from broker.cli import main as penstock

    _imported()
    for asked in _asked():
        pid = os.fork()
        if pid == 0:
            return penstock(_become(asked))
        sys.stdout.write(f"{_status(pid)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
