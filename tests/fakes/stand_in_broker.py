"""A stand-in for the broker's side of the channel: it can be of another version, and it can lie.

It speaks real HTTPS to a real agent, certifies any identity, issues any certificate, and keeps
every message that came.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from agents import wire
from tests.peers import authority, process

__all__ = ["StandInBroker"]

BEAT_SECONDS: Final = 1.0
"""Between two comments on a stream; real brokers take longer, tests have no time for that."""


class StandInBroker:
    """One node's broker, on loopback, as long as an ``async with`` block.

    *version* is what it says it speaks; *extra* members go into whatever it sends.
    """

    def __init__(
        self, tmp: Path, *, version: str = "1.0", extra: Mapping[str, Any] | None = None
    ) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        self.version = version
        self._extra = dict(extra or {})
        self.port = process.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._root = authority.make_root("stand-in broker")
        self.certificates = authority.make_root("stand-in CA")
        server = authority.make_server(self._root, ["127.0.0.1"])
        self._files = authority.write_server_files(tmp / "tls", server, self._root)
        self.anchors = self._files[2]
        self.ca_anchors = tmp / "ca-anchors.pem"
        self.ca_anchors.write_bytes(self.certificates.certificate_pem)
        self.queue: list[dict[str, Any]] = []
        self.batches: list[wire.Batch] = []
        self.raw: list[bytes] = []
        """Batches as they came."""
        self.enrolments: list[dict[str, Any]] = []
        self.refuse: Callable[[wire.Message], wire.Refusal | None] = lambda _: None
        self.put_off: dict[str, int] = {}
        """Paths whose next request is answered 429, with the seconds after which to come again."""
        self.asked: list[tuple[str, float]] = []
        """Path of each request, and when it came by the loop's clock, in seconds."""
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

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

    async def start(self) -> None:
        """Listen."""

        @web.middleware
        async def note(request: web.Request, handler: Any) -> web.StreamResponse:
            return await self._note(request, handler)

        app = web.Application(client_max_size=wire.MAX_BATCH_BYTES, middlewares=[note])
        app.router.add_post(wire.PATHS["enrol"], self._enrol)
        app.router.add_post(wire.PATHS["identity"], self._identity)
        app.router.add_post(wire.PATHS["messages"], self._messages)
        app.router.add_get(wire.PATHS["messages"], self._poll)
        app.router.add_get(wire.PATHS["stream"], self._stream)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files[0], self._files[1])
        context.load_verify_locations(self._files[2])
        context.verify_mode = ssl.CERT_OPTIONAL
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()

    async def stop(self) -> None:
        """Go away, as a broker that is restarted does."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def pause(self) -> None:
        """Let a moment pass, for a test that looks at another process again and again."""
        await asyncio.sleep(process.POLL_SECONDS)

    # ---------------------------------------------------------------------------- what it says

    async def send(
        self, kind: str, body: Mapping[str, Any], *, seq: int | None = None, message_id: str = ""
    ) -> int:
        """Send a message and return its number; *seq* is its own unless another is given."""
        number = len(self.queue) + 1 if seq is None else seq
        document = {
            "id": message_id or f"m{len(self.queue)}",
            "kind": kind,
            "seq": number,
            "body": {**body, **self._extra},
            **self._extra,
        }
        async with self._changed:
            self.queue.append(document)
            self._changed.notify_all()
        return number

    def issue(
        self,
        csr_der: bytes | None,
        names: Sequence[str],
        *,
        lifetime: datetime.timedelta = datetime.timedelta(days=1),
        begins: datetime.timedelta = datetime.timedelta(hours=-1),
        issuer: authority.Signer | None = None,
        usages: Collection[str] | None = None,
    ) -> tuple[str, str]:
        """Return a chain in PEM and the SHA-256 of its key; without a CSR for a key of its own.

        *usages* are its key usages as the library names them; none are stated unless given.
        """
        signer = issuer or self.certificates
        if csr_der is None:
            public: Any = ec.generate_private_key(ec.SECP256R1()).public_key()
        else:
            public = x509.load_der_x509_csr(csr_der).public_key()
        now = authority.real_now()
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(signer.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + begins + lifetime)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(authority.key_identifier_of(signer), critical=False)
        )
        if usages is not None:
            made = made.add_extension(_key_usage(usages), critical=True)
        der = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signed = made.sign(signer.key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM).decode()
        return pem, hashlib.sha256(der).hexdigest()

    # ---------------------------------------------------------------------------- what it hears

    def heard(self, kind: str) -> list[wire.Message]:
        """Return what came of a kind, oldest first, each message once."""
        found = {
            message.id: message
            for batch in self.batches
            for message in batch.messages
            if message.kind == kind
        }
        return list(found.values())

    async def hear(
        self,
        kind: str,
        *,
        number: int = 1,
        where: Callable[[wire.Message], bool] = lambda _: True,
        seconds: float = 30,
    ) -> list[wire.Message]:
        """Wait for messages of a kind and return them all; raises TimeoutError."""

        def found() -> list[wire.Message]:
            return [message for message in self.heard(kind) if where(message)]

        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= number)
        return found()

    async def acknowledged(self, seq: int, *, seconds: float = 30) -> None:
        """Wait until the agent has taken everything up to *seq* in."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(
                lambda: max((batch.ack for batch in self.batches), default=0) >= seq
            )

    # ------------------------------------------------------------------------------- the wire

    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.path, asyncio.get_running_loop().time()))
        seconds = self.put_off.pop(request.path, None)
        if seconds is None:
            found: web.StreamResponse = await handler(request)
            return found
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many requests"}
        headers = {"Retry-After": str(seconds)}
        return web.json_response(problem, status=429, headers=headers)

    async def _enrol(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.enrolments.append(asked)
        return self._certified(asked["csr_der"], asked["node"])

    async def _identity(self, request: web.Request) -> web.Response:
        asked = await request.json()
        return self._certified(asked["csr_der"], "renewed")

    def _certified(self, csr: str, node: str) -> web.Response:
        key: Any = x509.load_der_x509_csr(wire.decode_bytes(csr, "csr_der")).public_key()
        now = authority.real_now()
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._root.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - authority.BACKDATE)
            .not_valid_after(now + datetime.timedelta(days=7))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("n1.node.penstock.internal")]),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(authority.key_identifier_of(self._root), critical=False)
            .sign(self._root.key, hashes.SHA256())
        )
        chain = made.public_bytes(serialization.Encoding.PEM) + self._root.certificate_pem
        document = {
            "version": self.version,
            "node": node,
            "node_id": "n1",
            "chain_pem": chain.decode(),
            "beat_seconds": 20,
            **self._extra,
        }
        return web.json_response(document)

    async def _messages(self, request: web.Request) -> web.Response:
        raw = await request.read()
        batch = wire.parse_batch(raw)
        refused = [one for one in map(self.refuse, batch.messages) if one is not None]
        gone = {one.id for one in refused}
        async with self._changed:
            self.raw.append(raw)
            self.batches.append(batch)
            self._changed.notify_all()
        accepted = [message.id for message in batch.messages if message.id not in gone]
        return self._reply(accepted, refused, [])

    async def _poll(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        wait = min(float(request.query.get("wait", "0")), 5.0)
        try:
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(lambda: bool(self._past(after)))
        except TimeoutError:
            pass
        return self._reply([], [], self._past(after))

    def _reply(
        self,
        accepted: list[str],
        refused: Sequence[wire.Refusal],
        messages: list[dict[str, Any]],
    ) -> web.Response:
        document = {
            "version": self.version,
            "accepted": accepted,
            "refused": [
                {"id": one.id, "reason": one.reason, "is_final": one.is_final} for one in refused
            ],
            "messages": messages,
            **self._extra,
        }
        return web.json_response(document)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.headers["Cache-Control"] = "no-store"
        await response.prepare(request)
        sent = 0
        after = int(request.query.get("after", "0"))
        await response.write(b": beat\n\n")
        while True:
            for document in self.queue[sent:]:
                if document["seq"] > after:
                    text = json.dumps(document)
                    event = f"id: {document['seq']}\nevent: message\ndata: {text}\n\n"
                    await response.write(event.encode())
            sent = len(self.queue)
            try:
                async with asyncio.timeout(BEAT_SECONDS), self._changed:
                    await self._changed.wait_for(partial(self._has_past, sent))
            except TimeoutError:
                await response.write(b": beat\n\n")

    def _has_past(self, known: int) -> bool:
        return len(self.queue) > known

    def _past(self, after: int) -> list[dict[str, Any]]:
        return [one for one in self.queue if one["seq"] > after]


KEY_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
"""Every key usage, as the library names them (RFC 5280 §4.2.1.3)."""


def _key_usage(usages: Collection[str]) -> x509.KeyUsage:
    """Return the extension that states *usages* and no other."""
    return x509.KeyUsage(**{one: one in usages for one in KEY_USAGES})
