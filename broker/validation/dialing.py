"""Opens connections to targets: straight, or through the proxy that a community names.

What is dialled is a `Target`, judged before anybody is asked: a proxy is handed the address that
was judged, never a name to look up for itself, but where a community chose that it forwards
plain HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from broker.validation.targets import Proxy, Target

__all__ = ["MAX_LINE_BYTES", "ConnectFailed", "Dialer", "Stream", "os_reason"]

MAX_LINE_BYTES: Final = 8 * 1024
"""Longest header line that is read, in bytes; Apache and nginx draw their own line there.  The
whole head of a proxy's answer to CONNECT is held to it too."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""A connection, as asyncio has it."""

_CONNECTED: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class ConnectFailed(Exception):
    """No connection came about; the next address may be tried.  The text is the reason."""


class Dialer:
    """Opens the connections of one community."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy

    @property
    def forwarder(self) -> Proxy | None:
        """Return the proxy that plain HTTP is handed to as it is, if there is one."""
        is_forwarding = self._proxy is not None and self._proxy.is_forwarding
        return self._proxy if is_forwarding else None

    @asynccontextmanager
    async def dial(self, target: Target, *, timeout: timedelta) -> AsyncIterator[Stream]:
        """Open a connection to *target*, through the proxy if there is one.

        Raises:
            ConnectFailed: Try the next address.
        """
        proxy = self._proxy
        # The address is a literal, so nothing is resolved a second time.
        host, port = (str(target.address), target.port) if proxy is None else proxy.address
        stream = await _open(host, port, timeout)
        try:
            if proxy is not None:
                async with _patience(timeout):
                    await _ask_for_tunnel(stream, proxy, target)
            yield stream
        finally:
            # Not close(): that would wait for a peer that never says goodbye.
            stream[1].transport.abort()

    @asynccontextmanager
    async def dial_forwarder(self, proxy: Proxy, *, timeout: timedelta) -> AsyncIterator[Stream]:
        """Open a connection to the proxy itself.

        Raises:
            ConnectFailed: It cannot be reached.
        """
        stream = await _open(*proxy.address, timeout)
        try:
            yield stream
        finally:
            stream[1].transport.abort()


async def _open(host: str, port: int, timeout: timedelta) -> Stream:
    async with _patience(timeout):
        return await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)


@asynccontextmanager
async def _patience(timeout: timedelta) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            yield
    except TimeoutError:
        raise ConnectFailed("connection timed out") from None
    except OSError as error:
        raise ConnectFailed(os_reason(error)) from None


async def _ask_for_tunnel(stream: Stream, proxy: Proxy, target: Target) -> None:
    """Have *proxy* connect to *target* (RFC 9110 §9.3.6)."""
    reader, writer = stream
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ConnectFailed("the proxy's answer is not HTTP") from None
    match = _CONNECTED.match(head)
    if match is None:
        raise ConnectFailed("the proxy's answer is not HTTP")
    if not match[1].startswith(b"2"):
        # Nothing more of it: it may be a page about the network behind the proxy.
        raise ConnectFailed(f"the proxy answered CONNECT with status {match[1].decode('ascii')}")


def os_reason(error: OSError) -> str:
    """Return why a connection failed, in words without addresses."""
    code = error.errno
    if code == errno.ECONNREFUSED:
        return "connection refused"
    return os.strerror(code).lower() if code and code > 0 else "connection failed"
