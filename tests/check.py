"""What ``make check`` runs, side by side: formatter, linter, types, import contracts, fast tests.

The tests run in several processes of pytest, each with files of its own.  A worker of pytest-xdist
collects every file and tells of each phase of each test over a pipe, which took a quarter of the
processor time of this run; here each file is collected once, and a process is heard of at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.peers.process import WORKERS

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PROGRAMS: Final = Path(sys.executable).parent
"""Where the tools of this environment are."""

PROCESSES: Final = min((os.cpu_count() or 1) + 1, WORKERS)
"""How many processes of pytest: one more than there are cores, for tests wait now and then."""

STATIC: Final = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("lint-imports",),
)

PYTEST: Final = (
    *("pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
    *("-o", "tmp_path_retention_policy=failed", "-m", "not peers and not e2e"),
)

MEMORY: Final = Path("/dev/shm")
"""Where Linux keeps files in memory: thousands of tests write some, and wait for no disk there."""

MEMORY_BYTES: Final = 2 * 2**30
"""Room that has to be there, with some to spare: what a test that passes wrote goes with it."""


@dataclass(frozen=True, slots=True)
class Job:
    """Command lines that run one after the other."""

    commands: tuple[tuple[str, ...], ...]
    number: int = 0
    """Tells processes of pytest apart."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended."""

    command: tuple[str, ...]
    status: int
    said: str
    seconds: float

    @property
    def line(self) -> str:
        """The command without its files, and the last line that it said."""
        words = " ".join(word for word in self.command if not word.startswith("tests/"))
        last = next(iter(reversed(self.said.strip().splitlines())), "")
        return f"{words}: {last or 'ok'} ({self.seconds:.1f} s)"


def files_of(suites: Sequence[str]) -> list[Path]:
    """Return the test files below *suites*."""
    return sorted(path for suite in suites for path in (REPOSITORY / suite).rglob("test_*.py"))


def deal(files: Sequence[Path], hands: int) -> list[list[Path]]:
    """Deal *files* so that each hand has as much: the longest first, to whoever has least.

    How long a file is says well enough how long its tests take, taken together.
    """
    dealt: list[list[Path]] = [[] for _ in range(hands)]
    lengths = [0] * hands
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        hand = lengths.index(min(lengths))
        dealt[hand].append(path)
        lengths[hand] += path.stat().st_size
    return dealt


@contextlib.contextmanager
def files_in_memory() -> Iterator[dict[str, str]]:
    """Give the setting by which tests have their files in memory; none where they cannot."""
    if not MEMORY.is_dir():
        yield {}
        return
    kind = os.statvfs(MEMORY)
    if kind.f_flag & os.ST_NOEXEC or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield {}
        return
    # Short: paths of sockets below it have 107 characters at most (unix(7)).
    with tempfile.TemporaryDirectory(prefix="p", dir=MEMORY) as folder:
        yield {"PYTEST_DEBUG_TEMPROOT": folder}


async def run(job: Job, settings: Mapping[str, str]) -> bool:
    """Run the command lines of *job*, print how each ended, and return whether all is well."""
    # The worker's name tells whose ports are whose.
    environment = {**os.environ, **settings, "PYTEST_XDIST_WORKER": f"gw{job.number}"}
    is_well = True
    for command in job.commands:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            PROGRAMS / command[0],
            *command[1:],
            cwd=REPOSITORY,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:  # the check itself is being ended
                process.terminate()
        seconds = time.monotonic() - started
        ended = Ended(command, process.returncode or 0, said.decode(errors="replace"), seconds)
        tell(ended)
        is_well = is_well and ended.status == 0
    return is_well


def tell(ended: Ended) -> None:
    """Print the last line of what went well, and all of what did not."""
    if ended.status:
        sys.stdout.write(ended.said)
    verdict = "FAILED " if ended.status else ""
    sys.stdout.write(f"{verdict}{ended.line}\n")
    sys.stdout.flush()


async def check(suites: Sequence[str]) -> bool:
    """Run everything, and return whether all is well."""
    hands = [hand for hand in deal(files_of(suites), PROCESSES) if hand]
    jobs = [Job(STATIC)]
    for number, hand in enumerate(hands):
        names = tuple(str(path.relative_to(REPOSITORY)) for path in sorted(hand))
        jobs.append(Job(((*PYTEST, *names),), number))
    with files_in_memory() as settings:
        return all(await asyncio.gather(*(run(job, settings) for job in jobs)))


def main() -> int:
    """Check, and return the status to exit with."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="+", help="folders of tests, as tests/unit")
    suites = parser.parse_args().suites
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs ends with the check
    return 0 if asyncio.run(check(suites)) else 1


if __name__ == "__main__":
    sys.exit(main())
