"""One HTTP GET to an address that was found fit, read with a byte budget.

A general HTTP client follows, decodes and buffers more than is good here.  This one sends one
request, reads one answer (RFC 9112) and closes: no pooling, no decoding, no cookies, and no proxy
but the one that a community names.
It reads a fixed number of octets at most, whatever the peer declares.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final

from broker.protocol.problems import printable
from broker.validation.dialing import MAX_LINE_BYTES, ConnectFailed, Dialer, Stream, os_reason
from broker.validation.failures import Unobserved
from broker.validation.targets import Target

__all__ = ["MAX_LINE_BYTES", "ConnectFailed", "Reply", "Request", "exchange", "read_reply"]

MAX_BODY_BYTES: Final = 1024
"""Most octets of a body that are read.  A key authorization has fewer than 310."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Most octets of header lines, interim answers and chunk framing together."""

MAX_INTERIM_ANSWERS: Final = 8
"""Most 1xx answers before the real one.  We never ask for one; a server may send a few."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a target.

    ``server_name`` is the name or address that TLS is told, None for plain HTTP; ``authority`` is
    the Host header.
    """

    authority: str
    path: str
    server_name: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as far as it matters.  ``body`` is read only of a 200."""

    status: int
    location: str | None
    body: bytes


async def exchange(
    target: Target, request: Request, *, connect_timeout: timedelta, dialer: Dialer | None = None
) -> Reply:
    """Send *request* to *target* and return the answer; the caller limits the time in all.

    Raises:
        ConnectFailed: Try the next address.
        Unobserved: The peer answered something else than HTTP, or broke off.
    """
    dialer = Dialer() if dialer is None else dialer
    forwarder = dialer.forwarder if request.server_name is None else None
    wanted, more = request.path, ""
    if forwarder is None:
        opening = _connection(dialer, target, request.server_name, connect_timeout)
    else:
        opening = dialer.dial_forwarder(forwarder, timeout=connect_timeout)
        wanted = f"http://{request.authority}{request.path}"
        if forwarder.authorization is not None:
            more = f"Proxy-Authorization: {forwarder.authorization}\r\n"
    async with opening as (reader, writer):
        writer.write(
            f"GET {wanted} HTTP/1.1\r\nHost: {request.authority}\r\n{more}"
            "User-Agent: penstock\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
            "Connection: close\r\n\r\n".encode("ascii")
        )
        try:
            return await read_reply(reader)
        except ssl.SSLError as error:
            raise Unobserved("tls", f"TLS failed: {_tls_reason(error)}") from None
        except OSError as error:
            raise Unobserved("connection", f"connection broke: {os_reason(error)}") from None


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the answer that *reader* delivers, reading no more of it than the limits allow.

    Raises:
        Unobserved: It is something else than HTTP, or breaks off.
    """
    return await _Answer(reader).read()


@asynccontextmanager
async def _connection(
    dialer: Dialer, target: Target, server_name: str | None, timeout: timedelta
) -> AsyncIterator[Stream]:
    async with dialer.dial(target, timeout=timeout) as stream:
        if server_name is not None:
            await _begin_tls(stream[1], server_name, timeout)
        yield stream


async def _begin_tls(writer: asyncio.StreamWriter, server_name: str, timeout: timedelta) -> None:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await writer.start_tls(_tls_context(), server_hostname=server_name)
    except TimeoutError:
        raise ConnectFailed("connection timed out") from None
    except ssl.SSLError as error:
        raise Unobserved("tls", f"TLS failed: {_tls_reason(error)}") from None
    except OSError as error:
        raise ConnectFailed(os_reason(error)) from None
    except ValueError:
        raise Unobserved("tls", "the host cannot be named to a TLS server") from None


@cache
def _tls_context() -> ssl.SSLContext:
    # Whoever redirects to https is getting the certificate that would be checked here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Answer:
    """Reads one answer within the budget."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._head_left = MAX_HEAD_BYTES

    async def read(self) -> Reply:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            version, status = await self._status_line()
            headers = await self._headers()
            if status == 101:
                raise Unobserved("protocol", "switched protocols without being asked")
            if status >= 200:
                break
        else:
            raise Unobserved("protocol", f"more than {MAX_INTERIM_ANSWERS} interim answers (1xx)")
        location = headers.get(b"location")
        body = b"" if status != 200 else await self._body(version, headers)
        return Reply(status, None if location is None else location.decode("latin-1"), body)

    async def _status_line(self) -> tuple[int, int]:
        match = _STATUS_LINE.fullmatch(await self._line())
        if match is None:
            raise Unobserved("protocol", "the answer is not HTTP/1.1")
        return int(match[1]), int(match[2])

    async def _headers(self) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {}
        while line := await self._line():
            match = _HEADER.fullmatch(line)
            if match is None:
                raise Unobserved("protocol", "a header line has no name")
            name, value = match[1].lower(), match[2]
            if headers.setdefault(name, value) != value and name in _SINGLE_HEADERS:
                raise Unobserved("protocol", f"several {name.decode()} headers")
        return headers

    async def _body(self, version: int, headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Unobserved("protocol", "the body has a content encoding, expected none")
        length, transfer = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if transfer is not None:
            if length is not None or transfer.lower() != b"chunked" or version == 0:
                raise Unobserved("protocol", "the body's transfer encoding is not plain chunked")
            return await self._chunked_body()
        if length is None:
            return await self._octets(MAX_BODY_BYTES)
        if _LENGTH.fullmatch(length) is None:
            raise Unobserved("protocol", "content-length is not a number")
        return await self._declared(min(int(length), MAX_BODY_BYTES))

    async def _chunked_body(self) -> bytes:
        body = b""
        while True:
            match = _CHUNK.fullmatch(await self._line())
            if match is None:
                raise Unobserved("protocol", "a chunk has no size")
            size = int(match[1], 16)
            if size == 0:
                return body
            body += await self._declared(min(size, MAX_BODY_BYTES - len(body)))
            if len(body) == MAX_BODY_BYTES:
                return body
            if await self._line():
                raise Unobserved("protocol", "a chunk is longer than its size")

    async def _declared(self, size: int) -> bytes:
        data = await self._octets(size)
        if len(data) < size:
            raise Unobserved("protocol", f"the body ended after {len(data)} octets of {size}")
        return data

    async def _octets(self, limit: int) -> bytes:
        data = b""
        while len(data) < limit and (more := await self._reader.read(limit - len(data))):
            data += more
        return data

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise Unobserved("protocol", f"a line exceeds {MAX_LINE_BYTES} bytes") from None
        self._head_left -= len(line)
        if self._head_left < 0:
            raise Unobserved("protocol", f"headers and framing exceed {MAX_HEAD_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise Unobserved("protocol", "the connection was closed before the answer ended")
        # A lone line feed ends a line too (RFC 9112 §2.2); small shell-script servers send it.
        return line.removesuffix(b"\n").removesuffix(b"\r")


_SINGLE_HEADERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"content-encoding", b"location"}
)
# Headers that decide how the answer is read; two that differ leave it open.


def _tls_reason(error: ssl.SSLError) -> str:
    return printable((error.reason or "no reason given").lower().replace("_", " "), 100)
