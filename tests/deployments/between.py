"""A man in the middle of the broker and a real CA or Vault: holds, drops and replaces what passes.

The CA signs nothing of its answers, and names its URLs after the Host header, so it is the same
CA at another port.  It runs in a thread of its own, so that a test may wait for processes.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from tests.peers import authority, process
from tests.peers.loops import LoopThread

__all__ = ["Aim", "Between"]

HOP_HEADERS: Final = frozenset({"transfer-encoding", "connection", "content-length", "date"})
"""Headers that belong to one connection."""

HELD_SECONDS: Final = 60.0
"""Longest that a request is held: no test takes so long."""


@dataclass
class Aim:
    """One request that is dealt with otherwise: the first whose path matches."""

    path: str
    """A regular expression, searched for in the path."""
    reaches_ca: bool = True
    """Whether the CA gets it, and acts on it."""
    status: int | None = None
    """Answer this instead of what the CA says; None: hold it and say nothing."""
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer, besides its type or instead of it: where a redirect leads."""
    seconds: float | None = None
    """Pass on what the CA says, so much later; what is asked waits before it gets there."""
    gate: threading.Event | None = None
    """Pass on what the CA says once this is set; what is asked waits before it gets there."""
    is_cut: bool = False
    """Whether the connection is cut instead of an answer."""
    stays: bool = False
    """Whether every request that matches is dealt with so, until `Between.stop_aiming`."""
    count: int = 0
    """How many requests were dealt with so."""
    struck: threading.Event = field(default_factory=threading.Event)
    """Set when the request has come, and been to the CA if it was to."""


class Between:
    """An HTTPS server in front of the CA at *target_port*."""

    def __init__(self, tmp: Path, target_port: int, ca_bundle: Path) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        self.port = process.free_port()
        self._target = f"https://127.0.0.1:{target_port}"
        self._trust = ssl.create_default_context(cafile=str(ca_bundle))
        root = authority.make_root("in between")
        server = authority.make_server(root, ["127.0.0.1", "localhost"])
        certificate, key, self.ca_bundle = authority.write_server_files(tmp, server, root)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self.aims: list[Aim] = []
        self.paths: list[str] = []
        """Every path that was asked for."""
        self.connections = 0
        """How many connections were made to it so far."""
        self._known: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self._loop = LoopThread()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    def aim(self, path: str, **more: Any) -> Aim:
        """Deal with the next request whose path matches as *more* says."""
        made = Aim(path, **more)
        self.aims.append(made)
        return made

    def stop_aiming(self) -> None:
        """Let everything pass again; what is held already stays held."""
        self.aims.clear()

    def __enter__(self) -> Between:
        self._loop.start()
        self._loop.run(self._start())
        return self

    def __exit__(self, *ended: object) -> None:
        self._loop.run(self._stop())
        self._loop.stop()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, force_close=True),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=2**20)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        self._count(request)
        body = await request.read()
        try:
            return await self._deal_with(request, body)
        except aiohttp.ClientConnectionError:  # what is behind is away, and so is this
            self._cut(request)
            return web.Response(status=502)

    async def _deal_with(self, request: web.Request, body: bytes) -> web.Response:
        aim = next((one for one in self.aims if re.search(one.path, request.path)), None)
        if aim is None:
            return await self._ask(request, body)
        aim.count += 1
        if not aim.stays:
            self.aims.remove(aim)
        if aim.gate is not None:
            aim.struck.set()
            await asyncio.to_thread(aim.gate.wait, HELD_SECONDS)
            return await self._ask(request, body)
        if aim.seconds is not None:
            aim.struck.set()
            await asyncio.sleep(aim.seconds)
            return await self._ask(request, body)
        if aim.reaches_ca:
            answer = await self._ask(request, body)
            if b"badNonce" in answer.body:  # type: ignore[operator]
                self.aims.insert(0, aim)  # the client sends it again
                return answer
        aim.struck.set()
        if aim.is_cut:
            self._cut(request)
        elif aim.status is None:
            await asyncio.sleep(HELD_SECONDS)
        headers = {"Content-Type": "application/problem+json", **aim.headers}
        return web.Response(status=aim.status or 504, body=aim.body, headers=headers)

    def _cut(self, request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()

    def _count(self, request: web.Request) -> None:
        self.paths.append(request.path)
        if request.transport is not None and request.transport not in self._known:
            self._known.add(request.transport)
            self.connections += 1

    async def _ask(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        async with self._session.request(
            request.method,
            self._target + request.path_qs,
            data=body or None,
            headers=request.headers,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            response = web.Response(status=answer.status, body=content)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_HEADERS:
                    if name.lower() == "content-type":
                        response.headers[name] = value
                    else:
                        response.headers.add(name, value)
            return response
