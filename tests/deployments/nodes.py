"""A Penstock that serves nodes, and a plain agent of few lines that speaks to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from agents import wire
from broker.clock import SystemClock
from tests.deployments.penstock import Penstock
from tests.peers import process

NODE_CA: Final = "nodes"
"""The built-in CA that certifies nodes."""

ANSWER_SECONDS: Final = 30
"""Longest wait for an answer, in seconds: a long poll is held for less in tests."""

SMALL_BYTES: Final = 1024
"""Buffer and segment of a connection that is to be full soon, in bytes."""


class NodesPenstock(Penstock):
    """A broker with a node CA and a listener for agents, beside what `Penstock` has."""

    def __init__(
        self, tmp: Path, *, agents: Mapping[str, Any] | None = None, lifetime: str = "7d",
        **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(tmp, validation_http_port=more.pop("validation_http_port", 1), **more)
        self.agents_port = process.free_port()
        self.agents_url = f"https://127.0.0.1:{self.agents_port}"
        self._agents = dict(agents or {})
        self._identity_lifetime = lifetime

    def config_document(self) -> dict[str, Any]:
        """Return the configuration, with agents."""
        document = super().config_document()
        document["listen"]["agents"] = {"address": f"127.0.0.1:{self.agents_port}"}
        document["upstreams"][NODE_CA] = {
            "kind": "built-in",
            "base_url": f"http://127.0.0.1:{self.plain_port}",
            "profiles": {
                "node": {
                    "usages": ["client-auth"],
                    "lifetime": self._identity_lifetime,
                    "max_lifetime": "30d",
                }
            },
        }
        identity = {"upstream": NODE_CA, **self._agents.get("identity", {})}
        document["agents"] = {**self._agents, "identity": identity}
        return document

    def prepare(self) -> None:
        """Make both CAs."""
        super().prepare()
        self.run("ca", "init", "--upstream", NODE_CA, "--permit-name", "node.penstock.internal")

    def token(self, node: str, *options: str) -> str:
        """Mint a join token for *node*."""
        made: str = self.json("node", "token", "--node", node, *options)["token"]
        return made


class PlainAgent:
    """An agent of few lines: one key, one identity, one request at a time."""

    def __init__(self, url: str, anchors: Path, folder: Path, name: str) -> None:
        self.host = url.removeprefix("https://")
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.chain_pem: str | None = None
        self.is_signing = False
        self.version = wire.VERSION
        self.more: dict[str, Any] = {}
        """Members that are added to every body, as a later version might have them."""
        self._anchors = anchors
        self._folder = folder

    # ------------------------------------------------------------------------------- identity

    def csr(self, key: ec.EllipticCurvePrivateKey | None = None) -> str:
        """Return a request for an identity, as it stands in a body."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = builder.sign(key or self.key, hashes.SHA256())
        return wire.encode_bytes(signed.public_bytes(Encoding.DER))

    def enrol(self, **given: Any) -> tuple[int, Any]:
        """Ask to be let in, and keep the identity if it is given."""
        body = {
            "version": str(self.version), "node": self.name, "csr_der": self.csr(),
            "agent": "0.0", "facts": {}, **self.more, **given,
        }  # fmt: skip
        is_signed = given.get("method") == "former"
        status, answer = self.ask("POST", "enrol", body, is_shown=False, is_signed=is_signed)
        if status == 200:
            self.chain_pem = answer["chain_pem"]
        return status, answer

    def renew(self) -> tuple[int, Any]:
        """Ask for another identity."""
        body = {"version": str(self.version), "csr_der": self.csr(), **self.more}
        status, answer = self.ask("POST", "identity", body)
        if status == 200:
            self.chain_pem = answer["chain_pem"]
        return status, answer

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity certificate."""
        leaf = x509.load_pem_x509_certificates((self.chain_pem or "").encode())[0]
        return hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()

    # ------------------------------------------------------------------------------- messages

    def post(self, *messages: wire.Message, ack: int = 0) -> tuple[int, Any]:
        """Post messages, and acknowledge."""
        batch = wire.Batch(self.version, ack, messages).encode()
        if self.more:
            batch = json.dumps({**json.loads(batch), **self.more}).encode()
        return self.ask_raw("POST", "messages", batch)

    def poll(self, after: int = 0, wait: int = 0) -> tuple[int, Any]:
        """Ask for what waits."""
        return self.ask("GET", f"messages?after={after}&wait={wait}")

    @contextlib.contextmanager
    def streaming(
        self, after: int = 0, *, is_small: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the open stream; a small one has room for a few KiB on its way."""
        connection = self.connection()
        try:
            if is_small:
                connection.sock = self._small_socket()
            headers = self._headers("GET", f"stream?after={after}", b"")
            connection.request("GET", f"/agent/v1/stream?after={after}", headers=headers)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    # --------------------------------------------------------------------------------- requests

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **how: Any
    ) -> tuple[int, Any]:
        """Do one request with a JSON body and return status and answer."""
        octets = b"" if body is None else json.dumps(body).encode()
        return self.ask_raw(method, path, octets, **how)

    def ask_raw(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        is_shown: bool = True,
        is_signed: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Do one request and return status and answer."""
        connection = self.connection(is_shown=is_shown)
        try:
            made = self._headers(method, path, body, is_signed=is_signed)
            connection.request(
                method, f"/agent/v1/{path}", body=body or None, headers={**made, **(headers or {})}
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def connection(self, *, is_shown: bool = True) -> http.client.HTTPSConnection:
        """Return a connection that shows the identity, unless requests are signed."""
        context = self._context(is_shown=is_shown)
        return http.client.HTTPSConnection(self.host, timeout=ANSWER_SECONDS, context=context)

    def _small_socket(self) -> ssl.SSLSocket:
        """Return a connection whose buffers are small on both sides: the broker's kernel measures
        its own by the segments that the other one takes."""
        host, _, port = self.host.rpartition(":")
        plain = socket.socket()
        plain.settimeout(ANSWER_SECONDS)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_BYTES)
        plain.connect((host, int(port)))
        return self._context(is_shown=True).wrap_socket(plain, server_hostname=host)

    def _context(self, *, is_shown: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._anchors))
        if self.chain_pem is not None and is_shown and not self.is_signing:
            path = self._folder / f"{self.name}-{secrets.token_hex(4)}.pem"
            key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            path.write_text(key + self.chain_pem)
            context.load_cert_chain(path)
        return context

    def _headers(
        self, method: str, path: str, body: bytes, *, is_signed: bool = False
    ) -> dict[str, str]:
        headers = {"Content-Type": "application/json"} if body else {}
        if not (self.is_signing or is_signed) or self.chain_pem is None:
            return headers
        return headers | self.signed(method, path, body)

    def signed(
        self, method: str, path: str, body: bytes, created: int | None = None
    ) -> dict[str, str]:
        """Return the headers of a signed request (RFC 9421)."""
        if created is None:
            created = int(SystemClock().now().timestamp())
        digest = wire.content_digest(body)
        parameters = wire.signature_input(
            created=created, nonce=secrets.token_urlsafe(16), key_id=self.fingerprint
        )
        bare, _, query = path.partition("?")
        base = wire.signature_base(
            method=method, path=f"/agent/v1/{bare}", query=f"?{query}", digest=digest,
            parameters=parameters,
        )  # fmt: skip
        r, s = utils.decode_dss_signature(self.key.sign(base, ec.ECDSA(hashes.SHA256())))
        octets = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return {
            "Content-Digest": digest,
            "Signature-Input": f"penstock={parameters}",
            "Signature": f"penstock=:{base64.b64encode(octets).decode()}:",
        }
