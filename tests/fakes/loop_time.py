"""Time limits of a loop that are over when a test says so, and not by slowness."""

from __future__ import annotations

import asyncio
from datetime import timedelta

__all__ = ["LoopTime"]


class LoopTime:
    """Moves the running loop's own clock on: whatever waits for a time limit there has waited.

    Limits can then be so long that no busy machine reaches them, and cost a test nothing.  Only
    asyncio's own loop lets itself be told the time.
    """

    def __init__(self) -> None:
        """Begin with the loop's time as it is; needs the running loop."""
        loop = asyncio.get_running_loop()
        self._ahead = 0.0
        now = loop.time
        loop.time = lambda: now() + self._ahead  # type: ignore[method-assign]

    def advance(self, by: timedelta) -> None:
        """Move on, from within the loop; what is due goes off at its next turn."""
        self._ahead += by.total_seconds()
