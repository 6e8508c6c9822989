"""The agents' listener as an application: four paths, one door, bounded bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from agents import wire
from broker.channel.authentication import Authentication
from broker.channel.batches import Batches
from broker.channel.connections import BEAT_SECONDS
from broker.channel.door import busy, door
from broker.channel.ports import ChannelRooms
from broker.channel.shown import is_signed, shown_chain
from broker.channel.streams import Streams
from broker.issuance.joining import Joined
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod, EnrolmentRequest
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["create_channel_app"]

MAX_ENROL_BYTES: Final = 64 * 1024
"""Largest request to be let in, in bytes: a service-account token has under 2 KiB, and facts are
few."""

BODY_SECONDS: Final = 20
"""How long a body may take to arrive, in seconds."""

RETRY_REQUEST_SECONDS: Final = 15
"""When an agent whose request waits for a person asks again, in seconds."""

FORGET_EVERY_SECONDS: Final = 60
"""How often signatures that have grown old are forgotten, in seconds."""


def create_channel_app(
    rooms: ChannelRooms,
    authentication: Authentication,
    *,
    outer: Sequence[Middleware] = (),
    inner: Sequence[Middleware] = (),
) -> web.Application:
    """Return the application that agents speak to, behind the *outer* middlewares.

    What the *inner* ones refuse leaves by the door, like a refusal of the handlers.
    """
    channel = _Channel(rooms, authentication)
    middlewares = [*outer, door(), *inner]
    app = web.Application(middlewares=middlewares, client_max_size=wire.MAX_BATCH_BYTES)
    app.router.add_post(wire.PATHS["enrol"], channel.enrol)
    app.router.add_post(wire.PATHS["identity"], channel.identity)
    app.router.add_post(wire.PATHS["messages"], channel.post)
    app.router.add_get(wire.PATHS["messages"], channel.poll)
    app.router.add_get(wire.PATHS["stream"], channel.stream)
    app.on_response_prepare.append(_hide_software)
    app.cleanup_ctx.append(channel.living)
    app.on_shutdown.append(channel.shut_down)
    return app


async def _hide_software(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


class _Channel:
    """The handlers."""

    def __init__(self, rooms: ChannelRooms, authentication: Authentication) -> None:
        self._rooms = rooms
        self._authentication = authentication
        self._batches = Batches(rooms)
        self._streams = Streams(rooms)

    async def living(self, _app: web.Application) -> AsyncIterator[None]:
        """Beat, and forget old signatures, while the application lives."""

        async def forget() -> None:
            while True:
                await asyncio.sleep(FORGET_EVERY_SECONDS)
                self._authentication.nonces.forget_old()

        self._rooms.connections.start()
        forgetting = asyncio.get_running_loop().create_task(forget())
        yield
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)

    async def shut_down(self, _app: web.Application) -> None:
        """Have agents come back later, before their connections are waited for."""
        await self._rooms.connections.stop()

    # ------------------------------------------------------------------------------- identity

    async def enrol(self, request: web.Request) -> web.StreamResponse:
        """Let a node in, or say that its request waits."""
        self._check_open()
        body = await _read(request, MAX_ENROL_BYTES)
        told = _object(body)
        asking = self._asking(request, told)
        if asking.method is EnrolmentMethod.FORMER:
            former = await self._authentication.former(request, body)
            asking = replace(asking, former=former)
        elif is_signed(request):
            # A signature was taken for a claim, so nothing was paid, and nobody would look at it.
            raise _malformed("only method 'former' is signed")
        outcome = await self._rooms.joining.enrol(asking)
        return _outcome(outcome, _version(told))

    async def identity(self, request: web.Request) -> web.StreamResponse:
        """Renew a node's identity."""
        self._check_open()
        body = await _read(request, MAX_ENROL_BYTES)
        node = await self._authentication.node(request, body)
        told = _object(body)
        version = _version(told)
        joined = await self._rooms.joining.renew(node, _csr(told))
        return _outcome(joined, version)

    def _asking(self, request: web.Request, told: dict[str, Any]) -> Asking:
        version = _version(told)
        try:
            method = EnrolmentMethod(str(told.get("method")))
        except ValueError:
            methods = ", ".join(EnrolmentMethod)
            raise _malformed(f"method is none of {methods}") from None
        facts = told.get("facts") or {}
        return Asking(
            method=method,
            node=str(told.get("node")),
            csr_der=_csr(told),
            credential=_text(told, "credential"),
            agent_version=printable(_text(told, "agent") or "", 80) or None,
            wire_version=str(version),
            request_id=_text(told, "request"),
            facts=facts if isinstance(facts, dict) else {},
            peer=request.remote,
            client_chain=shown_chain(request),
        )

    # ------------------------------------------------------------------------------- messages

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Take in a batch of messages."""
        body = await _read(request, wire.MAX_BATCH_BYTES)
        node = await self._authentication.node(request, body)
        self._check_open()
        reply = await self._batches.take(node, body)
        return web.Response(body=reply.encode(), content_type="application/json")

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer with what waits for the node."""
        node = await self._authentication.node(request, b"")
        wait = _count(request, "wait", 0)
        reply = await self._streams.poll(
            request, node, after=_count(request, "after", 0), wait=wait
        )
        return web.Response(body=reply.encode(), content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send the node what waits, and what comes."""
        node = await self._authentication.node(request, b"")
        return await self._streams.stream(request, node, _count(request, "after", 0))

    def _check_open(self) -> None:
        if self._rooms.is_held():
            raise busy("this broker was restored and changes nothing yet, come again later")


# ------------------------------------------------------------------------------------ bodies


async def _read(request: web.Request, limit: int) -> bytes:
    """Return the body; raises Problem when it is larger than *limit*, or slow."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise Problem(
            ProblemType.MALFORMED, f"body did not arrive within {BODY_SECONDS} s", status=408
        ) from None
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    return Problem(ProblemType.MALFORMED, f"body is past the limit of {limit} bytes", status=413)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed("body is no JSON") from None
    if not isinstance(found, dict):
        raise _malformed("body is no object")
    return found


def _version(told: dict[str, Any]) -> wire.Version:
    try:
        return wire.negotiate(wire.Version.parse(told.get("version")))
    except wire.WireFault as fault:
        raise _malformed(str(fault)) from fault


def _csr(told: dict[str, Any]) -> bytes:
    text = _text(told, "csr_der")
    if text is None:
        raise _malformed("body has no csr_der")
    try:
        return wire.decode_bytes(text, "csr_der")
    except wire.WireFault as fault:
        raise _malformed(str(fault)) from fault


def _text(told: dict[str, Any], name: str) -> str | None:
    found = told.get(name)
    return found if isinstance(found, str) else None


def _count(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _malformed(f"{name} is no count")
    return int(text)


def _malformed(detail: str) -> Problem:
    return Problem(ProblemType.MALFORMED, detail)


def _outcome(outcome: Joined | EnrolmentRequest, version: wire.Version) -> web.Response:
    if isinstance(outcome, EnrolmentRequest):
        document: dict[str, object] = {
            "version": str(version),
            "request": outcome.request_id,
            "fingerprint": outcome.spki_sha256,
            "retry_seconds": RETRY_REQUEST_SECONDS,
        }
        return web.json_response(document, status=202)
    document = {
        "version": str(version),
        "node": outcome.node.name,
        "node_id": outcome.node.node_id,
        "chain_pem": outcome.identity.chain_pem.decode("ascii"),
        "beat_seconds": BEAT_SECONDS,
    }
    return web.json_response(document)
