"""A TLS listener on loopback: what one address may hold of it, on both kinds of loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from broker.issuance.errors import Broken
from broker.web.guarded import Guard
from broker.web.listeners import Listener, start_tcp
from broker.web.sockets import ListeningSockets
from tests.peers import authority, process

SECONDS = 30.0
"""Longest wait for what takes milliseconds, in seconds."""

REFUSED = (ConnectionError, ssl.SSLError)
"""How a closed connection looks to whoever wanted TLS."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Loop = Callable[[], asyncio.AbstractEventLoop]

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]


@dataclass
class Guarded:
    """A listener with one page, and what a client needs."""

    listener: Listener
    client: ssl.SSLContext
    files: tuple[Path, Path, Path]
    """Certificate, key and roots."""
    refused: list[str] = field(default_factory=list)

    async def connect(self, source: str = "127.0.0.1") -> Connection:
        """Open a TLS connection from a loopback address; raises OSError when it is closed."""
        return await asyncio.open_connection(
            "127.0.0.1",
            self.listener.port,
            ssl=self.client,
            server_hostname="localhost",
            local_addr=(source, 0),
        )

    async def silent(self) -> Connection:
        """Open a TCP connection that never says a word of TLS."""
        return await asyncio.open_connection("127.0.0.1", self.listener.port)


async def hello(_request: web.Request) -> web.Response:
    """Answer what was understood."""
    return web.Response(text="hello")


async def get(connection: Connection) -> bytes:
    """Ask for the page, and return what came until its end."""
    reader, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    return await reader.readuntil(b"hello")


async def close(connection: Connection) -> None:
    """Let go of a connection."""
    connection[1].transport.abort()
    await asyncio.sleep(0)


def server_files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return the certificate, key and roots of a server of ours."""
    root = authority.make_root("guard test")
    made = authority.make_server(root, ("localhost", "127.0.0.1"))
    return authority.write_server_files(tmp_path, made, root)


@asynccontextmanager
async def guarded(
    tmp_path: Path,
    files: tuple[Path, Path, Path] | None = None,
    *,
    connections: int,
    handshake: timedelta = timedelta(seconds=SECONDS),
    proxy: str | None = None,
    anchors: bytes | None = None,
    port: int = 0,
    sockets: ListeningSockets | None = None,
) -> AsyncIterator[Guarded]:
    """Serve on a free port, or at one whose sockets outlive the listener."""
    certificate, key, bundle = files = files or server_files(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    if anchors is not None:
        tls.load_verify_locations(cadata=anchors)
        tls.verify_mode = ssl.CERT_OPTIONAL
    app = web.Application()
    app.router.add_get("/", hello)
    refused: list[str] = []
    listener = await start_tcp(
        app,
        host="127.0.0.1",
        port=port,
        tls=tls,
        guard=Guard(
            handshake_time=handshake,
            connections=connections,
            on_refused=lambda: refused.append("one"),
            is_unbounded=lambda peer: peer == proxy,
        ),
        sockets=sockets,
    )
    try:
        yield Guarded(listener, ssl.create_default_context(cafile=str(bundle)), files, refused)
    finally:
        await listener.stop()


def on(loop: Loop, doing: Callable[[], Awaitable[None]]) -> None:
    """Do it on a loop of this kind, within bounds."""

    async def bounded() -> None:
        async with asyncio.timeout(2 * SECONDS):
            await doing()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


async def connected_again(site: Guarded) -> Connection:
    """Connect as soon as there is a place."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await site.connect()
            except OSError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("loop", LOOPS)
def test_address_holds_so_many_connections_and_no_more(loop: Loop, tmp_path: Path) -> None:
    """Another address has as many of its own; one that is closed makes room."""

    async def play() -> None:
        async with guarded(tmp_path, connections=2) as site:
            first, second = await site.connect(), await site.connect()
            assert b"200 OK" in await get(first)
            with pytest.raises(REFUSED):
                await site.connect()
            assert site.refused == ["one"]
            other = await site.connect("127.0.0.2")
            assert b"200 OK" in await get(other)
            await close(second)
            third = await connected_again(site)
            assert b"200 OK" in await get(third)
            for one in (first, third, other):
                await close(one)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_named_proxy_holds_more(loop: Loop, tmp_path: Path) -> None:
    """Many clients share its address; another address is bound as before."""

    async def play() -> None:
        async with guarded(tmp_path, connections=1, proxy="127.0.0.2") as site:
            held = [await site.connect("127.0.0.2") for _ in range(3)]
            first = await site.connect()
            with pytest.raises(REFUSED):
                await site.connect()
            for one in (*held, first):
                assert b"200 OK" in await get(one)
                await close(one)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_handshake_that_never_begins_is_ended(loop: Loop, tmp_path: Path) -> None:
    """It holds its place for that long alone, and nobody is told anything."""

    async def play() -> None:
        async with guarded(tmp_path, connections=1, handshake=timedelta(seconds=0.5)) as site:
            reader, writer = await site.silent()
            try:
                early = await site.connect()
            except REFUSED:
                assert site.refused == ["one"]
            else:  # on a machine so slow that the time was over before
                assert reader.at_eof()
                await close(early)
            async with asyncio.timeout(SECONDS):
                assert await reader.read() == b""
            writer.close()
            made = await connected_again(site)
            assert b"200 OK" in await get(made)
            await close(made)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_no_tls_frees_its_place(loop: Loop, tmp_path: Path) -> None:
    """Plain HTTP at the TLS port, twenty times over: none of them is left behind."""

    async def play() -> None:
        async with guarded(tmp_path, connections=1) as site:
            for _ in range(20):
                reader, writer = await site.silent()
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                async with asyncio.timeout(SECONDS):
                    try:
                        answer = await reader.read()
                    except ConnectionError:
                        answer = b""
                assert b"HTTP" not in answer
                writer.close()
            made = await connected_again(site)
            assert b"200 OK" in await get(made)
            await close(made)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_many_connections_one_after_another_are_all_served(loop: Loop, tmp_path: Path) -> None:
    """A bound of four, a hundred connections four at a time: every place is used again."""

    async def play() -> None:
        async with guarded(tmp_path, connections=4) as site:
            for _ in range(25):
                made = await asyncio.gather(*(connected_again(site) for _ in range(4)))
                for answer in await asyncio.gather(*map(get, made)):
                    assert b"200 OK" in answer
                for one in made:
                    await close(one)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_listener_stops_while_handshakes_are_under_way(loop: Loop, tmp_path: Path) -> None:
    """They end with it, and the port is free."""

    async def play() -> None:
        async with guarded(tmp_path, connections=8) as site:
            silent = [await site.silent() for _ in range(4)]
            # Connections are accepted in their order: this one has an answer, so those are in.
            await close(await site.connect())
            port = site.listener.port
        with pytest.raises(REFUSED):
            await asyncio.open_connection("127.0.0.1", port)
        for _, writer in silent:
            writer.transport.abort()

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_client_certificate_that_is_not_believed_leaves_a_line(loop: Loop, tmp_path: Path) -> None:
    """With whose address and why; one that is believed is served, and leaves none."""
    believed, strange = authority.make_root("known"), authority.make_root("strange")
    anchors = believed.certificate.public_bytes(Encoding.DER)

    def shows(site: Guarded, root: authority.Signer) -> Guarded:
        made = authority.make_client(root, "anna")
        files = authority.write_server_files(tmp_path, made, root)
        site.client.load_cert_chain(files[0], files[1])
        return site

    async def play() -> None:
        async with guarded(tmp_path, connections=1, anchors=anchors) as site:
            made = await shows(site, believed).connect()
            assert b"200 OK" in await get(made)
            await close(made)
            with capture_logs() as lines:
                refused = await connected_again(shows(site, strange))
                with pytest.raises((*REFUSED, asyncio.IncompleteReadError)):
                    await get(refused)
                await close(refused)
                # There is room for one: the next is let in when that one is done with.
                await close(await connected_again(shows(site, believed)))
            (line,) = lines
            assert (line["event"], line["peer"]) == ("client certificate refused", "127.0.0.1")
            assert line["reason"] == "unable to get local issuer certificate"
            assert line["log_level"] == "warning"

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_has_come_before_the_end_is_heard_out(loop: Loop, tmp_path: Path) -> None:
    """Its handshake was over and its request was not there yet; a silent twin holds nobody up."""

    async def play() -> None:
        async with guarded(tmp_path, connections=8) as site:
            asking, silent = await site.connect(), await site.connect()
            # Connections are served in their order: with this one's answer, those are known.
            third = await site.connect()
            assert b"200 OK" in await get(third)
            stopping = asyncio.ensure_future(site.listener.stop())
            port = site.listener.port
            await asyncio.to_thread(
                process.wait_until, lambda: not process.is_listening(port), SECONDS, "it has begun"
            )
            assert b"200 OK" in await get(asking)
            await stopping
            assert await silent[0].read() == b""
            for one in (asking, silent, third):
                await close(one)

    on(loop, play)


@pytest.mark.parametrize("loop", LOOPS)
def test_nobody_is_lost_from_one_listener_to_the_next(loop: Loop, tmp_path: Path) -> None:
    """Clients that come anew all the time, and thirty listeners one after the other."""

    async def play() -> None:
        sockets, port, is_over = ListeningSockets(), process.free_port(), asyncio.Event()
        answers = asyncio.Semaphore(0)

        async def ask(client: ssl.SSLContext) -> None:
            while not is_over.is_set():
                made = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=client, server_hostname="localhost"
                )
                assert b"200 OK" in await get(made)
                answers.release()
                await close(made)

        files = server_files(tmp_path)
        client = ssl.create_default_context(cafile=str(files[2]))
        async with asyncio.TaskGroup() as group:
            for turn in range(30):
                sockets.begin_turn({("127.0.0.1", port)})
                async with guarded(tmp_path, files, connections=64, port=port, sockets=sockets):
                    if turn == 0:
                        asking = [group.create_task(ask(client)) for _ in range(8)]
                    for _ in range(8):
                        await answers.acquire()
            is_over.set()
            sockets.begin_turn({("127.0.0.1", port)})
            async with guarded(tmp_path, files, connections=64, port=port, sockets=sockets):
                await asyncio.gather(*asking)
        sockets.close()

    on(loop, play)


async def test_address_in_use_is_a_reason_to_stop(tmp_path: Path) -> None:
    """The sentence names it."""
    async with guarded(tmp_path, connections=1) as site:
        with pytest.raises(Broken, match=r"cannot listen at 127\.0\.0\.1"):
            await start_tcp(
                web.Application(),
                host="127.0.0.1",
                port=site.listener.port,
                tls=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
                guard=Guard(
                    handshake_time=timedelta(seconds=1), connections=1, on_refused=lambda: None
                ),
            )
