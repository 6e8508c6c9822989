"""Nodes over a real store: how they join and what operators do, with a CA and a clock in memory."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.joining import Joined, Joining, TokenVoucher
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod, IssuedIdentity, NodeRecord
from broker.issuance.nodes import Nodes, TokenWish
from tests.fakes.world import World

OPERATOR: Final = Actor("operator:anna")

IDENTITY_LIFETIME: Final = timedelta(days=7)

RETURN_WITHIN: Final = timedelta(days=30)


class FakeNodeCa:
    """The port IdentityIssuer, which signs for real."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nodes")])
        self.issued: list[IssuedIdentity] = []
        self.revoked: list[bytes] = []
        self.is_away = False

    async def issue(self, node_id: str, spki_der: bytes, reference: str) -> IssuedIdentity:
        """See the port."""
        if self.is_away:
            raise Unreachable("the CA's key is away")
        now = self._world.clock.now()
        key = load_der_public_key(spki_der)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        made = (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)]))
            .public_key(key)
            .serial_number(int(reference, 16) >> 1 or 1)
            .not_valid_before(now)
            .not_valid_after(now + IDENTITY_LIFETIME)
            .sign(self._key, hashes.SHA256())
        )
        der = made.public_bytes(Encoding.DER)
        identity = IssuedIdentity(
            made.public_bytes(Encoding.PEM),
            der,
            hashlib.sha256(der).hexdigest(),
            made.not_valid_after_utc,
        )
        self.issued.append(identity)
        return identity

    async def revoke(self, certificate_der: bytes) -> None:
        """See the port."""
        self.revoked.append(certificate_der)


class FakeLive:
    """The port Connections, which remembers."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.dropped: list[str] = []
        self.woken: list[str] = []

    def wake(self, node_id: str) -> None:
        """See the port."""
        self.woken.append(node_id)

    def is_connected(self, node_id: str) -> bool:
        """See the port."""
        return node_id in self.connected

    def drop(self, node_id: str) -> None:
        """See the port."""
        self.dropped.append(node_id)


class AgentKey:
    """An agent's identity key."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def csr_der(self) -> bytes:
        """A request for an identity."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self.private, hashes.SHA256()).public_bytes(Encoding.DER)

    @property
    def spki_sha256(self) -> str:
        """SHA-256 of the public key."""
        spki = self.private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()


class NodeWorld:
    """A world with nodes."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)

    async def __aenter__(self) -> Self:
        await self.world.start()
        self.store, self.clock = self.world.store, self.world.clock
        self.ca, self.live = FakeNodeCa(self.world), FakeLive()
        self.outcomes: list[tuple[str, str]] = []
        self.joining = Joining(
            self.store,
            self.ca,
            self.clock,
            vouchers={EnrolmentMethod.TOKEN: TokenVoucher(self.store, self.clock)},
            return_within=RETURN_WITHIN,
            freezes=self.world.freezes,
        )
        self.joining.on_outcome = lambda method, outcome: self.outcomes.append((method, outcome))
        self.nodes = Nodes(
            self.store,
            self.ca,
            self.live,
            self.clock,
            accounts=self.world.accounts,
            absences=self.joining.absences,
            communities=("default", "lab"),
        )
        self.joining.displace = self.nodes.end
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.world.stop()

    # ---------------------------------------------------------------------------------- steps

    async def token(self, node: str | None = "web-01", **wish: object) -> str:
        """Return a fresh token."""
        given = {"community": "default", "node": node, **wish}
        _, text = await self.nodes.mint_token(TokenWish(**given), OPERATOR)  # type: ignore[arg-type]
        return text

    def asking(self, key: AgentKey, **given: object) -> Asking:
        """Return what an agent asks."""
        members = {
            "method": EnrolmentMethod.TOKEN,
            "node": "web-01",
            "csr_der": key.csr_der,
            "peer": "192.0.2.7",
            **given,
        }
        return Asking(**members)  # type: ignore[arg-type]

    async def join(self, name: str = "web-01", key: AgentKey | None = None) -> NodeRecord:
        """Let a node in by a token."""
        asking = self.asking(key or AgentKey(), node=name, credential=await self.token(name))
        joined = await self.joining.enrol(asking)
        assert isinstance(joined, Joined)
        return joined.node

    async def kinds(self) -> list[EventKind]:
        """Return what has happened."""
        rows = await self.store.read_events(after=0, limit=1000, order_id=None)
        return [event.kind for _, event in rows]

    def later(self, **by: float) -> datetime:
        """Move the clock on."""
        self.clock.advance(timedelta(**by))
        return self.clock.now()
