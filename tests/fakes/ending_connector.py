"""An HTTP connector that ends with its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from typing import Any, Final

import aiohttp

END_SECONDS: Final = 5.0
"""Longest wait for connections that were cut: they take a few turns of the loop."""


class EndingConnector(aiohttp.TCPConnector):
    """Its ``close`` leaves no connection behind, whatever became of it.

    aiohttp cuts what lies in its pool or is in use, and forgets what it let go before: after an
    answer with ``Connection: close``, or a request that was given up, TLS waits there for the other
    side's farewell, and a loop that ends meanwhile leaves the connection to the garbage collector.
    """

    def __init__(self, **options: Any) -> None:
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(socket_factory=self._make_socket, **options)

    def _make_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and return once they are."""
        await super().close(abort_ssl=abort_ssl)
        for one in self._made:
            with contextlib.suppress(OSError):  # it is closed, or never was connected
                one.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(END_SECONDS):
            while any(one.fileno() >= 0 for one in self._made):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
