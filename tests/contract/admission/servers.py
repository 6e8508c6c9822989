"""An API server and a broker over real HTTPS, as far as admission asks them."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from broker.admission.asking import PATH
from broker.admission.cluster_api import Gone, NotThere, Selection
from broker.issuance.errors import Conflict
from tests.fakes.fake_cluster import FakeCluster
from tests.peers import authority, process

__all__ = ["ApiServer", "BrokerApi", "Standing", "standing"]

PAGE_OBJECTS = 2
"""Objects in one page, whatever is asked for: so that lists have several."""


class Standing:
    """A server that stands."""

    def __init__(self, url: str, ca_bundle: Path, root: authority.Signer) -> None:
        self.url = url
        self.ca_bundle = ca_bundle
        self.root = root


@asynccontextmanager
async def standing(
    app: web.Application, folder: Path, *, most: ssl.TLSVersion | None = None
) -> AsyncIterator[Standing]:
    """Serve *app* over TLS, under a root of its own."""
    root = authority.make_root("server")
    server = authority.make_server(root, ["127.0.0.1", "localhost"])
    certificate, key, ca_bundle = authority.write_server_files(folder, server, root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if most is not None:
        context.maximum_version = most
    port = process.free_port()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield Standing(f"https://127.0.0.1:{port}", ca_bundle, root)
    finally:
        await runner.cleanup()


class ApiServer:
    """Serves a cluster in memory as an API server does."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.token = "api-token"
        self.said: list[tuple[int, str] | bytes] = []
        """What the next requests are answered with, instead of what is so."""
        self.queries: list[dict[str, str]] = []
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        self.queries.append(dict(request.query))
        if self.said:
            said = self.said.pop(0)
            return web.Response(body=said) if isinstance(said, bytes) else _status(*said)
        try:
            return await self._done(request)
        except NotThere as error:
            return _status(404, str(error))
        except Conflict as error:
            return _status(409, str(error))

    async def _done(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            query = request.query
            selection = Selection(
                request.path, query.get("labelSelector", ""), query.get("fieldSelector", "")
            )
            if query.get("watch") == "true":
                return await self._watch(request, selection)
            return await self._list(selection, int(query.get("continue") or 0))
        document = await request.json()
        if request.method == "POST":
            await self.cluster.create(request.path, document)
        elif request.content_type == "application/merge-patch+json":
            await self.cluster.merge(request.path, document)
        else:
            assert request.content_type == "application/json-patch+json"
            await self.cluster.change(request.path, document)
        return web.json_response({"kind": "Whatever"}, status=201)

    async def _list(self, selection: Selection, begin: int) -> web.Response:
        listed = await self.cluster.list(selection, dict)
        end = begin + PAGE_OBJECTS
        following = str(end) if end < len(listed.items) else ""
        metadata = {"resourceVersion": listed.version, "continue": following}
        return web.json_response({"items": list(listed.items[begin:end]), "metadata": metadata})

    async def _watch(self, request: web.Request, selection: Selection) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        bookmark = {"metadata": {"resourceVersion": str(self.cluster.version)}}
        await _tell(response, "BOOKMARK", bookmark)
        try:
            async for kind, document in self.cluster.watch(
                selection, request.query["resourceVersion"]
            ):
                await _tell(response, kind, document)
        except Gone as error:
            await _tell(response, "ERROR", {"code": 410, "message": str(error)})
        return response


async def _tell(response: web.StreamResponse, kind: str, document: Any) -> None:
    await response.write(json.dumps({"type": kind, "object": document}).encode() + b"\n")


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


class BrokerApi:
    """Answers reviews as a test says."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any]]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.before: Callable[[], Awaitable[object]] | None = None
        self.app = web.Application()
        self.app.router.add_post(PATH, self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers["Authorization"])
        self.asked.append(await request.json())
        if self.before is not None:
            await self.before()
        status, body = self.answer(self.asked[-1])
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        return web.json_response(body, status=status)
