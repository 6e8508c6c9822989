"""SIGHUP: what lies in files is read again, as an operator expects of a daemon."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["Hangups", "listening_for_hangup"]


class Hangups:
    """Hands a hang-up on to the turn of the broker that serves; between two turns it is kept."""

    def __init__(self) -> None:
        self._reload: Callable[[], Awaitable[None]] | None = None
        self._hooks: Sequence[Callable[[], None]] = ()
        self._is_waiting = False

    @contextmanager
    def led_to(
        self, reload: Callable[[], Awaitable[None]], hooks: Sequence[Callable[[], None]]
    ) -> Iterator[None]:
        """Hand hang-ups to these; one that came before is handed on at once."""
        self._reload, self._hooks = reload, hooks
        task = asyncio.create_task(self._go_on()) if self._is_waiting else None
        try:
            yield
        finally:
            self._reload, self._hooks = None, ()
            if task is not None:
                task.cancel()

    async def reload(self) -> None:
        """Have whoever serves read everything again."""
        if self._reload is None:
            self.keep()
            return
        await self._reload()

    def keep(self) -> None:
        """Have whoever serves next read everything again: this turn is over for it."""
        self._is_waiting = True

    def call_hooks(self) -> None:
        """Do what is done beside."""
        for hook in self._hooks:
            hook()

    async def _go_on(self) -> None:
        self._is_waiting = False
        self.call_hooks()
        await self.reload()


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
