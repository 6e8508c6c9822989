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
from collections.abc import Callable, Coroutine, Sequence
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
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._handshakes: set[asyncio.Task[None]] = set()

    def accept(self, admit: Callable[[socket.socket, str], None]) -> None:
        """Give *admit* each connection and its peer's address, until the listener ends."""
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            loop.add_reader(listening, self._take, listening, admit)

    def _take(self, listening: socket.socket, admit: Callable[[socket.socket, str], None]) -> None:
        # From the kernel's queue into our hands in one step: a task that is cancelled between the
        # two would lose a client that the next listener could have served.
        try:
            connection, peer = listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                _log.error("no connection can be accepted", reason=error.strerror)
                self._pause(listening, admit)
            return  # else it is gone again
        connection.settimeout(0)
        admit(connection, peer[0])

    def _pause(self, listening: socket.socket, admit: Callable[[socket.socket, str], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._pauses[listening] = loop.call_later(
            PAUSE_WHEN_FULL, loop.add_reader, listening, self._take, listening, admit
        )

    def shake_hands(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a handshake, a moment longer than that."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def close(self) -> None:
        """Let go of the sockets; nobody may be waiting for them any more."""
        for listening in self.sockets:
            listening.close()

    async def end(self) -> None:
        """Accept no more, and give up the handshakes that do not end soon."""
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            loop.remove_reader(listening)
        for pause in self._pauses.values():
            pause.cancel()
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=HANDSHAKES_SECONDS)
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)


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
        self._acceptor.accept(self._admit)

    async def stop(self) -> None:
        """Accept no more; connections that are being served go on."""
        await self._acceptor.end()
        await super().stop()

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
