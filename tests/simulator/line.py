"""One agent's way to the broker: requests as it does them, and how it is let in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from agents import wire
from tests.simulator.http import Answer, Connection, Place
from tests.simulator.identity import Identity, make_csr, make_key

__all__ = ["AGENT_VERSION", "Line", "NotEnrolled", "Part", "enrol", "fingerprint_of"]

AGENT_VERSION: Final = "simulator"


class NotEnrolled(Exception):
    """The broker did not let the node in; says what it answered."""


@dataclass(slots=True)
class Line:
    """The way of one agent's requests to the broker."""

    place: Place
    anchors: Path
    identity: Identity
    is_signing: bool = False

    async def open(self) -> Connection:
        """Connect, showing the identity where there is one and it is not signed by; Broken."""
        if self.is_signing:
            context = Identity(self.identity.key, self.identity.file).context(self.anchors)
        else:
            context = self.identity.context(self.anchors)
        return await Connection.open(self.place, context)

    def headers(self, method: str, target: str, body: bytes = b"") -> Mapping[str, str]:
        """Return the headers of a request."""
        headers = {"Content-Type": "application/json"} if body else {}
        if self.is_signing and self.identity.key_id:
            path, _, query = target.partition("?")
            headers |= self.identity.sign(method, path, f"?{query}", body)
        return headers

    async def once(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Do one request over a connection of its own; raises Broken."""
        connection = await self.open()
        try:
            return await connection.request(
                method, target, body, self.headers(method, target, body)
            )
        finally:
            connection.close()

    async def post(self, messages: Sequence[wire.Message], ack: int = 0) -> Answer:
        """Post messages over a connection of its own; raises Broken."""
        batch = wire.Batch(wire.VERSION, ack, tuple(messages))
        return await self.once("POST", wire.PATHS["messages"], batch.encode())


async def enrol(
    line: Line, node: str, *, credential: str | None, method: str = "token"
) -> Mapping[str, Any]:
    """Enrol by one request and keep the identity; raises NotEnrolled or Broken."""
    document: dict[str, Any] = {
        "version": str(wire.VERSION),
        "method": method,
        "node": node,
        "csr_der": wire.encode_bytes(make_csr(line.identity.key)),
        "credential": credential,
        "agent": AGENT_VERSION,
        "request": None,
        "facts": {},
    }
    answer = await line.once("POST", wire.PATHS["enrol"], json.dumps(document).encode())
    if answer.status != 200:
        raise NotEnrolled(f"{answer.status}: {answer.body[:300].decode('utf-8', 'replace')}")
    found: dict[str, Any] = json.loads(answer.body)
    line.identity.keep(found["chain_pem"].encode("ascii"), found["node_id"])
    return found


@dataclass(slots=True)
class Part:
    """One certificate of a simulated node."""

    name: str
    names: tuple[str, ...]
    key_kind: str = "ec-p256"
    profile: str | None = None
    generation: int = 0
    fingerprint: str | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=make_key)

    def statement(self) -> dict[str, Any]:
        """Return it as the node states it."""
        made: dict[str, Any] = {
            "name": self.name,
            "names": list(self.names),
            "key_kind": self.key_kind,
        }
        if self.profile is not None:
            made["profile"] = self.profile
        if self.fingerprint is not None:
            made |= {"fingerprint": self.fingerprint, "generation": self.generation}
            made["is_seen"] = True
        return made


def fingerprint_of(chain_pem: str) -> str:
    """Return the SHA-256 of the first certificate's DER, in lower case hex."""
    first = chain_pem.split("-----END", 1)[0].split("-----\n", 1)[1]
    return hashlib.sha256(base64.b64decode(first)).hexdigest()
