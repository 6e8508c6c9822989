"""The desk over a whole world: real workflows and a real store, a fake CA."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.events import Actor
from broker.issuance.ownership import Ownership
from broker.issuance.records import UpstreamAccountRecord
from broker.operations import OperatorDesk, Rooms, UpstreamEntry
from broker.web.operator import Operations
from tests.fakes.clock import START
from tests.fakes.world import World

ANNA = Actor("operator:anna", "asked for in ticket 7")

_KEY = ec.derive_private_key(7, ec.SECP256R1())
_CSR = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
REQUEST = _CSR.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
"""A request for an offline root."""

REQUEST_SPKI_SHA256 = sha256(
    _KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).hexdigest()
"""The fingerprint of its key."""


@dataclass
class FakeUpstreamKeeper:
    """Two upstreams, one of each kind."""

    faults: list[str] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)

    def entries(self) -> Sequence[UpstreamEntry]:
        return [
            UpstreamEntry(
                name="local", kind="built-in", communities=("default",), where="http://pki.example"
            ),
            UpstreamEntry(
                name="ca",
                kind="acme",
                communities=("default", "lab"),
                where="https://ca.example/directory",
            ),
        ]

    async def register(
        self, upstream: str, community: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        self.agreed.append(agree_to_terms)
        return UpstreamAccountRecord(
            upstream=upstream,
            community=community,
            directory_url="https://ca.example/directory",
            account_url=f"https://ca.example/acct/{community}",
            key_id=f"{upstream}-{community}",
            thumbprint="thumb",
            registered_at=START,
        )

    async def check(self, upstream: str, community: str) -> Sequence[str]:
        return self.faults if upstream == "ca" else []

    def account_key_kind(self, upstream: str) -> str:
        return "ec-p256"


@dataclass
class FakeAuthorityKeeper:
    """Remembers what was to be made."""

    made: list[tuple[object, ...]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)

    async def show(self, upstream: str) -> Mapping[str, object]:
        return {"upstream": upstream, "root": {"subject": "CN=Root"}}

    async def initialise(
        self,
        upstream: str,
        *,
        subject: str | None,
        permitted_names: Sequence[str],
        permitted_networks: Sequence[str],
        actor: Actor,
    ) -> Mapping[str, object]:
        self.actors.append(actor)
        self.made.append((upstream, subject, tuple(permitted_names), tuple(permitted_networks)))
        return await self.show(upstream)

    async def request(self, upstream: str, *, subject: str | None, actor: Actor) -> str:
        self.actors.append(actor)
        self.made.append((upstream, subject))
        return REQUEST

    async def accept(
        self, upstream: str, *, chain_pem: str, anchors_pem: str, actor: Actor
    ) -> Mapping[str, object]:
        self.actors.append(actor)
        self.made.append((upstream, chain_pem, anchors_pem))
        return await self.show(upstream)

    async def prepare(
        self, upstream: str, *, subject: str | None, is_offline: bool, actor: Actor
    ) -> Mapping[str, object]:
        self.actors.append(actor)
        self.made.append(("prepare", upstream, subject, is_offline))
        return {"csr_pem": REQUEST} if is_offline else await self.show(upstream)

    async def activate(self, upstream: str, *, actor: Actor) -> Mapping[str, object]:
        self.actors.append(actor)
        self.made.append(("activate", upstream))
        return await self.show(upstream)

    async def retire(
        self, upstream: str, *, issuer: str | None, actor: Actor
    ) -> Mapping[str, object]:
        self.actors.append(actor)
        self.made.append(("retire", upstream, issuer))
        return await self.show(upstream)


@dataclass
class Office:
    """The desk and what is behind it."""

    world: World
    desk: Operations
    upstreams: FakeUpstreamKeeper
    authorities: FakeAuthorityKeeper
    rooms: Rooms
    """What the desk is over."""


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """A desk that is open."""
    async with World(tmp_path) as world:
        upstreams, authorities = FakeUpstreamKeeper(), FakeAuthorityKeeper()
        rooms = Rooms(
            store=world.traffic.watch(world.store, "desk", counts=True),
            accounts=world.accounts,
            enrollment=world.enrollment,
            revocations=world.revocations,
            planner=world.planner,
            policies=world.policies,
            upstreams=upstreams,
            authorities=authorities,
            clock=world.clock,
            communities=("default",),
            version="0.1.0",
            freezes=world.freezes,
            ownership=Ownership(world.store, world.clock),
        )
        yield Office(world, OperatorDesk(rooms), upstreams, authorities, rooms)
