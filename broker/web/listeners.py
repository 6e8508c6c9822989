"""Sockets that applications listen at: started, asked for their port, stopped gracefully."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from aiohttp import web

from broker.issuance.errors import Broken
from broker.web.guarded import Guard, GuardedSite
from broker.web.sockets import BACKLOG, ListeningSockets, bind_tcp, bind_unix
from broker.web.wirefaults import PoliteRunner

__all__ = ["Draining", "Listener", "hide_software", "start_tcp", "start_unix"]

IDLE_TIME: Final = timedelta(seconds=75)
"""How long a connection may wait for the next, or the first, complete set of headers.

aiohttp's own limit is an hour, which a thousand sockets that say nothing would enjoy.
"""

LINGERING_TIME: Final = timedelta(seconds=2)
"""How long the rest of a refused body is read and thrown away, so that the answer is not lost
in a reset connection."""

SHUTDOWN_TIME: Final = timedelta(seconds=15)
"""How long handlers may finish after SIGTERM; orchestrators kill after 30 s."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that is being served."""

    runner: web.AppRunner
    port: int
    """The TCP port, also where the system chose it; 0 for a Unix socket."""
    path: Path | None = None
    """The Unix socket whose file goes with the listener; None for others."""

    async def stop(self) -> None:
        """Accept no more, let handlers finish, close; a Unix socket leaves no file behind."""
        await self.runner.cleanup()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Draining:
    """Listeners that stop side by side: no client is waited for after those of another."""

    def __init__(self) -> None:
        self._stops: list[Callable[[], Awaitable[None]]] = []

    def add(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Have *stop* called in the end."""
        self._stops.append(stop)

    async def end(self) -> None:
        """Stop all of them; raises what one of them did, once all have stopped."""
        stops, self._stops = self._stops, []
        ended = await asyncio.gather(*(stop() for stop in stops), return_exceptions=True)
        for one in ended:
            if one is not None:
                raise one


async def start_tcp(
    app: web.Application,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    idle_time: timedelta = IDLE_TIME,
    guard: Guard | None = None,
    sockets: ListeningSockets | None = None,
) -> Listener:
    """Serve *app* at *host* and *port*; port 0 lets the system choose.

    A *guard*, which needs *tls*, bounds what one client address may hold.  *sockets* are those that
    outlive the listener.

    Raises:
        Broken: The address cannot be used.
    """
    runner = await _set_up(app, idle_time)
    bind = bind_tcp if sockets is None else sockets.tcp
    sites: list[web.BaseSite]
    try:
        listening = await bind(host, port)
        if guard is not None and tls is not None:
            name = f"https://{host}:{port}"
            sites = [GuardedSite(runner, guard, name=name, listening=listening, tls=tls)]
        else:
            sites = [
                web.SockSite(runner, one, ssl_context=tls, backlog=BACKLOG) for one in listening
            ]
        for site in sites:
            await site.start()
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror or str(error)
        raise Broken(f"cannot listen at {host}:{port}: {reason.lower()}") from error
    return Listener(runner, int(runner.addresses[0][1]))


async def start_unix(
    app: web.Application,
    path: Path,
    *,
    is_shared: bool = False,
    sockets: ListeningSockets | None = None,
) -> Listener:
    """Serve *app* at a Unix socket that its owner alone can reach (mode 0600).

    A socket file that nobody answers at is a leftover and is replaced.  One that *is_shared* every
    user of the host can reach whom its directory lets through; who they are is asked of the kernel.
    *sockets* are those that outlive the listener, and with them the file.

    Raises:
        Broken: Another process answers there, or the path cannot be used.
    """
    mode = 0o666 if is_shared else 0o600
    try:
        bound = bind_unix(path, mode) if sockets is None else sockets.unix(path, mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Broken(f"cannot listen at {path}: {reason.lower()}") from error
    runner = await _set_up(app, IDLE_TIME)
    await web.SockSite(runner, bound).start()
    return Listener(runner, 0, path if sockets is None else None)


async def hide_software(_request: web.Request, response: web.StreamResponse) -> None:
    """Take the ``Server`` header off: versions help attackers and nobody else."""
    response.headers.pop("Server", None)


async def _set_up(app: web.Application, idle_time: timedelta) -> web.AppRunner:
    runner = PoliteRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=idle_time.total_seconds(),
        lingering_time=LINGERING_TIME.total_seconds(),
        shutdown_timeout=SHUTDOWN_TIME.total_seconds(),
    )
    await runner.setup()
    return runner
