"""SIGHUP: what lies in files is read again, as an operator expects of a daemon."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["listening_for_hangup"]


@contextmanager
def listening_for_hangup(
    reload: Callable[[], Awaitable[None]], hooks: Sequence[Callable[[], None]]
) -> Iterator[None]:
    """Call *hooks* and begin *reload* whenever the process is told to; *reload* raises nothing."""
    loop = asyncio.get_running_loop()
    under_way = set[asyncio.Task[None]]()

    async def read_again() -> None:
        await reload()

    def hang_up() -> None:
        task = loop.create_task(read_again())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        for hook in hooks:
            hook()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
