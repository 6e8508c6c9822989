"""Limits of one blocking request: how long it takes as a whole, and how much of an answer is read.

What requests calls a timeout is that of each single read: a server that sends one byte now and then
keeps a thread for ever, and one that sends on and on fills the memory.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any, Final, Self

import requests.adapters
import requests.sessions
import urllib3
import urllib3.connection
import urllib3.connectionpool

__all__ = ["LimitedAdapter", "TimeLimit", "read_bounded"]

_CHUNK_BYTES: Final = 64 * 1024
"""How much is asked for at a time, in bytes; nearly all answers are shorter."""

_threads: Final = threading.local()
"""The limit of the request that a thread makes."""


class TimeLimit:
    """Cuts the connection of the request that is made inside of it, once its time is over.

    Connecting and the TLS handshake have a limit of their own, which is no single read's.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        """Whether the time was over before the end was reached."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        """Begin; one of a thread at a time."""
        _threads.limit = self
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: whatever uses the connection next is not cut."""
        _threads.limit = None
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection when the time is over."""
        with self._lock:
            self._socket = connection
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Of the socket, not of TLS: another thread is reading from that.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Connection(urllib3.connection.HTTPSConnection):
    """Tells the limit of its thread what it reads from."""

    def getresponse(self) -> Any:
        """Return the answer, whose head is read here."""
        limit = getattr(_threads, "limit", None)
        if limit is not None and self.sock is not None:
            limit.watch(self.sock)
        return super().getresponse()


class _Pool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _Connection


class LimitedAdapter(requests.adapters.HTTPAdapter):
    """Carries requests over connections that a `TimeLimit` can cut."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools; requests has no other place to say of which kind."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}


def read_bounded(answer: requests.Response, most_bytes: int) -> bytes | None:
    """Return the body as it was sent, None where it has more bytes; nothing is unpacked.

    Raises:
        urllib3.exceptions.HTTPError: The connection broke.
    """
    content = b""
    raw: urllib3.HTTPResponse = answer.raw
    while len(content) <= most_bytes:
        part = raw.read(min(_CHUNK_BYTES, most_bytes + 1 - len(content)), decode_content=False)
        if not part:
            return content
        content += part
    return None
