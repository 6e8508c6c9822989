"""A whole broker on loopback: each listener answers, and nothing is left of it in the end."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from broker.app import open_offline, serve
from broker.app.config_keeping import ReadConfig
from broker.app.kept_config import Beginning
from broker.config import Config
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.storage.sqlite import SqliteStore
from broker.web.listeners import start_tcp
from tests.peers import process
from tests.unit.config.conftest import parsed

ANNA = Actor("operator:anna")
START_SECONDS = 60
"""Longest wait for a broker to be ready; on an idle core it takes half a second."""


class Site:
    """A state directory with its ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.acme, self.plain, self.health = (process.free_port() for _ in range(3))

    @property
    def config(self) -> Config:
        """Return the configuration as it is now."""
        here = "127.0.0.1"
        return parsed(
            {
                "external_url": f"https://{here}:{self.acme}",
                "state": str(self.directory / "state"),
                "keys.passphrase": f"file:{self.directory}/passphrase",
                "listen.acme.address": f"{here}:{self.acme}",
                "listen.plain": {"address": f"{here}:{self.plain}"},
                "listen.health": {"address": f"{here}:{self.health}"},
                "upstreams.local.base_url": f"http://{here}:{self.plain}",
            }
        )

    async def root_pem(self) -> str:
        """Return the root of the built-in CA."""
        async with open_offline(self.config) as operations:
            shown: Any = await operations.ca_show()
        return str(shown["root_pem"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a built-in CA in it: stretching its passphrase takes a while."""
    directory = tmp_path_factory.mktemp("made")
    passphrase = directory / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("a passphrase for this test")

    async def make() -> None:
        async with open_offline(Site(directory).config) as operations:
            await operations.ca_init(actor=ANNA)

    asyncio.run(make())
    return directory


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Site:
    """A copy of it, with ports of its own."""
    shutil.copytree(made, tmp_path / "site")
    return Site(tmp_path / "site")


@asynccontextmanager
async def started(
    site: Site, *, linger: timedelta = timedelta(0)
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve, ready from the block's beginning on; in the end it is cancelled."""
    first = Beginning(reading=ReadConfig(config=site.config), linger=linger)
    task = asyncio.create_task(serve(first))
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
            while not await is_ready(session, site):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[asyncio.Task[None]]:
    """Serve until the block ends, ready from its beginning on."""
    async with started(site) as task:
        yield task
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def is_ready(session: aiohttp.ClientSession, site: Site) -> bool:
    """Ask the health listener."""
    try:
        async with session.get(f"http://127.0.0.1:{site.health}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectorError:
        return False


async def fetch(url: str, **options: Any) -> bytes:
    """GET *url*, which answers 200."""
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_clients_find_the_directory_behind_a_certificate_of_the_root(site: Site) -> None:
    """Whoever trusts the root trusts the broker; whoever does not is not let in by mistake."""
    trusting = ssl.create_default_context(cadata=await site.root_pem())
    url = f"https://127.0.0.1:{site.acme}/acme/directory"
    async with serving(site), aiohttp.ClientSession() as session:
        async with session.get(url, ssl=trusting) as answer:
            directory = await answer.json()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
    assert directory["newOrder"].startswith(f"https://127.0.0.1:{site.acme}/acme/default/")
    assert set(directory["meta"]["profiles"]) >= {"server"}


async def test_issuer_and_revocation_list_are_where_the_certificate_says(site: Site) -> None:
    """Over plain HTTP, as a verifier that is just looking at a chain fetches them."""
    async with serving(site):
        leaf = x509.load_pem_x509_certificate((site.config.state / "tls/tls.crt").read_bytes())
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        (issuer_url,) = [
            one.access_location.value
            for one in access
            if one.access_method == AuthorityInformationAccessOID.CA_ISSUERS
        ]
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        (crl_url,) = [name.value for point in points for name in point.full_name or ()]
        issuer = x509.load_der_x509_certificate(await fetch(issuer_url))
        crl = x509.load_der_x509_crl(await fetch(crl_url))
        for url in (issuer_url, crl_url):
            with pytest.raises(AssertionError):
                await fetch(url.replace("ca-local", "ca-other"))
    leaf.verify_directly_issued_by(issuer)
    issuer_key: Any = issuer.public_key()
    assert crl.is_signature_valid(issuer_key)


async def test_probes_and_metrics_have_a_port_of_their_own(site: Site) -> None:
    """Clients of the ACME listener never see them."""
    trusting = ssl.create_default_context(cadata=await site.root_pem())
    async with serving(site), aiohttp.ClientSession() as session:
        assert await fetch(f"http://127.0.0.1:{site.health}/livez") == b"ok\n"
        page = await fetch(f"http://127.0.0.1:{site.health}/metrics")
        assert b"penstock_store_up 1.0" in page
        url = f"https://127.0.0.1:{site.acme}/metrics"
        async with session.get(url, ssl=trusting) as answer:
            assert answer.status == 404


async def test_operator_reaches_the_running_broker_by_its_socket(site: Site) -> None:
    """And nobody else does: its mode is 0600."""
    path = site.config.operator_socket
    async with serving(site):
        assert path.stat().st_mode & 0o777 == 0o600
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            body = {"command": "status", "arguments": {}, "reason": None}
            async with session.post("/v1/command", json=body) as answer:
                status = (await answer.json())["result"]
    assert set(status["policies"]) == {"default"}


async def test_broker_that_is_told_to_stop_leaves_nothing_behind(site: Site) -> None:
    """Every port is closed, the store is free, and the next start is like the first."""
    for _ in range(2):
        async with serving(site) as task:
            pass
        assert task.done()
        assert task.exception() is None
        for port in (site.acme, site.plain, site.health):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
    async with open_offline(site.config) as operations:
        assert await operations.status()


async def test_broker_that_lingers_is_not_ready_and_serves_whoever_still_comes(site: Site) -> None:
    """Until the time is over; the twin without it is the test before this one."""
    trusting = ssl.create_default_context(cadata=await site.root_pem())
    async with started(site, linger=timedelta(days=1)) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
            while await is_ready(session, site):
                pass
            async with session.get(f"http://127.0.0.1:{site.health}/readyz") as answer:
                assert "the broker is ending" in await answer.text()
        assert await fetch(f"http://127.0.0.1:{site.health}/livez") == b"ok\n"
        assert await fetch(f"https://127.0.0.1:{site.acme}/acme/directory", ssl=trusting)
        assert not task.done()
    async with started(site, linger=timedelta(milliseconds=1)) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", site.acme)


async def test_service_manager_is_told_when_it_serves_and_when_it_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first of both on, a hang-up is a wish and not the end."""
    path = site.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(START_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        async with serving(site) as task:
            assert await asyncio.to_thread(manager.recv, 64) == b"READY=1"
            os.kill(os.getpid(), signal.SIGHUP)
        assert task.exception() is None
        assert manager.recv(64) == b"STOPPING=1"


@pytest.mark.parametrize("name", ["acme", "plain", "health"])
async def test_port_that_is_taken_stops_the_whole_start(site: Site, name: str) -> None:
    """A broker that serves by halves would be found out by its clients."""
    port = getattr(site, name)
    other = await start_tcp(web.Application(), host="127.0.0.1", port=port)
    with pytest.raises(Broken, match=f"cannot listen at 127.0.0.1:{port}: .*in use"):
        await serve(Beginning(reading=ReadConfig(config=site.config)))
    for own in {site.acme, site.plain, site.health} - {port}:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", own)
    await other.stop()
    async with serving(site):
        pass


async def test_broker_without_its_ca_does_not_start(site: Site) -> None:
    """It would have no certificate to show."""
    store = await SqliteStore.open(site.config.state / "penstock.db")
    await store.replace_ca_members("local", [], None)
    await store.close()
    with pytest.raises(Broken, match="has not been made; run penstock ca init first"):
        await serve(Beginning(reading=ReadConfig(config=site.config)))
