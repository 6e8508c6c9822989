"""A loop that is waited for until nothing goes on in it, however slow its threads are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["Stillness"]

T = TypeVar("T")


class Stillness:
    """Knows when the running loop has nothing left to do until a test does something.

    How many turns that takes depends on when the machine lets a thread run, so no number of turns
    is enough: what is handed to threads is counted from here on, by `asyncio.to_thread` or to
    anybody's own executor.  Work that was given up (cancelled) is nobody's any more.
    """

    def __init__(self) -> None:
        """Count from now on; needs the running loop, and has to be made before the work is."""
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Future[Any]] = set()
        self._hand_over = self._loop.run_in_executor
        self._loop.run_in_executor = self._counted  # type: ignore[method-assign, assignment]

    def _counted(
        self, executor: Executor | None, call: Callable[..., T], *given: Any
    ) -> asyncio.Future[T]:
        work = self._hand_over(executor, call, *given)
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        return work

    async def come(self) -> None:
        """Wait until no task can go on and no thread is at work; timers do not count.

        Tasks that only give way to one another without end never let it come.
        """
        ready = self._loop._ready  # type: ignore[attr-defined] # nothing public tells
        while True:
            await asyncio.sleep(0)
            if ready:
                continue
            if not self._under_way:
                return
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
