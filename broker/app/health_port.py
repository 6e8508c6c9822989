"""The health port of a process, whose broker goes from one configuration to the next.

It is answered throughout: an orchestrator that found it closed between two turns would end a
process that is about to serve again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import web

from broker.config.values import Endpoint
from broker.web.health import HealthView, health_app_of
from broker.web.listeners import Listener, start_tcp

__all__ = ["HealthPort"]


WAIT_SECONDS: Final = 2.0
"""How long a probe that comes between two turns waits for the next, in seconds: most are here by
then, and orchestrators give a probe that long and more."""


class HealthPort:
    """A listener that outlives the turns of a broker."""

    def __init__(self) -> None:
        """Listen nowhere yet."""
        self._view = _unready("not serving yet")
        self._shown = asyncio.Event()
        """Set unless something else is to be shown soon."""
        self._shown.set()
        self._listener: Listener | None = None
        self._address: Endpoint | None = None

    async def show(self, address: Endpoint, view: HealthView) -> None:
        """Answer at *address* by what *view* finds from now on.

        Raises:
            Broken: The address cannot be used.
        """
        self._view = view
        self._shown.set()
        await self.leave_all_but(address)
        if self._listener is None:
            self._listener = await start_tcp(self.app(), host=address.host, port=address.port)
            self._address = address

    def app(self) -> web.Application:
        """Return what answers."""
        return health_app_of(self._find)

    async def _find(self) -> HealthView:
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                await self._shown.wait()
        return self._view

    def say(self, reason: str, *, is_passing: bool = True) -> None:
        """Answer that nobody is served for *reason*, and that the process lives.

        Where that *is_passing*, whoever asks is told what comes after it if that comes soon.
        """
        self._view = _unready(reason)
        if is_passing:
            self._shown.clear()
        else:
            self._shown.set()

    async def leave_all_but(self, address: Endpoint | None) -> None:
        """Stop listening unless it is at *address*; None: wherever it is."""
        if self._listener is not None and address != self._address:
            listener, self._listener = self._listener, None
            await listener.stop()


def _unready(reason: str) -> HealthView:
    async def serving() -> str | None:
        return reason

    return HealthView(checks={"serving": serving})
