"""Policy files parsed by a child process, so that nothing else waits for it.

YAML is read in Python, some 10 µs for each word of it: seconds for a large set, in which a thread
would take the interpreter from the broker's event loop every few milliseconds.  A process can also
be ended when it takes too long, whatever it is that a file makes it do.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from broker.issuance.errors import Unreachable
from broker.policy.parsing import MAX_FAULTS, ParsedFiles

__all__ = ["parse_apart"]

LIMIT_SECONDS: Final = 60.0
"""Longest run, in seconds: 32 MiB of policies, the most that is read, take about as long."""

MOST_CHILDREN: Final = 4
"""Most children at once: the broker has other work for the processors, too."""

SHARE_BYTES: Final = 64 * 1024
"""Least octets that another child is worth, in bytes: parsing them takes as long as its start."""

COMPLAINT_CHARS: Final = 300
"""Longest account of a child's failure, in characters."""

_NO_ANSWER: Final = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError,
                     KeyError, TypeError, ValueError)  # fmt: skip
"""What reading something raises that is no answer, or one of another version of the program."""

_WORKER: Final = Path(__file__).with_name("policy_worker.py")
_ROOT: Final = Path(__file__).resolve().parents[2]


def parse_apart(files: Mapping[str, bytes], *, limit_seconds: float = LIMIT_SECONDS) -> ParsedFiles:
    """Return what each file says by itself, as made by children; waits for them on this thread.

    Raises:
        Unreachable: A child took too long, failed, or could not be started.
    """
    if not files:
        return ParsedFiles()
    shares = _shared_out(files)
    with ThreadPoolExecutor(len(shares)) as threads:
        answers = list(threads.map(lambda share: _parse_share(share, limit_seconds), shares))
    made = {name: file for answer in answers for name, file in answer.made.items()}
    faults = (fault for answer in answers for fault in answer.faults)
    return ParsedFiles({name: made[name] for name in sorted(made)}, tuple(faults)[:MAX_FAULTS])


def _shared_out(files: Mapping[str, bytes]) -> list[dict[str, bytes]]:
    """Return *files* in as many shares of about one size as children are worth starting."""
    size = sum(map(len, files.values()))
    count = max(1, min(os.cpu_count() or 1, MOST_CHILDREN, len(files), size // SHARE_BYTES))
    shares: list[dict[str, bytes]] = [{} for _ in range(count)]
    sizes = [0] * count
    for name in sorted(files, key=lambda name: len(files[name]), reverse=True):
        place = sizes.index(min(sizes))
        shares[place][name] = files[name]
        sizes[place] += len(files[name])
    return shares


def _parse_share(files: Mapping[str, bytes], limit_seconds: float) -> ParsedFiles:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_WORKER)],
            input=pickle.dumps(dict(files)),
            capture_output=True,
            timeout=limit_seconds,
            check=False,
            cwd="/",
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(
            f"policy files were not parsed within {limit_seconds:g} s, the limit"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unreachable(f"policy files cannot be parsed: no child process: {reason}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        why = f"ended with {done.returncode}: {said[:COMPLAINT_CHARS]}"
        raise Unreachable(f"policy files were not parsed: the child process {why}")
    try:
        # Our own child's answer: nobody else writes to this pipe.
        answer = pickle.loads(done.stdout)  # noqa: S301
        if not isinstance(answer, ParsedFiles):
            raise TypeError(f"something else than parsed files, {type(answer).__name__}")
    except _NO_ANSWER as error:
        raise Unreachable(
            f"policy files were not parsed: the child process answered with {error}: "
            "was the program replaced since this broker was started?"
        ) from error
    return answer
