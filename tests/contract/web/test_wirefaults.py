"""Bytes that are no HTTP, sent to a listener as it runs."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from broker.web.listeners import Listener, start_tcp

UNREADABLE = {
    "no-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "h2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two-lengths": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    ),
    "length-and-chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n"
    ),
    "header-without-colon": b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
    "long-header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
}


async def hello(_request: web.Request) -> web.Response:
    """Answer what was understood."""
    return web.Response(text="hello")


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """A listener with one page."""
    app = web.Application()
    app.router.add_get("/", hello)
    started = await start_tcp(app, host="127.0.0.1", port=0)
    yield started
    await started.stop()


async def send(listener: Listener, data: bytes) -> tuple[bytes, bytes]:
    """Return head and body of whatever is answered before the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_request_gets_a_problem_and_no_name(
    listener: Listener, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no HTTP is answered with a problem document, without a name or a traceback."""
    head, body = await send(listener, data)
    assert head.split(b" ", 2)[1] == b"400"
    assert b"application/problem+json" in head
    assert b"server:" not in head.lower()
    document = json.loads(body)
    assert document["type"] == "urn:ietf:params:acme:error:malformed"
    assert document["detail"] == "request is no well-formed HTTP/1.1"
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err


async def test_readable_request_is_answered(listener: Listener) -> None:
    """The same listener answers a request that is well formed."""
    head, body = await send(listener, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"hello"
