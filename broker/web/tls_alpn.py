"""The listener that CAs look at for tls-alpn-01 (RFC 8737): a handshake, and nothing after it.

Who is asked for by SNI decides what is shown; without a name, or with one that is not being
validated, the handshake fails.  A client that did not offer ``acme-tls/1`` is hung up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from broker.issuance.errors import Broken
from broker.web.sockets import ListeningSockets, bind_tcp

__all__ = ["FindContext", "TlsAlpnListener", "start_tls_alpn"]

HANDSHAKE_TIME: Final = timedelta(seconds=10)
"""Longest handshake; a CA on the other side of the world needs half a second."""

FindContext = Callable[[str], ssl.SSLContext | None]
"""Returns what a handshake for a name is answered with, or None."""


class TlsAlpnListener:
    """A listener at work."""

    def __init__(self, servers: Sequence[asyncio.Server]) -> None:
        self._servers = servers

    @property
    def port(self) -> int:
        """Return the port that was bound."""
        port: int = self._servers[0].sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDSHAKE_TIME.total_seconds()):
                await asyncio.gather(*(server.wait_closed() for server in self._servers))


async def start_tls_alpn(
    *, host: str, port: int, find: FindContext, sockets: ListeningSockets | None = None
) -> TlsAlpnListener:
    """Listen at *host* and *port* and answer handshakes with what *find* returns.

    *sockets* are those that outlive the listener.

    Raises:
        Broken: The address cannot be listened at.
    """

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    bind = bind_tcp if sockets is None else sockets.tcp
    seconds = HANDSHAKE_TIME.total_seconds()
    servers: list[asyncio.Server] = []
    try:
        for one in await bind(host, port):
            server = await asyncio.start_server(
                hang_up,
                sock=one,
                ssl=_front(find),
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
            servers.append(server)
    except OSError as error:
        for server in servers:
            server.close()
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"cannot listen at {host}:{port}: {reason}") from error
    return TlsAlpnListener(servers)


def _front(find: FindContext) -> ssl.SSLContext:
    """Return the context that a handshake begins with: it has no certificate of its own."""
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2
    front.set_alpn_protocols(["acme-tls/1"])

    def choose(
        connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _front: ssl.SSLContext
    ) -> int | None:
        found = find(name) if name else None
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None

    front.sni_callback = choose
    return front
