"""What the tests of the upstream room start from: a simulated CA, and us before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.ports import UpstreamOrder, UpstreamRequest
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.account import Registration, register
from broker.upstreams.acme import AcmeUpstream, AcmeUpstreamSettings
from broker.upstreams.client import AcmeClient
from broker.upstreams.solvers import ChallengeAnswer, Publication, Solver
from tests.fakes.ca_simulator import CaSimulator
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_ca.script import Behaviour, Script
from tests.fakes.signer import FakeSigner

KEY_ID = "upstream-key"
NAME = "www.example.com"


def dns(*names: str) -> tuple[Identifier, ...]:
    """Return DNS identifiers."""
    return tuple(Identifier(IdentifierType.DNS, name) for name in names)


def request(*names: str, **more: Any) -> UpstreamRequest:
    """Return a newOrder for *names*."""
    members = {"profile": None, "not_after": None} | more
    return UpstreamRequest(reference="work-1", identifiers=dns(*(names or (NAME,))), **members)


def csr_der(*names: str) -> bytes:
    """Return a CSR of a fresh key."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names or (NAME,)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(san, critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


@dataclass
class FakePublication:
    """One answer of a `FakeSolver`."""

    solver: FakeSolver
    answer: ChallengeAnswer

    async def look(self) -> str | None:
        """Say what the solver was told to say."""
        return self.solver.missing

    async def withdraw(self) -> None:
        """Take the answer back, or fail as told."""
        if self.solver.withdraw_failures:
            raise self.solver.withdraw_failures.pop(0)
        self.solver.published.remove(self.answer)
        self.solver.withdrawn.append(self.answer)


@dataclass
class FakeSolver:
    """Publishes to a list, and fails when told to."""

    type: ChallengeType = ChallengeType.DNS_01
    names: tuple[str, ...] | None = None
    published: list[ChallengeAnswer] = field(default_factory=list)
    withdrawn: list[ChallengeAnswer] = field(default_factory=list)
    missing: str | None = None
    present_failures: list[Exception] = field(default_factory=list)
    withdraw_failures: list[Exception] = field(default_factory=list)
    presenting: asyncio.Event = field(default_factory=asyncio.Event)
    may_present: asyncio.Event | None = None

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether the name is one of those given."""
        return self.names is None or identifier.value in self.names

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Publish, or fail as told; waits for ``may_present`` where there is one."""
        if self.present_failures:
            raise self.present_failures.pop(0)
        self.presenting.set()
        if self.may_present is not None:
            await self.may_present.wait()
        self.published.append(answer)
        return FakePublication(self, answer)


@dataclass
class FakeAccounts:
    """Our records of accounts."""

    record: UpstreamAccountRecord | None = None
    questions: int = 0

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None:
        """Return the record, if it is the one asked for."""
        self.questions += 1
        record = self.record
        if record is None or (record.upstream, record.community) != (upstream, community):
            return None
        return record


class Given:
    """A CA, and all that we are to it."""

    def __init__(
        self, behaviour: Behaviour | None = None, *, solvers: Sequence[Solver] | None = None
    ) -> None:
        self.ca = CaSimulator(Script(standing=behaviour or Behaviour()))
        self.clock = FakeClock()
        self.signer = FakeSigner()
        self.waits: list[timedelta] = []
        self.client = AcmeClient(
            directory_url=self.ca.directory_url,
            transport=self.ca,
            signer=self.signer,
            clock=self.clock,
        )
        self.accounts = FakeAccounts()
        self.solver = FakeSolver()
        self.solvers = [self.solver] if solvers is None else solvers
        self.upstream = self.started()

    def started(self, **settings: Any) -> AcmeUpstream:
        """Return the upstream as after a restart, remembering nothing."""
        return AcmeUpstream(
            AcmeUpstreamSettings(name="ca", community="default", **settings),
            client=self.client,
            accounts=self.accounts,
            solvers=self.solvers,
            clock=self.clock,
            pause=self.pause,
        )

    async def pause(self, duration: timedelta) -> None:
        """Let the time pass that somebody wants to wait."""
        self.waits.append(duration)
        self.clock.advance(duration)
        await asyncio.sleep(0)

    async def registered(self) -> Given:
        """Return this, with an account at the CA."""
        await self.signer.create_key(KEY_ID, "ec-p256")
        registration = Registration(upstream="ca", community="default", key_id=KEY_ID)
        self.accounts.record = await register(registration, client=self.client, clock=self.clock)
        return self

    async def opened(self, *names: str) -> UpstreamOrder:
        """Return a new order."""
        return await self.upstream.open_order(request(*names))

    async def ready(self, *names: str) -> UpstreamOrder:
        """Return an order that can be finalized."""
        return await self.upstream.authorize(await self.opened(*names))


async def given(behaviour: Behaviour | None = None, **more: Any) -> Given:
    """Return a CA at which we are registered."""
    return await Given(behaviour, **more).registered()
