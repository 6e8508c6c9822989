"""The connection to a CA, against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.issuance.errors import Broken, Unreachable
from broker.protocol.exchange import HttpRequest
from broker.upstreams.transport import HttpTransport, TransportSettings
from tests.fakes.loop_time import LoopTime
from tests.peers import authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """An HTTPS server that does as a test says and remembers what it was asked."""

    url: str
    ca_bundle: Path
    handler: Handler | None = None
    requests: list[web.Request] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Remember, and answer."""
        self.requests.append(request)
        if self.handler is None:
            return web.Response(body=await request.read(), headers={"X-Answer": "yes"})
        return await self.handler(request)


@contextlib.asynccontextmanager
async def serving(
    tmp: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",), client_ca: Path | None = None
) -> AsyncIterator[Server]:
    """Serve on a free port of loopback, with a certificate for *hosts*."""
    root = authority.make_root("transport test")
    files = authority.write_server_files(tmp, authority.make_server(root, hosts), root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files[0], files[1])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    server = Server("", files[2])
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with a good certificate."""
    async with serving(tmp_path / "server") as found:
        yield found


@contextlib.asynccontextmanager
async def connecting(server: Server, **more: Any) -> AsyncIterator[HttpTransport]:
    """Return a transport that trusts *server*, closed afterwards."""
    members: dict[str, Any] = {"user_agent": "penstock/1.2", "ca_bundle": server.ca_bundle}
    transport = HttpTransport(TransportSettings(**members | more))
    try:
        yield transport
    finally:
        await transport.close()


def post(server: Server, path: str = "/x", *, limit: int = 1000) -> HttpRequest:
    """Return a request with a body."""
    return HttpRequest("POST", server.url + path, {"Content-Type": "x/y"}, b"body", limit)


async def test_a_request_arrives_as_it_was_made(server: Server) -> None:
    """Method, body and headers; who we are, what we read; and no wish for compression."""
    async with connecting(server) as transport:
        response = await transport.send(post(server))
    assert (response.status, response.body, response.is_cut) == (200, b"body", False)
    assert response.header("x-answer") == "yes"
    (seen,) = server.requests
    assert (seen.method, seen.headers["Content-Type"]) == ("POST", "x/y")
    assert seen.headers["User-Agent"] == "penstock/1.2"
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Accept-Language"] == "en"


async def test_a_url_arrives_as_it_was_spelled(server: Server) -> None:
    """The signature covers the CA's spelling, so nothing may be normalised."""
    path = "/a%2Fb/%7euser/;x?q=%41&r=+"
    async with connecting(server) as transport:
        await transport.send(post(server, path))
    assert server.requests[0].raw_path == path


async def test_connections_are_kept(server: Server) -> None:
    """A new TLS connection costs five times a kept one."""
    async with connecting(server) as transport:
        for _ in range(3):
            await transport.send(post(server))
    peers = {id(request.transport) for request in server.requests}
    assert len(peers) == 1


async def test_no_cookie_is_kept(server: Server) -> None:
    """A CA has no business recognising us by anything but our key."""

    async def with_cookie(request: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("session", "1")
        return response

    server.handler = with_cookie
    async with connecting(server) as transport:
        await transport.send(post(server))
        await transport.send(post(server))
    assert "Cookie" not in server.requests[1].headers


async def test_a_redirect_is_an_answer(server: Server) -> None:
    """It is handed back, not followed."""

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{server.url}/elsewhere"})

    server.handler = redirect
    async with connecting(server) as transport:
        assert (await transport.send(post(server))).status == 307
    assert len(server.requests) == 1


async def test_a_body_is_read_up_to_its_limit(server: Server) -> None:
    """An answer without end is cut, and its connection is not used again."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65_536)
        return response

    server.handler = endless
    async with connecting(server) as transport:
        response = await transport.send(post(server, limit=1000))
        assert (len(response.body), response.is_cut) == (1000, True)
        server.handler = None
        assert (await transport.send(post(server))).body == b"body"


async def test_a_body_of_exactly_the_limit_is_whole(server: Server) -> None:
    """The limit itself is allowed."""
    async with connecting(server) as transport:
        response = await transport.send(post(server, limit=4))
    assert (response.body, response.is_cut) == (b"body", False)


async def test_a_compressed_answer_is_broken(server: Server) -> None:
    """Unpacking would make a kilobyte into a gigabyte before any limit."""

    async def compressed(request: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    server.handler = compressed
    async with connecting(server) as transport:
        with pytest.raises(Broken, match="answered compressed"):
            await transport.send(post(server))


async def test_no_answer_in_time_means_later(server: Server) -> None:
    """A CA that accepts and says nothing is not waited for without end."""
    release = asyncio.Event()
    limit, time = datetime.timedelta(seconds=20), LoopTime()

    async def hang(request: web.Request) -> web.Response:
        time.advance(limit)
        await release.wait()
        return web.Response()

    server.handler = hang
    async with connecting(server, request_timeout=limit) as transport:
        with pytest.raises(Unreachable, match="no answer within 20 s"):
            await transport.send(post(server))
    release.set()


async def test_a_lost_connection_means_later(server: Server) -> None:
    """Whether the CA acted is unknown, and not guessed."""

    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.handler = drop
    async with connecting(server) as transport:
        with pytest.raises(Unreachable):
            await transport.send(post(server))
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_means_later(tmp_path: Path) -> None:
    """Nobody listens."""
    async with serving(tmp_path) as gone:
        pass
    async with connecting(gone) as transport:
        with pytest.raises(Unreachable):
            await transport.send(post(gone))


async def test_an_untrusted_certificate_needs_a_person(server: Server) -> None:
    """The system's roots do not know it; the sentence names bundle and clock."""
    async with connecting(server, ca_bundle=None) as transport:
        with pytest.raises(Broken, match=r"is not trusted: .*see its CA bundle and our clock"):
            await transport.send(post(server))
    assert server.requests == []


async def test_a_certificate_for_another_host_needs_a_person(tmp_path: Path) -> None:
    """A trusted root is not enough."""
    async with serving(tmp_path, hosts=("ca.example",)) as other, connecting(other) as transport:
        with pytest.raises(Broken, match="is not trusted"):
            await transport.send(post(other))


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    """A CA that asks who connects is told, and refuses whoever does not tell."""
    root = authority.make_root("clients")
    key = ec.generate_private_key(ec.SECP256R1())
    now = authority.real_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "penstock")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(authority.key_identifier_of(root), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    signer = authority.Signer(certificate, key)
    files = authority.write_server_files(tmp_path / "client", signer, root)
    async with serving(tmp_path / "server", client_ca=files[2]) as strict:
        async with connecting(
            strict, client_certificate=files[0], client_key=files[1]
        ) as transport:
            assert (await transport.send(post(strict))).status == 200
        async with connecting(strict) as transport:
            with pytest.raises(Unreachable):
                await transport.send(post(strict))


async def test_no_more_requests_are_under_way_than_allowed(server: Server) -> None:
    """The limit is on this CA, however many orders there are."""
    now, most = 0, 0
    all_in = asyncio.Event()

    async def count(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 2:
            all_in.set()
        await all_in.wait()
        now -= 1
        return web.Response()

    server.handler = count
    async with connecting(server, max_in_flight=2) as transport:
        await asyncio.gather(*(transport.send(post(server)) for _ in range(6)))
    assert (most, len(server.requests)) == (2, 6)


class Proxy:
    """An outbound HTTP proxy that only knows CONNECT."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.asked: list[bytes] = []
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://user:hush@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        async with closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            writer.write(self._answer)
            await writer.drain()
            if b" 200 " not in self._answer:
                return
            host, _, port = head.split()[1].partition(b":")
            ca_reader, ca_writer = await asyncio.open_connection(host.decode(), int(port))
            async with closing(ca_writer):
                await asyncio.gather(pipe(reader, ca_writer), pipe(ca_reader, writer))


@contextlib.asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close *writer* whatever happens, and wait until it is closed."""
    try:
        yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry everything from one side to the other, until either ends."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_an_outbound_proxy_is_used(server: Server) -> None:
    """By CONNECT, with the credentials of its URL; TLS goes through to the CA."""
    proxy = Proxy()
    async with proxy as url, connecting(server, proxy=url) as transport:
        assert (await transport.send(post(server))).body == b"body"
    (head,) = proxy.asked
    assert head.startswith(f"CONNECT {server.url.removeprefix('https://')} ".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpodXNo" in head


async def test_a_proxy_that_refuses_means_later(server: Server) -> None:
    """Its answer is not the CA's; its password is not told."""
    proxy = Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    async with proxy as url, connecting(server, proxy=url) as transport:
        with pytest.raises(Unreachable, match="outbound proxy failed") as caught:
            await transport.send(post(server))
    assert "hush" not in caught.value.reason
    assert server.requests == []


async def test_a_proxy_of_the_environment_is_heeded_only_if_wanted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of a shell must not send our requests elsewhere."""
    proxy = Proxy()
    async with proxy as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        async with connecting(server) as transport:
            await transport.send(post(server))
        assert proxy.asked == []
        async with connecting(server, trust_environment=True) as transport:
            await transport.send(post(server))
        assert len(proxy.asked) == 1
