"""HTTP/1.1 as an agent needs it, small enough that ten thousand connections fit into a process."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Answer", "Broken", "Connection", "Place"]

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Longest line that is read, in bytes: an event with a batch's worth of certificates."""


class Broken(Exception):
    """The connection ended, or what came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker listens for agents, and from which address we come."""

    host: str
    port: int
    source: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read whole."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class Connection:
    """One connection; requests go over it one after the other."""

    def __init__(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = f"{place.host}:{place.port}"
        self._reader = reader
        self._writer = writer
        self.has_answered = False
        """Whether anything came since the last request was sent."""

    @classmethod
    async def open(cls, place: Place, context: ssl.SSLContext | None) -> Self:
        """Connect; raises Broken."""
        source = (place.source, 0) if place.source else None
        name = (place.server_name or place.host) if context is not None else None
        try:
            reader, writer = await asyncio.open_connection(
                place.host,
                place.port,
                ssl=context,
                server_hostname=name,
                local_addr=source,
                limit=MAX_LINE_BYTES,
            )
        except (OSError, ssl.SSLError) as error:
            raise Broken(f"no connection: {error}") from error
        return cls(place, reader, writer)

    @property
    def is_open(self) -> bool:
        """Whether another request can be tried."""
        return not self._writer.is_closing() and not self._reader.at_eof()

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and read its answer whole; raises Broken."""
        status, got = await self.begin(method, target, body, headers)
        try:
            content = b"".join([piece async for piece in self._pieces(got)])
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Broken(f"answer broke off: {error}") from error
        if got.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, got, content)

    async def begin(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        """Send one request and read the answer's head; raises Broken."""
        head = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method == "POST":
            head.append(f"Content-Length: {len(body)}")
        self.has_answered = False
        try:
            self._writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
            await self._writer.drain()
            return await self._head()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.has_answered |= bool(getattr(error, "partial", b""))
            self.close()
            raise Broken(f"no answer: {error}") from error

    async def _head(self) -> tuple[int, dict[str, str]]:
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.has_answered = True
        first, *lines = text.split("\r\n")
        got = {}
        for line in lines:
            name, _, value = line.partition(":")
            got[name.strip().lower()] = value.strip()
        return int(first.split(" ")[1]), got

    async def events(self, headers: Mapping[str, str]) -> AsyncIterator[str]:
        """Yield the lines of a stream that has begun, until it ends; raises Broken."""
        rest = b""
        try:
            async for piece in self._pieces(headers):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8").rstrip("\r")
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Broken(f"stream broke off: {error}") from error

    async def _pieces(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
                piece = await self._reader.readexactly(size + 2)
                if size == 0:
                    return
                yield piece[:-2]
        elif "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
        else:
            while piece := await self._reader.read(65536):
                yield piece

    def close(self) -> None:
        """Drop the connection, without a word."""
        self._writer.transport.abort()
