"""A look-out that goes on, also after a bug, so that Vault is seen when it has returned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

__all__ = ["LookOut"]

CANCEL_SECONDS: Final = 0.2
"""How long a cancellation is waited for before it is repeated, in seconds."""

log = structlog.get_logger(__name__)


class LookOut:
    """Runs something without end in a task of its own, anew when it has failed."""

    def __init__(
        self,
        run: Callable[[], Coroutine[Any, Any, None]],
        pause: Callable[[float], Awaitable[None]],
        pause_seconds: float,
    ) -> None:
        """Run *run*; after a failure *pause* is awaited for *pause_seconds*."""
        self._run = run
        self._pause = pause
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def begin(self) -> None:
        """Begin; needs the running event loop."""
        self._start(self._run())

    async def stop(self) -> None:
        """End it; nothing happens where it never began."""
        self._is_stopped = True
        while self._task is not None and not self._task.done():
            # More than once, for a cancellation that meets an answer in the same turn can be lost.
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_SECONDS)

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(run)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._is_stopped:
            log.error("look-out failed", exc_info=task.exception())
            self._start(self._again())

    async def _again(self) -> None:
        await self._pause(self._pause_seconds)
        await self._run()
