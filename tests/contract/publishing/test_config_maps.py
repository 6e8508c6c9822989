"""A ConfigMap over real HTTPS: read, patched where it differs, and never made."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker.issuance.errors import Broken, Unreachable
from broker.publishing.config_maps import MAX_TEXT_BYTES, ConfigMapPlace, KeptConfigMap
from tests.peers import authority, process

PATH = "/api/v1/namespaces/penstock/configmaps/penstock-trust"


class ApiServer:
    """The part of an API server that keeps one ConfigMap."""

    def __init__(self, tmp: Path) -> None:
        root = authority.make_root("kubernetes")
        made = authority.make_server(root, ["127.0.0.1"])
        certificate, key, self.ca_bundle = authority.write_server_files(tmp, made, root)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(certificate, key)
        self.port = process.free_port()
        self.data: dict[str, Any] | None = {}
        self.asked: list[str] = []
        self.answer: web.StreamResponse | None = None
        self.token = "good"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as the API does."""
        self.asked.append(request.method)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if self.answer is not None:
            return self.answer
        if self.data is None:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if request.method == "PATCH":
            assert request.content_type == "application/merge-patch+json"
            self.data |= (await request.json())["data"]
        found = {"kind": "ConfigMap", "metadata": {"name": "penstock-trust"}}
        # As the API does: where there is nothing there is no member.
        return web.json_response(found | ({"data": self.data} if self.data else {}))

    def kept(self, token: bytes = b"good\n") -> KeptConfigMap:
        """Return what keeps the key `ca.crt`, showing a token."""
        place = ConfigMapPlace(
            server=f"https://127.0.0.1:{self.port}/",
            namespace="penstock",
            name="penstock-trust",
            key="ca.crt",
        )
        return KeptConfigMap(
            place, lambda: token, ca_bundle=self.ca_bundle, user_agent="penstock/test"
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """One that runs, with an empty ConfigMap."""
    made = ApiServer(tmp_path)
    app = web.Application()
    app.router.add_route("*", PATH, made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port, ssl_context=made.tls).start()
    yield made
    await runner.cleanup()


async def test_text_is_put_where_it_is_not(server: ApiServer) -> None:
    """And what others keep there stays."""
    server.data = {"other": "theirs"}
    assert await server.kept().keep("roots") is None
    assert server.data == {"other": "theirs", "ca.crt": "roots"}
    assert await server.kept().keep("more") == "roots"
    assert server.data["ca.crt"] == "more"


async def test_text_that_is_there_is_left_alone(server: ApiServer) -> None:
    """Every write wakes whoever watches."""
    server.data = {"ca.crt": "roots"}
    assert await server.kept().keep("roots") == "roots"
    assert server.asked == ["GET"]


async def test_config_map_is_never_made(server: ApiServer) -> None:
    """Whoever installed the broker makes it, or has taken it away."""
    server.data = None
    with pytest.raises(Unreachable, match="GET was answered 404"):
        await server.kept().keep("roots")
    assert server.asked == ["GET"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (web.Response(body=b"no json"), "is no ConfigMap"),
        (web.Response(body=b"[]"), "is no ConfigMap"),
        (web.Response(body=json.dumps({"data": "x"}).encode()), "is no ConfigMap"),
        (web.Response(status=302, headers={"Location": "/"}), "answered 302"),
        (web.Response(body=b" " * (5 * 1024 * 1024)), "too large"),
    ],
    ids=["no JSON", "no object", "no data", "redirect", "endless"],
)
async def test_answers_that_are_none(
    server: ApiServer, answer: web.StreamResponse, told: str
) -> None:
    """Nothing is written upon them."""
    server.answer = answer
    with pytest.raises(Unreachable, match=told):
        await server.kept().keep("roots")
    assert server.asked == ["GET"]


async def test_token_is_read_each_time_and_has_to_be_good(server: ApiServer) -> None:
    """A projected one is rotated every hour."""
    with pytest.raises(Unreachable, match="answered 401"):
        await server.kept(b"old").keep("roots")
    kept = server.kept()
    shown = iter([b"good", b"new"])
    kept._read_token = lambda: next(shown)
    await kept.keep("roots")
    server.token = "new"
    assert await kept.keep("roots") == "roots"

    def missing() -> bytes:
        raise Broken("secret file:/token cannot be read")

    kept._read_token = missing
    with pytest.raises(Unreachable, match="our own token"):
        await kept.keep("roots")


async def test_server_of_another_root_is_shown_nothing(server: ApiServer, tmp_path: Path) -> None:
    """The token is for its own server."""
    kept = server.kept()
    other = tmp_path / "other.pem"
    other.write_bytes(authority.make_root("other").certificate_pem)
    kept._ca_bundle = other
    with pytest.raises(Unreachable):
        await kept.keep("roots")
    assert server.asked == []
    kept._ca_bundle = tmp_path / "none.pem"
    with pytest.raises(Broken):
        await kept.keep("roots")


async def test_more_than_a_config_map_holds_is_not_sent(server: ApiServer) -> None:
    """It would be refused, each time."""
    with pytest.raises(Broken, match="cannot hold"):
        await server.kept().keep("x" * (MAX_TEXT_BYTES + 1))
    assert server.asked == []
