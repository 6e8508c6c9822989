"""The only reader of the clock in the agent.

Everything else is handed this clock, so that a test can say what time it is.  Waiting is measured
by the monotonic clock, which no time service can set back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

__all__ = ["Clock", "SystemClock", "seconds_alive"]

OLDEST_SECONDS: Final = 60.0
"""Greatest age of a process that is believed, in seconds: whoever asks was begun a moment ago, and
a kernel that says otherwise (some that stand in for Linux tell of 0 for all) does not know."""

_BEGUN: Final = 19
"""Which word behind the process's name is when it began, counted from 0: proc_pid_stat(5)."""


class Clock(Protocol):
    """What time it is, and how much of it has passed."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only go forward, from no particular beginning."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment before this process began."""
        return time.monotonic()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def seconds_alive(
    stat: str = "/proc/self/stat", since_boot: Callable[[], float] = _since_boot
) -> float:
    """Return how long ago this process was begun, in seconds; 0 where the kernel does not tell.

    What a caller's patience has been spent on before our first line ran counts as well: on a full
    node the interpreter alone takes seconds to start.
    """
    try:
        with open(stat, "rb") as file:
            # The name of the process stands in brackets, and may have blanks and brackets itself.
            words = file.read().rpartition(b")")[2].split()
        begun = int(words[_BEGUN]) / os.sysconf("SC_CLK_TCK")
        alive = since_boot() - begun
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    # 0 is what a kernel says that does not know, in a sandbox as young as its first process too.
    return alive if begun > 0 and 0 <= alive <= OLDEST_SECONDS else 0.0
