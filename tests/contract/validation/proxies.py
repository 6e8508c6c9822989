"""A small HTTP proxy on loopback: it tunnels, forwards, and notes what it was asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.contract.validation.servers import Script


@dataclass
class ProxyServer:
    """Does what it is asked; ``asked`` holds each request line with its Host header."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    refusal: bytes | None = None
    """Sent in place of an answer."""
    script: Script | None = None
    """Played in place of everything."""
    leads_to: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where the proxy itself believes that a host is, when it forwards."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.script is not None:
                await self.script(reader, writer)
            else:
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        self.asked.append(f"{lines[0]} [{headers.get('Host')}]")
        self.authorizations.append(headers.get("Proxy-Authorization"))
        if self.refusal is not None:
            writer.write(self.refusal)
            await writer.drain()
            return
        method, target, _ = lines[0].split(" ")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            far = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            authority, _, path = target.removeprefix("http://").partition("/")
            far = await asyncio.open_connection(*self.leads_to[authority])
            far[1].write(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        await asyncio.gather(_copy(reader, far[1]), _copy(far[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxy_server() -> AsyncIterator[ProxyServer]:
    """Run a proxy on a free port of 127.0.0.1."""
    server = ProxyServer()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
