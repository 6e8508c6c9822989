"""DNS and HTTP servers on loopback whose behaviour a test writes down.

They count what reaches them: an attack failed when the count is zero, whatever the error says.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Zone = dict[tuple[str, str], list[list[str]]]
"""(name, type) → the answers given one after the other, the last one repeated; each a list of
records in presentation form."""


class DnsServer(asyncio.DatagramProtocol):
    """Answers over UDP, truncated where they do not fit, and over TCP.

    ``zone`` holds records; a name that is in it with any type exists.  ``rcodes`` gives questions
    another code than NOERROR.  ``raw`` gives names octets to send as they are, the id in front.
    ``silent`` names get no answer.  With ``follows_aliases`` off it answers like an authoritative
    server for another zone: the alias alone.
    """

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.rcodes: dict[tuple[str, str], dns.rcode.Rcode] = {}
        self.follows_aliases = True
        self.raw: dict[str, bytes] = {}
        self.silent: set[str] = set()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Asyncio's own datagram transport does not descend from the class it implements.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data, max_size=512)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one query over TCP."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = self._answer(await reader.readexactly(length), max_size=65535)
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        writer.close()

    def _answer(self, data: bytes, *, max_size: int) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = question.rdtype.name
        turn = self.asked[(name, kind)]
        self.asked[(name, kind)] += 1
        if name in self.silent:
            return None
        if name in self.raw:
            return data[:2] + self.raw[name]
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if (name, kind) in self.rcodes:
            response.set_rcode(self.rcodes[(name, kind)])
            return response.to_wire()
        self._fill(response, name, kind, turn)
        try:
            return response.to_wire(max_size=max_size)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str, turn: int) -> None:
        seen: set[str] = set()
        while True:
            answers = self.zone.get((name, kind))
            if answers is not None:
                records = answers[min(turn, len(answers) - 1)]
                if records:
                    response.answer.append(
                        dns.rrset.from_text_list(name + ".", 0, "IN", kind, records)
                    )
                return
            alias = self.zone.get((name, "CNAME"))
            if alias is None:
                if not any(known == name for known, _ in self.zone):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return
            target = alias[0][0]
            response.answer.append(dns.rrset.from_text_list(name + ".", 0, "IN", "CNAME", [target]))
            name = target.rstrip(".")
            if name in seen or not self.follows_aliases:
                return
            seen.add(name)


@contextlib.asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """Run a DNS server on a free port of 127.0.0.1."""
    server = DnsServer()
    tcp = await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class HttpServer:
    """Listens on one address and plays a script to each connection.

    ``answers`` maps a path to the octets that are sent; ``script`` replaces that altogether.
    """

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.script: Script | None = None
        self.connections = 0
        self.requests: list[tuple[str, str]] = []
        """(path, Host header) of each request."""
        self.sent_bytes = 0
        self.is_gone = asyncio.Event()
        """Set as soon as a client has gone."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the script, or answer one request."""
        self.connections += 1
        try:
            if self.script is not None:
                await self.script(reader, writer)
            else:
                await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.is_gone.set()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = lines[0].split(" ")[1]
        host = next(line[6:] for line in lines if line.startswith("Host: "))
        self.requests.append((path, host))
        writer.write(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n"))
        await writer.drain()

    async def flood(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send *data* again and again until the client goes."""
        while True:
            writer.write(data)
            await writer.drain()
            self.sent_bytes += len(data)


@contextlib.asynccontextmanager
async def http_server(
    address: str = "127.0.0.1", port: int = 0, **options: object
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Run an HTTP server, by default on a free port of 127.0.0.1; yields it and its port."""
    server = HttpServer()
    listener = await asyncio.start_server(
        server.serve,
        address,
        port,
        **options,  # type: ignore[arg-type]
    )
    try:
        yield server, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()


def closed_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
