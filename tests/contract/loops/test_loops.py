"""Connections end with the loop of whoever opened them, and one that does not fails its test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.fakes.ending_connector import EndingConnector
from tests.peers import authority
from tests.peers.loops import ConnectionsLeft, LoopThread

HOST: Final = "127.0.0.1"


ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\ngood-bye"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Answer two requests over HTTPS, and keep both connections to the end of the block.

    Give the URL, and whom to trust.
    """
    root = authority.make_root("loops")
    files = authority.write_server_files(folder, authority.make_server(root, [HOST]), root)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files[0], files[1])
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((HOST, 0)))

        def serve() -> None:
            for _ in range(2):
                plain, _ = listening.accept()
                kept = stack.enter_context(tls.wrap_socket(plain, server_side=True))
                kept.recv(65_536)
                kept.sendall(ANSWER)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://{HOST}:{listening.getsockname()[1]}/"
        yield url, ssl.create_default_context(cafile=str(files[2]))
        thread.join()


async def ask(url: str, connector: aiohttp.TCPConnector) -> None:
    """Ask once, and end the session."""
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        assert await answer.text() == "good-bye"


def in_a_loop_of_its_own(url: str, trust: ssl.SSLContext, kind: type[aiohttp.TCPConnector]) -> None:
    """Ask in a loop that ends right after the answer."""

    async def go() -> None:
        await ask(url, kind(ssl=trust))

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(go())
    finally:
        loop.close()


def test_connection_that_says_farewell_as_its_loop_ends_is_told(tmp_path: Path) -> None:
    """As that of an ordinary session is; one that waits for its connections leaves nothing."""
    with serving(tmp_path) as (url, trust):
        with pytest.raises(ConnectionsLeft, match=HOST):
            in_a_loop_of_its_own(url, trust, aiohttp.TCPConnector)
        in_a_loop_of_its_own(url, trust, EndingConnector)


def test_loop_may_be_closed_once_its_connections_are() -> None:
    """The twin of the next."""
    loop = asyncio.new_event_loop()
    writer = loop.run_until_complete(opened(loop))
    writer.close()
    loop.run_until_complete(writer.wait_closed())
    loop.close()


def test_loop_that_is_closed_before_its_connections_tells_their_ends() -> None:
    """By address, so that it can be seen whose they are; and it closes them."""
    loop = asyncio.new_event_loop()
    writer = loop.run_until_complete(opened(loop))
    with pytest.raises(ConnectionsLeft, match=r"from \('127.0.0.1', \d+\) to \('127.0.0.1', \d+\)"):
        loop.close()
    assert loop.is_closed()
    assert writer.get_extra_info("socket").fileno() == -1


async def opened(loop: asyncio.AbstractEventLoop) -> asyncio.StreamWriter:
    """Return the near end of a connection whose far end is closed."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    server.close()
    await server.wait_closed()
    return writer


def test_thread_ends_though_the_other_side_says_nothing() -> None:
    """What is under way is cut off."""
    accepted = asyncio.Event()
    thread = LoopThread()
    thread.start()
    server = thread.run(asyncio.start_server(lambda *_: accepted.set(), HOST, 0))
    with socket.create_connection(server.sockets[0].getsockname()) as near:
        thread.run(stop(server, accepted))
        thread.stop()
        assert near.recv(1) == b""


async def stop(server: asyncio.Server, accepted: asyncio.Event) -> None:
    """Listen no longer once a connection was accepted; it stays."""
    await accepted.wait()
    server.close()
