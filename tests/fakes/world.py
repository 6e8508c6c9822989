"""All workflows over a real store and a fake CA, with a clock that a test moves.

A `World` outlives its processes: `restart` ends one as a kill does, or as a power cut does, and
begins the next over the same database, the same CA and the same clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.issuance.accounts import Accounts
from broker.issuance.admissions import Admissions
from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_hold import ApprovalHold
from broker.issuance.approval_people import People
from broker.issuance.authorizations import Authorizations
from broker.issuance.caa import CaaRooms, CaaWatch
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Broken
from broker.issuance.events import Event, EventKind
from broker.issuance.failover import Failover
from broker.issuance.former_revocations import FormerRevocations
from broker.issuance.freezes import Freezes
from broker.issuance.fulfilment import Fulfilment
from broker.issuance.key_changes import KeyChanges
from broker.issuance.key_ports import known_secret
from broker.issuance.orders import Orders
from broker.issuance.planning import Planner
from broker.issuance.ports import Upstream
from broker.issuance.quotas import Quotas
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CertificateRecord,
    JobKind,
    OrderRecord,
)
from broker.issuance.registration import RegistrationAuthority
from broker.issuance.release import Gate
from broker.issuance.renewal_budget import RenewalBudget
from broker.issuance.renewing import make_renewing
from broker.issuance.revocations import Revocations
from broker.issuance.settings import CommunitySettings, DeclaredEabKey, IssuanceSettings
from broker.issuance.standing import Standing
from broker.issuance.succession import Succession
from broker.issuance.withdrawals import Withdrawals
from broker.issuance.witness import Witness
from broker.issuance.young import Young
from broker.policy.decisions import ProfileLifetime, UpstreamFacts
from broker.policy.published_limits import PublishedLimit
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.jws import (
    Jwk,
    ParsedBinding,
    jwk_from_public_key,
    parse_binding,
    seal_binding,
)
from broker.protocol.requests import NewAccount, NewOrder, Revocation
from broker.protocol.resources import OrderStatus
from tests.fakes.clock import FakeClock
from tests.fakes.fake_caa import FakeCaa
from tests.fakes.fake_policies import FakeAnchors, FakeInspector, FakePolicies, FakeSuffixes
from tests.fakes.fake_sealer import FakeSealer
from tests.fakes.fake_time import FakeTime
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.fake_validator import FakeValidator
from tests.fakes.fresh_store import open_fresh
from tests.fakes.interruptions import Traffic

T = TypeVar("T")

NEW_ACCOUNT_URL: Final = "https://acme.corp.example/new-account"

ROBOT_KEY: Final = b"robot-robot-robot-robot-robot-32"
"""MAC key of the declared binding key ``robot``."""

ROUNDS: Final = 40
"""Most turns of the loop in which nothing calls the store, after which nothing will."""

LONGEST_WAIT: Final = timedelta(days=2)
"""How far `World.finish` and `World.drive` move the clock before they give up."""


def dns(name: str) -> Identifier:
    """Return a DNS identifier."""
    return Identifier(IdentifierType.DNS, name)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def jwk_of(key: ec.EllipticCurvePrivateKey) -> Jwk:
    """Return the public part of *key*."""
    return jwk_from_public_key(key.public_key())


def make_csr(
    *names: str, key: ec.EllipticCurvePrivateKey | None = None, common_name: str | None = None
) -> bytes:
    """Return a CSR for *names*, by a key of its own unless one is given."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder(x509.Name(subject)).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
    )
    return builder.sign(key or new_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def leaf_of(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a chain."""
    return x509.load_pem_x509_certificates(pem)[0]


def _account_url(account: AccountRecord) -> str:
    return f"https://acme.corp.example/account/{account.account_id}"


def approval_url(community: str, approval_id: str) -> str:
    """Return where a person looks at a request."""
    return f"https://acme.corp.example/acme/{community}/approval/{approval_id}"


def always(lifetime: timedelta) -> ProfileLifetime:
    """Return a lifetime that has held for ever."""
    return ProfileLifetime(valid_from=date.min, lifetime=lifetime)


def default_facts(name: str) -> UpstreamFacts:
    """Return the facts of a CA that honours notAfter."""
    return UpstreamFacts(
        name=name,
        description="fake",
        honours_not_after=True,
        min_lifetime=timedelta(hours=1),
        max_lifetime=None,
        default_lifetimes=(always(timedelta(days=90)),),
        profiles={"short": (always(timedelta(days=6)),)},
        backdate_tolerance=timedelta(seconds=60),
        is_ct_logged=False,
    )


class FakeUpstreams:
    """``issuance.ports.Upstreams`` over what a world holds."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, upstream: str, community: str) -> Upstream:
        """See the port."""
        if upstream not in self._world.upstreams:
            raise Broken(f"upstream {upstream!r} is not configured")
        made: Upstream = self._world.traffic.watch(
            self._world.upstreams[upstream], upstream, counts=False
        )
        return made

    def facts(self, community: str) -> Sequence[UpstreamFacts]:
        """See the port."""
        return tuple(self._world.facts.values())

    def waiting(self, upstream: str, community: str) -> UpstreamFacts | None:
        """See the port."""
        return self._world.waiting.get(upstream)


class World:
    """A broker and all that is around it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Prepare a world in *folder*; *changes* go into its `IssuanceSettings`."""
        self.path = folder / "penstock.db"
        self.clock = FakeClock()
        self.time = FakeTime(self.clock)
        self.traffic = Traffic()
        self.policies = FakePolicies()
        self.validator = FakeValidator()
        self.inspector = FakeInspector()
        self.caa = FakeCaa()
        self.anchors = FakeAnchors()
        self.ca = FakeUpstream(self.clock)
        self.local = FakeUpstream(self.clock, "local", is_local=True)
        self.upstreams = {"ca": self.ca, "local": self.local}
        self.facts = {name: default_facts(name) for name in self.upstreams}
        self.waiting: dict[str, UpstreamFacts] = {}
        """Upstreams whose account is lost."""
        self.limits: dict[str, tuple[PublishedLimit, ...]] = {}
        """What the CAs publish about how much they issue."""
        self.sealer = FakeSealer()
        self.concurrency = 64
        self.settings = IssuanceSettings(
            communities={name: CommunitySettings(name=name) for name in ("default", "lab")},
            declared_eab_keys=(
                DeclaredEabKey(
                    key_id="robot", community="default", mac_key=known_secret(ROBOT_KEY)
                ),
            ),
        )
        self.settings = replace(self.settings, **changes)
        self.witness = Witness()
        self._commits_kept: int | None = None
        self.keeps_snapshots = False
        """Whether to keep what a power cut would leave."""
        self.runs_due = True
        """Whether a process begins with what is due: a restored broker does not."""

    # ----------------------------------------------------------------------------- processes

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin a process."""
        self.store = await open_fresh(self.path)
        store = self.traffic.watch(self.store, "store", counts=True)
        if self.keeps_snapshots:
            self._commits_kept = None
            self.traffic.on_answer = self._keep_snapshot
        upstreams, clock = FakeUpstreams(self), self.clock
        witness = self.witness
        self.dispatcher = Dispatcher(
            store, clock, concurrency=self.concurrency, call_later=self.time.call_later
        )
        self.enrollment = Enrollment(store, clock, self.settings, sealer=self.sealer)
        self.freezes = Freezes(
            store,
            store,
            clock,
            policies=self.policies,
            contacts={"default": "pki@corp.example"},
        )
        self.planner = Planner(
            policies=self.policies,
            enrollment=self.enrollment,
            upstreams=upstreams,
            upstream_store=store,
            suffixes=FakeSuffixes(),
            clock=clock,
            standing=Standing(store=store, accounts=store, clock=clock),
            young=store,
            earlier=store,
            freezes=self.freezes,
        )
        self.budget = RenewalBudget(
            store, lambda upstream: self.limits.get(upstream, ()), clock, FakeSuffixes()
        )
        self.quotas = Quotas(
            store=store, budget=self.budget, suffixes=FakeSuffixes(), log=store, clock=clock
        )
        self.key_changes = KeyChanges(store, self.inspector, clock, freezes=self.freezes)
        self.caa_watch = CaaWatch(
            CaaRooms(
                looker=self.caa,
                issuers=self.caa,
                upstreams=upstreams,
                policies=self.policies,
                orders=store,
                accounts=store,
                log=store,
                dispatcher=self.dispatcher,
                clock=clock,
                account_url=_account_url,
            )
        )
        self.approvals = ApprovalGate(store, People(store), clock, approval_url)
        self.admissions = Admissions(store, self.approvals, self.policies, clock)
        self.accounts = Accounts(
            store,
            self.enrollment,
            clock,
            self.settings,
            admissions=self.admissions,
            freezes=self.freezes,
        )
        self.authority = RegistrationAuthority(store, People(store), self.dispatcher, clock)
        self.withdrawals = Withdrawals(store, self.dispatcher, clock)
        self.orders = Orders(
            orders=store,
            owned=store,
            accounts=store,
            log=store,
            planner=self.planner,
            policies=self.policies,
            inspector=self.inspector,
            dispatcher=self.dispatcher,
            succession=Succession(store, store),
            clock=clock,
            settings=self.settings,
            caa=self.caa_watch,
            approvals=self.approvals,
            quotas=self.quotas,
            freezes=self.freezes,
            witness=witness,
        )
        self.authorizations = Authorizations(
            orders=store,
            accounts=store,
            planner=self.planner,
            validator=self.validator,
            dispatcher=self.dispatcher,
            clock=clock,
            settings=self.settings,
            account_url=_account_url,
            freezes=self.freezes,
        )
        self.gate = Gate(store, self.policies, self.anchors, clock)
        self.closing = Closing(store, store, self.dispatcher, clock)
        self.hold = ApprovalHold(store, self.approvals, self.closing, clock)
        self.fulfilment = Fulfilment(
            orders=store,
            works=store,
            upstream_store=store,
            upstreams=upstreams,
            gate=self.gate,
            closing=self.closing,
            dispatcher=self.dispatcher,
            clock=clock,
            settings=self.settings,
            pause=self.time.pause,
            failover=Failover(
                moves=store,
                orders=store,
                works=store,
                accounts=store,
                planner=self.planner,
                quotas=self.quotas,
                caa=self.caa_watch,
                clock=clock,
                witness=witness,
            ),
            young=Young(
                store=store,
                orders=store,
                works=store,
                certificates=store,
                renewals=store,
                policies=self.policies,
                closing=self.closing,
                dispatcher=self.dispatcher,
                clock=clock,
                witness=witness,
            ),
            approvals=self.hold,
            freezes=self.freezes,
        )
        self.freezes.on_changed = lambda: self.dispatcher.hurry_all(
            (JobKind.PREPARE, JobKind.FULFIL)
        )
        self.revocations = Revocations(
            store,
            store,
            upstreams,
            self.dispatcher,
            clock,
            former=FormerRevocations(store),
        )
        self.renewing = make_renewing(
            store,
            policies=self.policies,
            upstreams=upstreams,
            dispatcher=self.dispatcher,
            clock=clock,
        )
        self.dispatcher.on(JobKind.VALIDATE, self.authorizations.validate)
        self.dispatcher.on(JobKind.PREPARE, self.fulfilment.prepare)
        self.dispatcher.on(JobKind.FULFIL, self.fulfilment.fulfil)
        self.dispatcher.on(JobKind.REVOKE, self.revocations.carry_out)
        self.dispatcher.on(JobKind.CAA, self.caa_watch.report)
        self.dispatcher.on(JobKind.WITHDRAW, self.withdrawals.carry_out)
        await self.enrollment.keep_declared()
        if self.runs_due:
            await self.dispatcher.run_due()

    async def stop(self) -> None:
        """End the process."""
        await self.dispatcher.stop()
        self.time.forget_all()
        await self.store.close()

    async def restart(self, *, power_cut: bool = False, is_turn: bool = False) -> None:
        """End the process and begin the next; a power cut loses what was not on the disk.

        A turn is what begins in the same process, when a configuration is taken up in place.
        """
        await self.stop()
        if not is_turn:
            self.witness = Witness()
        if power_cut:
            assert self._commits_kept is not None, "nothing durable was written"
            for leftover in self.path.parent.glob(f"{self.path.name}-*"):
                leftover.unlink()
            shutil.copyfile(self._durable, self.path)
        self.traffic.revive()
        await self.start()

    @property
    def _durable(self) -> Path:
        return self.path.with_name("durable.db")

    def _keep_snapshot(self) -> None:
        """Copy the database when it has reached the disk since the last look."""
        commits = self.store.stats().durable_commits
        if self._commits_kept == commits:
            return
        with (
            contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(self._durable)) as target,
        ):
            source.backup(target)
        self._commits_kept = commits

    # ----------------------------------------------------------------------------------- time

    async def settle(self) -> None:
        """Wait until nothing goes on without the clock moving or a stall being released."""
        # What the loop is about to run: without it, every settling would cost all the rounds.
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        while True:
            before = self.traffic.started
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
                if not ready:
                    break  # nobody else has anything to do
            if self.traffic.is_quiet and self.traffic.started == before:
                return
            await self.traffic.quiet()

    async def let_pass(self, length: timedelta) -> None:
        """Move the clock on by *length*, with everything that becomes due on the way."""
        end = self.clock.now() + length
        await self.settle()
        while (due_at := self.time.next_due) is not None and due_at <= end:
            self.time.go_to_next()
            await self.settle()
        if end > self.clock.now():
            self.clock.advance(end - self.clock.now())

    async def drive(self, doing: Coroutine[Any, Any, T]) -> T:
        """Return the result of *doing*, moving the clock only when nothing else goes on."""
        task = asyncio.ensure_future(doing)
        end = self.clock.now() + LONGEST_WAIT
        try:
            await self.settle()
            while not task.done():
                assert self.time.next_due is not None, "it waits for what will never come"
                assert self.time.next_due < end, "it waits for too long"
                self.time.go_to_next()
                await self.settle()
        finally:
            task.cancel()
        return await task

    async def finish(self, order: OrderRecord) -> OrderRecord:
        """Return the order once it is over, moving the clock as far as it takes."""
        end = self.clock.now() + LONGEST_WAIT
        await self.settle()
        while (now := await self.load(order)).status not in (
            OrderStatus.VALID,
            OrderStatus.INVALID,
        ):
            due_at = self.time.next_due
            assert due_at is not None, f"order is {now.status} and nothing is left to do"
            assert due_at < end, f"order is {now.status} for too long"
            self.time.go_to_next()
            await self.settle()
        return now

    # ---------------------------------------------------------------------------- what is kept

    async def load(self, order: OrderRecord) -> OrderRecord:
        """Return the order as it is kept now."""
        found = await self.store.load_order(order.order_id)
        assert found is not None, "the order is gone"
        return found

    async def events(self, *kinds: EventKind) -> list[Event]:
        """Return the events of these kinds, or all, oldest first."""
        found = await self.store.read_events(after=0, limit=10_000, order_id=None)
        return [event for _, event in found if not kinds or event.kind in kinds]

    async def count(self, kind: EventKind) -> int:
        """Return how often *kind* has happened."""
        return len(await self.events(kind))

    async def certificates(self) -> Sequence[CertificateRecord]:
        """Return every certificate that was kept, withheld ones too."""
        return await self.store.list_certificates(community=None, after=None, limit=1000)

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table, to tell whether anything changed."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as kept:
            tables = kept.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return {
                name: sorted(kept.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
                for (name,) in tables
            }

    async def jobs(self, kind: JobKind | None = None) -> int:
        """Return how many jobs are left, of *kind* or of all."""
        counts = await self.store.outcome_counts()
        kinds = [kind] if kind is not None else list(JobKind)
        return sum(counts[f"jobs_{one}"] for one in kinds)

    # -------------------------------------------------------------------------------- clients

    async def client(
        self,
        community: str = "default",
        binding: tuple[str, bytes] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Client:
        """Register an account, with a key of its own unless one is given.

        *binding* is a key id with its MAC key.
        """
        key = key or new_key()
        made = None if binding is None else self.binding(*binding, jwk_of(key))
        account, _ = await self.accounts.register(community, jwk_of(key), NewAccount(), made)
        return Client(self, account, key)

    async def robot(self) -> Client:
        """Register an account that policy trusts with names below robots.example.com."""
        return await self.client(binding=("robot", ROBOT_KEY))

    def binding(self, key_id: str, mac_key: bytes, account_key: Jwk) -> ParsedBinding:
        """Return an external account binding as a client would make it."""
        sealed = seal_binding(key_id, mac_key, "HS256", NEW_ACCOUNT_URL, account_key)
        return parse_binding(sealed, expected_url=NEW_ACCOUNT_URL, account_key=account_key)


@dataclass(slots=True)
class Client:
    """An account holder."""

    world: World
    account: AccountRecord
    key: ec.EllipticCurvePrivateKey

    async def order(
        self,
        *names: str,
        profile: str | None = None,
        not_after: datetime | None = None,
        replaces: str | None = None,
    ) -> OrderRecord:
        """Order a certificate."""
        request = NewOrder(
            tuple(map(dns, names)), profile=profile, not_after=not_after, replaces=replaces
        )
        return await self.world.orders.create(self.account, request)

    async def read(self, order: OrderRecord) -> OrderRecord:
        """Poll an order."""
        return await self.world.orders.read(self.account, order.order_id)

    async def authorizations(self, order: OrderRecord) -> list[AuthorizationRecord]:
        """Read the authorizations of an order."""
        read = self.world.authorizations.read
        return [await read(self.account, one) for one in order.authorization_ids]

    async def respond(self, authorization: AuthorizationRecord, place: int = 0) -> None:
        """Say that the answer to a challenge is in place."""
        challenge_id = authorization.challenges[place].challenge_id
        await self.world.authorizations.respond(
            self.account, authorization.authorization_id, challenge_id
        )

    async def prove(self, order: OrderRecord) -> OrderRecord:
        """Respond to a challenge for each name, and see what becomes of it."""
        for authorization in await self.authorizations(order):
            await self.respond(authorization)
        await self.world.settle()
        return await self.read(order)

    async def ready(
        self,
        *names: str,
        profile: str | None = None,
        not_after: datetime | None = None,
        replaces: str | None = None,
    ) -> OrderRecord:
        """Order and prove."""
        order = await self.order(*names, profile=profile, not_after=not_after, replaces=replaces)
        made = await self.prove(order)
        assert made.status is OrderStatus.READY, made
        return made

    async def finalize(self, order: OrderRecord, csr_der: bytes | None = None) -> OrderRecord:
        """Finalize, with a CSR of a key of its own unless one is given, and wait for the answer."""
        if csr_der is None:
            csr_der = make_csr(*(name.value for name in order.identifiers))
        finalize = self.world.orders.finalize
        return await self.world.drive(finalize(self.account, order.order_id, csr_der))

    async def issue(
        self, *names: str, profile: str | None = None, replaces: str | None = None
    ) -> OrderRecord:
        """Order, prove and finalize."""
        order = await self.finalize(await self.ready(*names, profile=profile, replaces=replaces))
        assert order.status is OrderStatus.VALID, order
        return order

    async def issue_granted(self, *names: str) -> OrderRecord:
        """Order names that policy grants, and finalize."""
        order = await self.finalize(await self.order(*names))
        assert order.status is OrderStatus.VALID, order
        return order

    async def chain(self, order: OrderRecord) -> bytes:
        """Download the certificate of an order."""
        assert order.certificate_id is not None, order
        certificate = self.world.renewing.handover.certificate
        return (await certificate(self.account, order.certificate_id)).chain_pem

    async def leaf_der(self, order: OrderRecord) -> bytes:
        """Download the certificate of an order and return its leaf."""
        return leaf_of(await self.chain(order)).public_bytes(Encoding.DER)

    async def revoke(self, certificate_der: bytes, reason: int = 0) -> None:
        """Revoke as this account, and wait for the answer."""
        await self.world.drive(
            self.world.revocations.revoke(
                self.account.community,
                Revocation(certificate_der, reason),
                account=self.account,
                key=None,
            )
        )
