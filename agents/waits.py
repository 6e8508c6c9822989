"""What the agent waits for, in one line: written down by the process that runs, and read by
``penstock-agent ready``, which a probe starts beside it.

Holds no time and no history: the line is what is so now, and it is written when it changes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from agents.state import Folder, StateFault

__all__ = ["NOT_YET", "Waits", "await_nothing", "read_wait"]

NOT_YET: Final = "the agent has not reached the broker yet"
"""What is waited for before anything was written down."""

MAX_CHARS: Final = 300
"""Longest line, in characters: a probe's output is shown in an event, with others around it."""

LOOK_SECONDS: Final = 0.1
"""How often it is looked whether there is still something to wait for, in seconds: an application
starts that much later at most, and looking costs a tenth of a millisecond."""

_NAME: Final = "waits"


class Waits:
    """Writes the line down, each time that it changes."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._told: str | None = None

    def tell(self, reason: str) -> None:
        """Have it be *reason*; empty: the broker is reached, and the rest is its affair."""
        said = reason[:MAX_CHARS]
        if said == self._told:
            return
        with contextlib.suppress(StateFault):  # the log tells it as well
            self._folder.put(_NAME, {"reason": said})
            self._told = said


def read_wait(folder: Folder | None) -> str:
    """Return the line that was written down last; empty: the broker is reached."""
    found = None if folder is None else folder.get(_NAME)
    reason = NOT_YET if found is None else found.get("reason")
    return reason if isinstance(reason, str) else NOT_YET


def await_nothing(
    look: Callable[[], Sequence[str]],
    seconds: float,
    *,
    pause: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Sequence[str]:
    """Return what *look* finds: nothing as soon as that is so, or what is left after *seconds*."""
    until = monotonic() + seconds
    while (found := look()) and (left := until - monotonic()) > 0:
        pause(min(LOOK_SECONDS, left))
    return found
