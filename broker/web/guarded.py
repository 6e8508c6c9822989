"""A TLS listener that bounds what one client address can hold: connections, and time in handshakes.

asyncio tells nobody of a connection before its TLS handshake is over, so connections are accepted
here and handed over.  What is past the bound is closed without a word: a handshake would cost more
than the connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from aiohttp import web

from broker.web.handshakes import HandshakeLog
from broker.web.limits import client_network

__all__ = ["Guard", "GuardedSite"]

PAUSE_WHEN_FULL: Final = 1.0
"""How long nothing is accepted when the process has no file descriptor left, in seconds."""

HANDSHAKES_SECONDS: Final = 2.0
"""How long handshakes that are under way may take once their listener ends, in seconds: a client
far away needs half of one, and nobody is to hold the listener's end up by saying nothing."""

FIRST_REQUEST_SECONDS: Final = 0.1
"""How long a connection whose handshake has just ended is left for its request, in seconds: clients
send it with their last message."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = structlog.get_logger("penstock.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What one address may hold."""

    handshake_time: timedelta
    connections: int
    on_refused: Callable[[], None]
    is_unbounded: Callable[[str], bool] = lambda _peer: False
    """Whether a peer may hold more: a proxy that many clients share."""


class _Acceptor:
    """Sockets that are accepted from; stands where aiohttp expects asyncio's server."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self._accepting: set[asyncio.Task[None]] = set()
        self._handshakes: set[asyncio.Task[None]] = set()

    def accept(self, coroutine: Any) -> None:
        """Run what accepts, until the listener ends."""
        _run_in(self._accepting, coroutine)

    def shake_hands(self, coroutine: Any) -> None:
        """Run a handshake, a moment longer than that."""
        _run_in(self._handshakes, coroutine)

    def close(self) -> None:
        """Let go of the sockets; nobody may be waiting for them any more."""
        for listening in self.sockets:
            listening.close()

    async def end(self) -> None:
        """Accept no more, and give up the handshakes that do not end soon."""
        await _cancel(self._accepting)
        if self._handshakes:
            ended, _ = await asyncio.wait(self._handshakes, timeout=HANDSHAKES_SECONDS)
            if ended:
                await asyncio.sleep(FIRST_REQUEST_SECONDS)
        await _cancel(self._handshakes)


def _run_in(tasks: set[asyncio.Task[None]], coroutine: Any) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class GuardedSite(web.BaseSite):
    """Serves a runner at sockets that listen, under a `Guard`, and closes them in the end."""

    def __init__(
        self,
        runner: web.AppRunner,
        guard: Guard,
        *,
        name: str,
        listening: Sequence[socket.socket],
        tls: ssl.SSLContext,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._guard = guard
        self._name = name
        self._tls = tls
        self._acceptor = _Acceptor(list(listening))
        self._open: Counter[str] = Counter()
        self._handshakes = HandshakeLog(self.name)

    @property
    def name(self) -> str:
        """Return where it listens."""
        return self._name

    async def start(self) -> None:
        """Accept."""
        await super().start()
        self._server = self._acceptor  # type: ignore[assignment]  # has what aiohttp asks of it
        for listening in self._acceptor.sockets:
            self._acceptor.accept(self._accept(listening))

    async def stop(self) -> None:
        """Accept no more; connections that are being served go on."""
        await self._acceptor.end()
        await super().stop()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _log.error("no connection can be accepted", reason=error.strerror)
                    await asyncio.sleep(PAUSE_WHEN_FULL)
                continue
            self._admit(connection, peer[0])
            # Where connections wait already, accepting them never gives way to anything else.
            await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, peer: str) -> None:
        address = client_network(peer)
        is_full = self._open[address] >= self._guard.connections
        if is_full and not self._guard.is_unbounded(peer):
            connection.close()
            self._guard.on_refused()
            return
        self._open[address] += 1
        self._acceptor.shake_hands(self._serve(connection, peer, _Place(self._open, address)))

    async def _serve(self, connection: socket.socket, peer: str, place: _Place) -> None:
        """Do the handshake; the connection frees its place when it is lost."""
        server = self._runner.server
        if server is None:
            raise LookupError("a site is served before its runner was set up")
        handler: Any = server()
        handler.when_lost = place.free
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: handler,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._guard.handshake_time.total_seconds(),
            )
        except OSError as error:
            self._handshakes.failed(peer, error, at=asyncio.get_running_loop().time())
            place.free()
        except asyncio.CancelledError:
            place.free()
            raise


class _Place:
    """A connection's place among those of its address, freed once."""

    __slots__ = ("_address", "_is_free", "_open")

    def __init__(self, open_connections: Counter[str], address: str) -> None:
        self._open = open_connections
        self._address = address
        self._is_free = False

    def free(self) -> None:
        """Free the place; a second call changes nothing."""
        if self._is_free:
            return
        self._is_free = True
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
