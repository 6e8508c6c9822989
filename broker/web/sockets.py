"""Listening sockets: bound, and kept open while what listens at them is replaced.

Whoever connects while nobody accepts waits in the kernel's queue.  So a broker that goes from one
configuration to the next refuses nobody: each listener is given a duplicate, and closes that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from broker.issuance.errors import Broken

__all__ = ["BACKLOG", "ListeningSockets", "bind_tcp", "bind_unix"]

BACKLOG: Final = 1024
"""Connections that wait to be accepted, as many as Linux allows for a burst of renewals."""

_Key = tuple[str, int] | Path
"""A host and a port, or the path of a Unix socket."""


class ListeningSockets:
    """Sockets that are kept open from one turn of a broker to the next."""

    def __init__(self) -> None:
        self._kept: dict[_Key, list[socket.socket]] = {}
        self._given: set[_Key] = set()

    async def tcp(self, host: str, port: int) -> list[socket.socket]:
        """Return sockets that listen at *host* and *port*, for the caller to close.

        A port that the system chooses is not kept: nobody could ask for it again.

        Raises:
            OSError: The address cannot be used, or was given out in this turn already.
        """
        key = (host, port)
        if port == 0 or key in self._given:
            return await bind_tcp(host, port)
        if key not in self._kept:
            self._kept[key] = await bind_tcp(host, port)
        self._given.add(key)
        return [one.dup() for one in self._kept[key]]

    def unix(self, path: Path, mode: int) -> socket.socket:
        """Return a socket that listens at *path*, for the caller to close; its file stays.

        Raises:
            Broken: Another process answers there, or a file that is no socket is in the way.
            OSError: The path cannot be used.
        """
        if path in self._kept and not path.is_socket():
            self._close(path)  # nobody finds it any more; what is there now is not ours
        if path in self._kept:
            path.chmod(mode)
        else:
            self._kept[path] = [bind_unix(path, mode)]
            self._kept[path][0].listen(BACKLOG)
        return self._kept[path][0].dup()

    def begin_turn(self, wanted: Collection[_Key]) -> None:
        """Close all that nobody will ask for any more; what stays may be given out anew."""
        self._given.clear()
        for key in [one for one in self._kept if one not in wanted]:
            self._close(key)

    def close(self) -> None:
        """Close all of them; a Unix socket leaves no file behind."""
        self.begin_turn(())

    def _close(self, key: _Key) -> None:
        for one in self._kept.pop(key):
            one.close()
        if isinstance(key, Path) and key.is_socket():
            key.unlink(missing_ok=True)


async def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address that *host* has, listening; port 0 lets the system choose.

    Raises:
        OSError: The address cannot be used.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(infos):
            made.append(_listen(family, address))
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def bind_unix(path: Path, mode: int) -> socket.socket:
    """Return a Unix socket bound to *path*; a file that nobody answers at is a leftover.

    Raises:
        Broken: Another process answers there, or a file that is no socket is in the way.
        OSError: The path cannot be used.
    """
    _remove_leftover(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask holds before bind makes the file, so it is never more open, not even shortly.
    before = os.umask(0o777 & ~mode)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    bound.settimeout(0)
    return bound


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


def _listen(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.settimeout(0)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
