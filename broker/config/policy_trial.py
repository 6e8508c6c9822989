"""A set of policies tried as a whole in a process of its own: whether it loads, its cases pass.

For whoever is handed policies by somebody else and has to say no before they are stored.  The child
has bounds of time and memory, and can be ended; nothing of what it reads is code.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.issuance.errors import Broken, Unreachable

__all__ = ["PolicyTrials", "Tried"]

LIMIT_SECONDS: Final = 12.0
"""Longest run, in seconds: the chart has the API server wait for fifteen.  The child's start takes
one, five where the processors are busy; a thousand rules with their cases take two."""

AT_ONCE: Final = 1
"""Most children at once, each of 60 MiB and more; others wait for their turn."""

MAX_SET_BYTES: Final = 16 * 1024 * 1024
"""Most octets of a set that is tried: sixteen ConfigMaps, each as large as they can be."""

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Largest answer of the child that is read, in bytes."""

COMPLAINT_CHARS: Final = 300
"""Longest account of a child's failure, in characters."""

_WORKER: Final = Path(__file__).with_name("policy_trial_worker.py")
_ROOT: Final = Path(__file__).resolve().parents[2]

Tried = tuple[tuple[str, ...], int]
"""What is wrong, each with its place, and how many cases passed."""


class PolicyTrials:
    """Tries sets against the broker's configuration."""

    def __init__(self, config: Path, *, limit_seconds: float = LIMIT_SECONDS) -> None:
        """*config* is the broker's file, read for each trial: it may be replaced."""
        self._config = config
        self._limit_seconds = limit_seconds
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(
        self, directories: Mapping[str, Mapping[str, bytes]], config: bytes | None = None
    ) -> Tried:
        """Return what comes of the files of *directories* as one set.

        *config* is the broker's configuration where somebody knows a newer one than the file.  They
        have the names that they have in the broker: those of one directory as they are,
        those of several behind their directory's name.

        Raises:
            Unreachable: The child took too long, failed, or could not be started.
            Broken: The configuration cannot be read, or nothing can be tried with it.
        """
        size = sum(len(octets) for files in directories.values() for octets in files.values())
        if size > MAX_SET_BYTES:
            said = f"are {size} bytes long together, the limit is {MAX_SET_BYTES} bytes"
            return (f"policies:1: {said}",), 0
        text = self._read() if config is None else config
        given = pickle.dumps(
            (text, str(self._config), {name: dict(files) for name, files in directories.items()})
        )
        async with self._room:
            return await asyncio.to_thread(self._run, given)

    def _read(self) -> bytes:
        try:
            return self._config.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Broken(f"configuration {self._config} cannot be read: {reason}") from error

    def _run(self, given: bytes) -> Tried:
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_WORKER)],
                input=given,
                capture_output=True,
                timeout=self._limit_seconds,
                check=False,
                cwd="/",
                env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"they took longer than {self._limit_seconds:g} s, the limit"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unreachable(f"no child process can be started: {reason}") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            why = f"ended with {done.returncode}: {said[:COMPLAINT_CHARS]}"
            raise Unreachable(f"the child process {why}")
        return _read(done.stdout)


def _read(octets: bytes) -> Tried:
    try:
        if len(octets) > MAX_ANSWER_BYTES:
            raise ValueError("it is too long")
        found: Any = json.loads(octets)
        if found["broken"] is not None:
            raise Broken(str(found["broken"]))
        return tuple(map(str, found["faults"])), int(found["cases"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"the child process answered with {error}") from error
