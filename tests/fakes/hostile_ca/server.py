"""The hostile CA over HTTPS: where requests are counted and faults strike."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from tests.fakes.hostile_ca.envelope import Refused, open_request
from tests.fakes.hostile_ca.ledger import Counter, Ledger
from tests.fakes.hostile_ca.resources import Reply, Resources
from tests.fakes.hostile_ca.script import Fault, Resource, Script
from tests.peers import authority, process

SHUTDOWN_SECONDS: Final = 0.2
"""How long hanging requests may go on when the CA stops; nobody waits for them."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest request that is read; a broker sends nothing near it."""

SEEN_SECONDS: Final = 90.0


class HostileCa:
    """An ACME CA in this process that does as its script says.

    Use it as ``async with HostileCa(tmp) as ca``.  ``ca.script`` may be changed at
    any time; ``ca.ledger`` tells what really happened.
    """

    def __init__(
        self,
        tmp: Path,
        script: Script | None = None,
        *,
        port: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.script = script or Script()
        self.ledger = Ledger()
        self.port = port or process.free_port()
        self.address = address
        self.base_url = f"https://{address}:{self.port}"
        self.directory_url = f"{self.base_url}/{Resource.DIRECTORY}"
        self.resources = Resources(self.base_url, lambda: self.script, self.ledger)
        self._counter = Counter(self.ledger)
        self._released = asyncio.Event()
        root = authority.make_root("hostile HTTPS")
        server = authority.make_server(root, [address, "localhost"])
        self._files = authority.write_server_files(tmp, server, root)
        self.ca_bundle = self._files[2]
        self._runner: web.AppRunner | None = None

    def root_pem(self) -> bytes:
        """Return the root that honest certificates lead to."""
        return self.resources.issuer.root.certificate_pem

    def release(self) -> None:
        """Let every request go on that hangs now; later ones hang anew."""
        self._released.set()
        self._released = asyncio.Event()

    async def seen(
        self, resource: Resource, count: int = 1, *, seconds: float = SEEN_SECONDS
    ) -> None:
        """Return once *resource* has been asked for *count* times since the CA started."""
        async with asyncio.timeout(seconds):
            await self._counter.wait(resource, count)

    async def start(self) -> None:
        """Listen on the address, which is loopback unless a test has a network of its own."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_route("*", "/{resource}", self._serve)
        application.router.add_route("*", "/{resource}/{id}", self._serve)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._files[0], self._files[1])
        await web.TCPSite(self._runner, self.address, self.port, ssl_context=context).start()

    async def stop(self) -> None:
        """Stop listening; what the CA remembers stays, so it can be started again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            resource = Resource(request.match_info["resource"])
        except ValueError:
            return web.Response(status=404)
        id_ = request.match_info.get("id", "")
        await self._counter.add(resource, self.resources.records.order_id_of(resource, id_))
        fault = self.script.take_fault(resource)
        if fault is None:
            return self._http(request, self._reply(request, resource, id_, body))
        return await self._misbehave(request, resource, id_, body, fault)

    async def _misbehave(
        self, request: web.Request, resource: Resource, id_: str, body: bytes, fault: Fault
    ) -> web.StreamResponse:
        reply = self._reply(request, resource, id_, body) if fault.processed else None
        if fault.hang:
            await self._released.wait()
            return self._http(request, reply or self._reply(request, resource, id_, body))
        if fault.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        reply = reply or Reply()
        text = json.dumps(reply.document) if reply.document is not None else ""
        changed = Reply(
            status=fault.status or reply.status,
            body=(text if fault.body is None else fault.body).encode(),
            content_type=fault.content_type,
            headers={**reply.headers, **fault.headers},
        )
        return self._http(request, changed)

    def _reply(self, request: web.Request, resource: Resource, id_: str, body: bytes) -> Reply:
        if resource is Resource.DIRECTORY:
            return self.resources.directory()
        if resource is Resource.RENEWAL_INFO:
            return self.resources.renewal_info()
        if resource is Resource.NEW_NONCE:
            return Reply(status=200 if request.method == "HEAD" else 204)
        try:
            if request.method != "POST":
                raise Refused(405, "malformed", "POST is wanted")
            if request.content_type != "application/jose+json":
                raise Refused(415, "malformed", "application/jose+json is wanted")
            opened = open_request(
                body,
                f"{self.base_url}{request.path}",
                redeem_nonce=self.resources.records.redeem_nonce,
                jwk_of_account=self.resources.jwk_of_account,
            )
            return self.resources.perform(resource, id_, opened)
        except Refused as refused:
            document = {
                "type": f"urn:ietf:params:acme:error:{refused.problem}",
                "detail": refused.detail,
                "status": refused.status,
            }
            return Reply(refused.status, document, content_type="application/problem+json")

    def _http(self, request: web.Request, reply: Reply) -> web.Response:
        body = reply.body if reply.document is None else json.dumps(reply.document).encode()
        headers = {"Cache-Control": "no-store", "Content-Type": reply.content_type, **reply.headers}
        directory = self.resources.link(Resource.DIRECTORY)
        headers["Link"] = ", ".join(
            filter(None, [reply.headers.get("Link"), f'<{directory}>;rel="index"'])
        )
        if request.method != "GET":
            headers["Replay-Nonce"] = self.resources.records.new_nonce()
        return web.Response(status=reply.status, body=body, headers=headers)
