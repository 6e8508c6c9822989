"""A requester that keeps everything it was ever told, so that a test can look for what leaked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.fakes.acme_client import AcmeClient, Answer, make_csr
from tests.fakes.hostile_ca.envelope import b64, unb64
from tests.peers.process import PeerFailed

SETTLE_SECONDS: Final = 120.0
"""Longest wait for an order's end: the broker meets a CA that came back within 15 s."""

POLL_SECONDS: Final = 0.1

END_STATES: Final = frozenset({"valid", "invalid"})


class Requester(AcmeClient):
    """An ACME account of the broker under test, known by external account binding or not."""

    def __init__(self, directory_url: str, ca_bundle: Path) -> None:
        super().__init__(directory_url, ca_bundle)
        self.answers: list[Answer] = []

    async def bind(self, key_id: str, mac_key: str, **members: Any) -> Answer:
        """Create the account of this key, bound to an external account (RFC 8555 §7.3.4)."""
        binding = self.binding(key_id, mac_key)
        return await self.register(externalAccountBinding=binding, **members)

    def binding(self, key_id: str, mac_key: str) -> dict[str, str]:
        """Return the binding of this key; *mac_key* is base64url as ``eab mint`` prints it."""
        header = {"alg": "HS256", "kid": key_id, "url": self.directory["newAccount"]}
        protected, payload = (b64(json.dumps(part).encode()) for part in (header, self.jwk))
        signed = f"{protected}.{payload}".encode()
        mac = hmac.digest(unb64(mac_key), signed, hashlib.sha256)
        return {"protected": protected, "payload": payload, "signature": b64(mac)}

    async def request(
        self,
        *names: str,
        csr: x509.CertificateSigningRequest | None = None,
        before_finalize: Callable[[], Awaitable[None]] | None = None,
        **members: Any,
    ) -> Placed:
        """Order *names*, which need no proof, and finalize at once or after *before_finalize*."""
        ordered = await self.order(*names, **members)
        if ordered.status != 201:
            raise PeerFailed(f"newOrder was answered {ordered.status}: {ordered.body!r}")
        csr = csr or make_csr(names)
        if before_finalize is not None:
            await before_finalize()
        placed = Placed(self, ordered.headers["Location"], csr)
        finalized = await self.finalize(ordered.json(), csr)
        if finalized.status != 200:
            raise PeerFailed(f"finalize was answered {finalized.status}: {finalized.body!r}")
        placed.order = finalized.json()
        return placed

    def told(self) -> str:
        """Return all headers and bodies of all answers, as one text to search in."""
        parts = [f"{dict(one.headers)} {one.body.decode('latin-1')}" for one in self.answers]
        return "\n".join(parts)

    async def _exchange(self, method: str, url: str, body: bytes | None) -> Answer:
        answer = await super()._exchange(method, url, body)
        self.answers.append(answer)
        return answer


class Placed:
    """An order that was finalized, as its owner sees it."""

    def __init__(self, requester: Requester, url: str, csr: x509.CertificateSigningRequest) -> None:
        self.requester = requester
        self.url = url
        self.csr = csr
        self.order: Mapping[str, Any] = {}

    @property
    def order_id(self) -> str:
        """The id that ``penstock order show`` takes."""
        return self.url.rpartition("/")[2]

    @property
    def status(self) -> str:
        """The status that the order had when it was read last."""
        return str(self.order["status"])

    async def read(self) -> Mapping[str, Any]:
        """Read the order."""
        self.order = (await self.requester.post(self.url)).json()
        return self.order

    async def settled(self, seconds: float = SETTLE_SECONDS) -> str:
        """Return the status once the order has ended, or the one it has after *seconds*."""
        deadline = time.monotonic() + seconds
        while self.status not in END_STATES and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            await self.read()
        return self.status

    async def chain(self) -> Sequence[x509.Certificate]:
        """Download the certificate with its chain."""
        answer = await self.requester.post(self.order["certificate"])
        if answer.status != 200:
            raise PeerFailed(f"the certificate was answered {answer.status}: {answer.body!r}")
        return x509.load_pem_x509_certificates(answer.body)
