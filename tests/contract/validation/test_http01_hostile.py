"""http-01 against web servers that want to keep us busy, fill our memory or read through us."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable

import pytest

from tests.contract.validation.conftest import (
    KEY_AUTHORIZATION,
    PATH,
    World,
    answer,
    judge,
    redirect,
    refusal,
)
from tests.contract.validation.servers import HttpServer

OK = b"HTTP/1.1 200 OK\r\n"
SECRET = b"secret-that-only-the-broker-can-reach"

MAX_TAKEN_BYTES = 16 * 1024 * 1024
"""What the kernel's buffers of both sides hold at most; whoever reads on would take gigabytes."""


def flood(server: HttpServer, head: bytes, piece: bytes) -> Callable[..., object]:
    """Return a script that sends *head* and then *piece* for ever."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await server.flood(writer, piece)

    return play


@pytest.mark.parametrize(
    ("head", "piece", "kind"),
    [
        pytest.param(OK + b"\r\n", b"x" * 65536, None, id="endless-body"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n" * 8192,
            None,
            id="endless-chunks",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n1;",
            b"x" * 65536,
            "protocol",
            id="endless-chunk-extension",
        ),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048, "protocol", id="1xx-flood"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\n", b"Link: <x>\r\n" * 4096, "protocol", id="endless-1xx"
        ),
        pytest.param(OK, b"X-Header: y\r\n" * 4096, "protocol", id="endless-headers"),
        pytest.param(OK + b"X: ", b"x" * 65536, "protocol", id="endless-header"),
        pytest.param(b"", b"x" * 65536, "protocol", id="endless-status-line"),
        pytest.param(b"", b"\r\n" * 32768, "protocol", id="endless-empty-lines"),
        pytest.param(
            OK + b"Content-Encoding: gzip\r\n\r\n",
            gzip.compress(bytes(1 << 20)),
            "protocol",
            id="compressed-bomb",
        ),
    ],
)
async def test_flood_is_cut_off(world: World, head: bytes, piece: bytes, kind: str | None) -> None:
    """We hang up after a few kilobytes, long before the time is over."""
    world.web.script = flood(world.web, head, piece)  # type: ignore[assignment]
    async with asyncio.timeout(world.settings.timeout.total_seconds() / 2):
        seen = await world.observe()
        await world.web.is_gone.wait()
    assert not judge(seen).valid
    assert (seen.failure and seen.failure.kind) == kind
    assert sum(len(each) for each in seen.answers) <= 512
    assert world.web.sent_bytes < MAX_TAKEN_BYTES


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"HTTP/1.1 2", id="in-the-status-line"),
        pytest.param(OK + b"X-Header: ", id="in-the-headers"),
        pytest.param(OK + b"Content-Length: 50\r\n\r\n" + KEY_AUTHORIZATION[:9], id="in-the-body"),
        pytest.param(OK + b"\r\n" + KEY_AUTHORIZATION, id="before-the-end"),
    ],
)
async def test_stalling_server_costs_the_time_limit(world: World, beginning: bytes) -> None:
    """Whoever stops in the middle is hung up on when the time is over."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(beginning)
        world.let_time_pass()
        assert await reader.read() == b""  # it ends when the client goes

    world.web.script = stall
    seen = await world.observe()
    assert refusal(seen) == "timeout"
    await world.web.is_gone.wait()


async def test_slow_server_is_waited_for_within_the_limit(world: World) -> None:
    """The negative twin: an answer that comes in pieces is read to its end."""

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for octet in answer(KEY_AUTHORIZATION):
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0)

    world.web.script = dribble
    assert judge(await world.observe()).valid


async def test_broken_connection_is_a_connection_failure(world: World) -> None:
    """A reset in the middle is told as such, and not tried again."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 50\r\n\r\n")
        await writer.drain()
        # To linger for no time at all is to send RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    world.web.script = reset
    assert refusal(await world.observe()) == "connection"
    assert world.web.connections == 1


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(answer(SECRET), id="body"),
        pytest.param(answer(SECRET, status="500 " + SECRET.decode()), id="error"),
        pytest.param(SECRET + b"\r\n\r\n", id="no-http"),
        pytest.param(OK + SECRET + b"\r\n\r\n", id="header"),
        pytest.param(OK + b"Content-Encoding: " + SECRET + b"\r\n\r\n", id="encoding"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n", id="chunk-size"
        ),
        pytest.param(OK + b"Content-Length: " + SECRET + b"\r\n\r\n", id="length"),
    ],
)
@pytest.mark.parametrize("is_redirected", [False, True], ids=["directly", "redirected"])
async def test_nothing_that_was_fetched_is_repeated(
    world: World, page: bytes, is_redirected: bool
) -> None:
    """The problem that a client reads has no word of what the server said."""
    world.web.answers["/inside"] = page
    world.web.answers[PATH] = redirect("/inside") if is_redirected else page
    problem = judge(await world.observe()).problem
    assert problem is not None
    assert SECRET.decode() not in str(problem.to_json())
    assert "secret" not in problem.detail


async def test_body_is_handed_on_up_to_its_limit(world: World) -> None:
    """A body with spaces behind the key authorization is right; one with more is not."""
    world.web.answers[PATH] = answer(KEY_AUTHORIZATION + b" " * 4000)
    seen = await world.observe()
    assert judge(seen).valid
    assert len(seen.answers[0]) == 512
    world.web.answers[PATH] = answer(KEY_AUTHORIZATION + b"x")
    assert not judge(await world.observe()).valid
