"""A bare ACME client over a session of the test's making, that signs exactly what it is told to.

It follows no directory: each URL, header member and nonce is the test's to choose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from broker.protocol.jws import Jwk, jwk_from_public_key, seal, signing_input

JOSE = "application/jose+json"


@dataclass(frozen=True)
class RawAnswer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body's object."""
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def problem(self) -> str:
        """Return the problem type without its prefix."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.body
        return str(self.json()["type"]).rpartition(":")[2]


@dataclass
class RawClient:
    """Speaks over *session* to the broker that calls itself *origin*."""

    session: aiohttp.ClientSession
    origin: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    kid: str | None = None

    @property
    def jwk(self) -> Jwk:
        """Return the public half of the key."""
        return jwk_from_public_key(self.key.public_key())

    async def send(
        self, method: str, url: str, body: bytes | None = None, **headers: str
    ) -> RawAnswer:
        """Send one request as it is; underscores in names of headers stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, url, data=body, headers=named, allow_redirects=False
        ) as response:
            return RawAnswer(response.status, response.headers.copy(), await response.read())

    async def nonce(self, community: str = "default") -> str:
        """Return a fresh nonce."""
        answer = await self.send("HEAD", f"{self.origin}/acme/{community}/new-nonce")
        return str(answer.headers["Replay-Nonce"])

    def sign(self, url: str, payload: object | None, nonce: str, **header: object) -> bytes:
        """Return a request body; *header* replaces members of the header, None removes them."""
        protected: dict[str, object] = {"alg": "ES256", "nonce": nonce, "url": url}
        if self.kid is not None:
            protected["kid"] = self.kid
        else:
            protected["jwk"] = self.jwk.to_json()
        protected.update(header)
        protected = {name: value for name, value in protected.items() if value is not None}
        octets = b"" if payload is None else json.dumps(payload).encode()
        message = signing_input(protected, octets)
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return seal(message, r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    async def post(self, url: str, payload: object | None = None, **header: object) -> RawAnswer:
        """Sign and send; a nonce is fetched unless *header* brings one."""
        nonce = header.pop("nonce", None) or await self.nonce()
        body = self.sign(url, payload, str(nonce), **header)
        return await self.send("POST", url, body, Content_Type=JOSE)

    async def register(self, community: str = "default") -> RawAnswer:
        """Make an account and keep its URL."""
        url = f"{self.origin}/acme/{community}/new-account"
        answer = await self.post(url, {"termsOfServiceAgreed": True})
        self.kid = str(answer.headers["Location"])
        return answer
