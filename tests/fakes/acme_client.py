"""A small ACME client that follows no rule it doesn't have to: for trying servers out.

It signs with ES256, keeps no state but its nonce, and lets a test send what no
decent client would.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.fakes.ending_connector import EndingConnector
from tests.fakes.hostile_ca.envelope import b64


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The last part of the problem's type; "" where the answer is none."""
        if self.headers.get("Content-Type") != "application/problem+json":
            return ""
        return str(self.json()["type"]).rpartition(":")[2]


class AcmeClient:
    """One account key and one connection pool; ``async with AcmeClient(...) as client``."""

    def __init__(self, directory_url: str, ca_bundle: Path) -> None:
        self.directory_url = directory_url
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.account_url: str | None = None
        self.directory: dict[str, Any] = {}
        self.nonce: str | None = None
        self._context = ssl.create_default_context(cafile=str(ca_bundle))
        self._session: aiohttp.ClientSession | None = None

    @property
    def jwk(self) -> dict[str, str]:
        """The account's public key."""
        numbers = self.key.public_key().public_numbers()
        x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=EndingConnector(ssl=self._context))
        self.directory = (await self.get(self.directory_url)).json()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, url: str) -> Answer:
        """Do a plain GET."""
        return await self._exchange("GET", url, None)

    async def fresh_nonce(self) -> str:
        """Ask for a nonce and return it."""
        answer = await self._exchange("HEAD", self.directory["newNonce"], None)
        return answer.headers["Replay-Nonce"]

    async def post(
        self,
        url: str,
        payload: Any = None,
        *,
        by_key: bool = False,
        header: Mapping[str, Any] | None = None,
        spoil_signature: bool = False,
    ) -> Answer:
        """Send a signed request; *payload* None makes it POST-as-GET.

        *header* replaces members of the protected header, for requests that lie.
        """
        if self.nonce is None:
            self.nonce = await self.fresh_nonce()
        whose = {"jwk": self.jwk} if by_key else {"kid": self.account_url}
        protected = {"alg": "ES256", "nonce": self.nonce, "url": url, **whose, **(header or {})}
        self.nonce = None
        parts = [
            b64(json.dumps(protected).encode()),
            "" if payload is None else b64(json.dumps(payload).encode()),
        ]
        r, s = decode_dss_signature(
            self.key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256()))
        )
        signature = bytearray(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        if spoil_signature:
            signature[-1] ^= 1
        names = ("protected", "payload", "signature")
        jws = dict(zip(names, [*parts, b64(bytes(signature))], strict=True))
        return await self._exchange("POST", url, json.dumps(jws).encode())

    async def register(self, **members: Any) -> Answer:
        """Create or find the account of this key."""
        payload = {"termsOfServiceAgreed": True, **members}
        answer = await self.post(self.directory["newAccount"], payload, by_key=True)
        self.account_url = answer.headers.get("Location")
        return answer

    async def order(self, *names: str, **members: Any) -> Answer:
        """Create an order."""
        identifiers = [{"type": "dns", "value": name} for name in names]
        return await self.post(self.directory["newOrder"], {"identifiers": identifiers, **members})

    async def prove(self, order: Mapping[str, Any]) -> None:
        """Say of one challenge of each authorization that it is ready."""
        for url in order["authorizations"]:
            authorization = (await self.post(url)).json()
            await self.post(authorization["challenges"][-1]["url"], {})

    async def finalize(
        self, order: Mapping[str, Any], csr: x509.CertificateSigningRequest
    ) -> Answer:
        """Send a CSR to the order."""
        der = csr.public_bytes(serialization.Encoding.DER)
        return await self.post(order["finalize"], {"csr": b64(der)})

    async def _exchange(self, method: str, url: str, body: bytes | None) -> Answer:
        assert self._session is not None
        headers = {"Content-Type": "application/jose+json"} if body is not None else {}
        async with self._session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            self.nonce = response.headers.get("Replay-Nonce", self.nonce)
            return Answer(response.status, response.headers, await response.read())


def make_csr(
    names: Sequence[str], key: ec.EllipticCurvePrivateKey | None = None
) -> x509.CertificateSigningRequest:
    """Return a CSR for DNS names, under a fresh key where none is given."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signer = key or ec.generate_private_key(ec.SECP256R1())
    return builder.add_extension(san, critical=False).sign(signer, hashes.SHA256())
