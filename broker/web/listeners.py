"""Sockets that applications listen at: started, asked for their port, stopped gracefully."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from aiohttp import web

from broker.issuance.errors import Broken
from broker.web.guarded import Guard, GuardedSite
from broker.web.wirefaults import PoliteRunner

__all__ = ["Listener", "hide_software", "start_tcp", "start_unix"]

IDLE_TIME: Final = timedelta(seconds=75)
"""How long a connection may wait for the next, or the first, complete set of headers.

aiohttp's own limit is an hour, which a thousand sockets that say nothing would enjoy.
"""

LINGERING_TIME: Final = timedelta(seconds=2)
"""How long the rest of a refused body is read and thrown away, so that the answer is not lost
in a reset connection."""

SHUTDOWN_TIME: Final = timedelta(seconds=15)
"""How long handlers may finish after SIGTERM; orchestrators kill after 30 s."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted, as many as Linux allows for a burst of renewals."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that is being served."""

    runner: web.AppRunner
    port: int
    """The TCP port, also where the system chose it; 0 for a Unix socket."""
    path: Path | None = None
    """The Unix socket, None for a TCP one."""

    async def stop(self) -> None:
        """Accept no more, let handlers finish, close; a Unix socket leaves no file behind."""
        await self.runner.cleanup()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


async def start_tcp(
    app: web.Application,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    idle_time: timedelta = IDLE_TIME,
    guard: Guard | None = None,
) -> Listener:
    """Serve *app* at *host* and *port*; port 0 lets the system choose.

    A *guard*, which needs *tls*, bounds what one client address may hold.

    Raises:
        Broken: The address cannot be used.
    """
    runner = await _set_up(app, idle_time)
    site: web.BaseSite
    if guard is not None and tls is not None:
        site = GuardedSite(runner, guard, host=host, port=port, tls=tls, backlog=BACKLOG)
    else:
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG, reuse_address=True)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror or str(error)
        raise Broken(f"cannot listen at {host}:{port}: {reason.lower()}") from error
    return Listener(runner, int(runner.addresses[0][1]))


async def start_unix(app: web.Application, path: Path, *, is_shared: bool = False) -> Listener:
    """Serve *app* at a Unix socket that its owner alone can reach (mode 0600).

    A socket file that nobody answers at is a leftover and is replaced.  One that *is_shared* every
    user of the host can reach whom its directory lets through; who they are is asked of the kernel.

    Raises:
        Broken: Another process answers there, or the path cannot be used.
    """
    try:
        _remove_leftover(path)
        bound = _bind(path, 0o111 if is_shared else 0o177)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Broken(f"cannot listen at {path}: {reason.lower()}") from error
    runner = await _set_up(app, IDLE_TIME)
    await web.SockSite(runner, bound).start()
    return Listener(runner, 0, path)


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


def _remove_leftover(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise Broken(f"cannot listen at {path}: a file that is no socket is there")
    if _has_listener(path):
        raise Broken(f"cannot listen at {path}: another process answers there")
    path.unlink()


def _has_listener(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _bind(path: Path, mask: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask holds before bind makes the file, so it is never more open, not even shortly.
    before = os.umask(mask)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    bound.settimeout(0)
    return bound
