"""Turns of a broker on loopback: what clients and probes meet while one follows the other."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from structlog.testing import capture_logs

from broker.app import begin_with, serve
from broker.app import turns as app_turns
from tests.peers import authority, process
from tests.unit.config.conftest import write

SECONDS: Final = 60.0
"""Longest wait for what takes a second or two, in seconds."""

NOBODY: Final = "https://127.0.0.1:9/directory"
"""A CA that does not answer."""


@pytest.fixture(autouse=True)
def _keep_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave logging to the test run."""
    monkeypatch.setattr(app_turns, "set_up_log", lambda **_how: None)


class Site:
    """A broker with a pair of its own, and its file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "key.pass").write_text("a passphrase that is long enough")
        root = authority.make_root("turns")
        signed = authority.make_server(root, ["acme.corp.example"])
        certificate, key, bundle = authority.write_server_files(directory, signed, root)
        self.pair = {"certificate": str(certificate), "key": str(key)}
        self.trusting = ssl.create_default_context(cafile=str(bundle))
        self.acme, self.plain, self.health = (process.free_port() for _ in range(3))
        self.path = directory / "penstock.yaml"
        self.kept = directory / "last-good.json"

    def text(self, acme: dict[str, str] | None = None, **changes: Any) -> str:
        """Return a configuration."""
        listen = {
            "acme": {"address": f"127.0.0.1:{self.acme}", **(acme or self.pair)},
            "plain": {"address": f"127.0.0.1:{self.plain}"},
            "health": {"address": f"127.0.0.1:{self.health}"},
        }
        given = {
            "state": str(self.directory / "state"),
            "keys.passphrase": f"file:{self.directory}/key.pass",
            "listen": listen,
            "upstreams.pub": {"kind": "acme", "directory": NOBODY},
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        return write(given)

    def change(self, text: str) -> None:
        """Write the file and say so."""
        self.path.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)

    def in_force(self) -> str:
        """Return the configuration that is kept for the next start."""
        text: str = json.loads(self.kept.read_text())["configuration"]
        return text

    async def ask(self, path: str) -> tuple[int, str]:
        """Ask the health port."""
        url = f"http://127.0.0.1:{self.health}/{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def wait_ready(self, *words: str) -> str:
        """Wait until the broker is ready and has said *words*."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    status, said = await self.ask("readyz")
                    if status == 200 and all(one in said for one in words):
                        return said
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)

    async def wait_in_force(self, text: str) -> None:
        """Wait until *text* is served by."""
        async with asyncio.timeout(SECONDS):
            while True:
                # A broker that begins is ready a moment before it keeps what it began with.
                if self.kept.exists() and self.in_force() == text:
                    break
                await asyncio.sleep(0.02)
        await self.wait_ready()

    async def connect(self, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the ACME listener."""
        if not tls:
            return await asyncio.open_connection("127.0.0.1", self.acme)
        return await asyncio.open_connection(
            "127.0.0.1", self.acme, ssl=self.trusting, server_hostname="acme.corp.example"
        )


def is_accepted(at: int, came_from: int) -> bool:
    """Tell whether a connection was accepted at a port; until then it has no inode."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    ends = (f":{at:04X}", f":{came_from:04X}")
    rows = [line.split() for line in lines]
    return any((row[1][8:], row[2][8:]) == ends and row[9] != "0" for row in rows)


async def wait_accepted(writer: asyncio.StreamWriter) -> None:
    """Wait until the connection has left the queue of the listener: the kernel says so."""
    at, came_from = (writer.get_extra_info(end)[1] for end in ("peername", "sockname"))
    async with asyncio.timeout(SECONDS):
        while not is_accepted(at, came_from):  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[asyncio.Task[None]]:
    """Serve until the block ends."""
    site.path.write_text(site.text())
    task = asyncio.create_task(serve(begin_with(site.path, last_good=site.kept)))
    try:
        await site.wait_ready()
        await site.wait_in_force(site.text())
        yield task
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site."""
    return Site(tmp_path)


async def test_certificate_that_never_comes_is_no_configuration(site: Site) -> None:
    """The turn before is begun again and kept; nobody is left with handshakes that hang."""
    async with serving(site):
        site.change(site.text({"from": "pub"}))
        await site.wait_ready("[!] configuration", "own certificate cannot be ordered from 'pub'")
        assert site.in_force() == site.text()
        _, writer = await site.connect()
        writer.close()


async def test_probes_are_answered_throughout_and_a_slow_client_holds_nobody(site: Site) -> None:
    """`/livez` at once, `/readyz` honestly; the client that dawdles has its answer in the end."""
    async with serving(site):
        reader, writer = await site.connect()
        writer.write(
            b"POST /acme/default/new-account HTTP/1.1\r\nHost: acme.corp.example\r\n"
            b"Content-Type: application/jose+json\r\nContent-Length: 500\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        async with asyncio.timeout(SECONDS):  # its head is read, and its body waited for
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"{")
        await writer.drain()
        other = site.text(limits__body="70KiB")
        site.change(other)
        between = 0
        async with asyncio.timeout(SECONDS):
            while site.in_force() != other:
                assert await site.ask("livez") == (200, "ok\n")
                _, told = await site.ask("readyz")
                between += "[-] serving going on by another configuration" in told
                await asyncio.sleep(0.02)
        # One that waited for the end of the turn would not be told of what comes before it.
        assert between > 1
        assert (await reader.read(12)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_handshake_under_way_is_not_cut_off(site: Site) -> None:
    """A client that is in the middle of it when the turn ends is served."""
    async with serving(site):
        reader, writer = await site.connect(tls=False)
        await wait_accepted(writer)
        site.change(site.text(limits__body="70KiB"))
        async with asyncio.timeout(SECONDS):
            with capture_logs() as logs:
                while not any(line["event"].startswith("going on by another") for line in logs):
                    assert await site.ask("livez") == (200, "ok\n")
            await writer.start_tls(site.trusting, server_hostname="acme.corp.example")
            writer.write(b"GET /acme/directory HTTP/1.1\r\nHost: acme.corp.example\r\n\r\n")
            assert (await reader.read(12)).startswith(b"HTTP/1.1 200")
        writer.close()
        await site.wait_in_force(site.text(limits__body="70KiB"))


async def test_probe_that_waits_for_the_next_turn_is_answered_by_it(site: Site) -> None:
    """It came between the two, and is no job that the first has left."""
    async with serving(site):
        with capture_logs() as logs:
            site.change(site.text(limits__body="70KiB"))
            while not any(line["event"].startswith("going on by another") for line in logs):
                assert await site.ask("livez") == (200, "ok\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.health)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
        await site.wait_in_force(site.text(limits__body="70KiB"))


async def test_health_port_moves(site: Site) -> None:
    """The one before is closed; what does not start leaves it where it was."""
    async with serving(site):
        first, second = site.health, process.free_port()
        site.health = second
        text = site.text()
        site.change(text)
        await site.wait_in_force(text)
        assert not process.is_listening(first)
        taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        site.health = taken.sockets[0].getsockname()[1]
        broken = site.text()
        site.health = second
        site.change(broken)
        await site.wait_ready("[!] configuration", "cannot listen at")
        taken.close()
