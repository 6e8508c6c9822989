"""TCP listeners on loopback: ports, patience with slow clients, and the way out."""

import asyncio
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from broker.issuance.errors import Broken
from broker.web.listeners import start_tcp
from broker.web.sockets import ListeningSockets
from tests.peers import process

HOST = "127.0.0.1"


class Slow:
    """A handler that waits until a test lets it go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response(text="done")

    def app(self) -> web.Application:
        """Return an application with this handler."""
        made = web.Application()
        made.router.add_get("/", self.handle)
        return made


async def test_port_in_use_is_a_reason_to_stop() -> None:
    """The sentence names address and port."""
    first = await start_tcp(web.Application(), host=HOST, port=0)
    with pytest.raises(Broken, match=rf"cannot listen at {HOST}:{first.port}: .*in use"):
        await start_tcp(web.Application(), host=HOST, port=first.port)
    await first.stop()


async def test_client_that_sends_no_headers_is_let_go() -> None:
    """A thousand sockets that say nothing do not stay for ever."""
    listener = await start_tcp(
        web.Application(), host=HOST, port=0, idle_time=timedelta(milliseconds=50)
    )
    for said in (b"", b"GET / HTTP/1.1\r\nHost: a\r\n"):
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        writer.write(said)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
    await listener.stop()


async def test_answer_that_is_under_way_is_given_before_the_end() -> None:
    """SIGTERM does not cost a client its certificate. Afterwards nobody is let in."""
    slow = Slow()
    listener = await start_tcp(slow.app(), host=HOST, port=0)

    async def ask() -> str:
        url = f"http://{HOST}:{listener.port}/"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    asking = asyncio.create_task(ask())
    await slow.entered.wait()
    stopping = asyncio.create_task(listener.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    slow.release.set()
    async with asyncio.timeout(30):
        assert await asking == "done"
        await stopping
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(HOST, listener.port)


async def test_handler_learns_that_its_client_left() -> None:
    """Else every client that gives up would leave its handler behind."""
    slow = Slow()
    listener = await start_tcp(slow.app(), host=HOST, port=0)
    _, writer = await asyncio.open_connection(HOST, listener.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await slow.entered.wait()
    writer.transport.abort()
    async with asyncio.timeout(30):
        await slow.cancelled.wait()
    await listener.stop()


async def test_who_connects_between_two_turns_is_answered_by_the_next() -> None:
    """Nobody is refused; the twin, an address that the next has not, is closed."""
    sockets = ListeningSockets()
    port, other = process.free_port(), process.free_port()
    for each in (port, other):
        first = await start_tcp(web.Application(), host=HOST, port=each, sockets=sockets)
        await first.stop()
    sockets.begin_turn({(HOST, port)})
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(HOST, other)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    slow = Slow()
    slow.release.set()
    second = await start_tcp(slow.app(), host=HOST, port=port, sockets=sockets)
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await second.stop()
    sockets.close()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(HOST, port)


async def test_two_listeners_of_one_turn_share_no_address() -> None:
    """Clients of one would land at the other; a port that the system chooses is never kept."""
    sockets, port = ListeningSockets(), process.free_port()
    first = await start_tcp(web.Application(), host=HOST, port=port, sockets=sockets)
    with pytest.raises(Broken, match="in use"):
        await start_tcp(web.Application(), host=HOST, port=port, sockets=sockets)
    chosen = [
        await start_tcp(web.Application(), host=HOST, port=0, sockets=sockets) for _ in range(2)
    ]
    assert len({first.port, *(one.port for one in chosen)}) == 3
    for one in (first, *chosen):
        await one.stop()
    sockets.close()
