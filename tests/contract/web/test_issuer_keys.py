"""Documents of an issuer over real HTTPS: an API server is particular about what is asked."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from broker.issuance.errors import Unreachable
from broker.web.issuer_keys import MAX_DOCUMENT_BYTES, HttpDocuments
from tests.peers import authority, process

AGENT = "penstock/test"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where it is, and by what it is trusted."""

    url: str
    ca_bundle: Path


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    """An API server that lets service accounts alone read its keys."""
    root = authority.make_root("kubernetes")
    made = authority.make_server(root, ["127.0.0.1"])
    certificate, key, ca_bundle = authority.write_server_files(tmp_path, made, root)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def keys(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer ours":
            raise web.HTTPUnauthorized
        if "application/jwk-set+json" not in request.headers["Accept"]:
            raise web.HTTPNotAcceptable
        return web.Response(body=b"{}", content_type="application/jwk-set+json")

    async def endless(_request: web.Request) -> web.Response:
        return web.Response(body=b" " * (MAX_DOCUMENT_BYTES + 1))

    app = web.Application()
    app.add_routes([web.get("/openid/v1/jwks", keys), web.get("/endless", endless)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = process.free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    yield Issuer(f"https://127.0.0.1:{port}", ca_bundle)
    await runner.cleanup()


async def test_key_set_of_an_api_server_is_read_by_our_own_token(issuer: Issuer) -> None:
    """In the only type that it has; without the token, or with an old one, the answer is no."""
    url = f"{issuer.url}/openid/v1/jwks"
    ours = HttpDocuments(issuer.ca_bundle, AGENT, read_token=lambda: b"ours\n")
    assert await ours.read(url) == b"{}"
    for others in (
        HttpDocuments(issuer.ca_bundle, AGENT),
        HttpDocuments(issuer.ca_bundle, AGENT, read_token=lambda: b"old"),
    ):
        with pytest.raises(Unreachable, match="answered 401"):
            await others.read(url)


async def test_what_is_no_answer_of_the_issuer(issuer: Issuer) -> None:
    """Too much, or by a server that another root certifies: nothing is shown to that one."""
    with pytest.raises(Unreachable, match="is larger than"):
        await HttpDocuments(issuer.ca_bundle, AGENT).read(f"{issuer.url}/endless")
    with pytest.raises(Unreachable):
        await HttpDocuments(None, AGENT, read_token=lambda: b"ours").read(f"{issuer.url}/endless")
