"""The built-in CAs of a state directory, with processes that end where a test wants them to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.app.authorities import Authorities
from broker.app.authority_register import CaRegistry
from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_ports import KeyPlaces, KeyStores
from broker.issuance.records import CaCertificateRecord, CaMember
from broker.storage.sqlite import SqliteStore
from broker.upstreams.authority_state import CaState
from tests.fakes.clock import START, FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.fakes.signer import FakeSigner

DAY = timedelta(days=1)
CHANGES = frozenset({"create_key", "sign", "destroy_key", "retire_before"})
"""What is done to a key."""
ANNA = Actor("operator:anna", "asked for in ticket 7")


class Killed(BaseException):
    """The process ends here: nothing after it is done, and nobody catches it."""


class KillingStore:
    """A store whose process is killed before its *n*-th change of the register."""

    def __init__(self, store: SqliteStore, countdown: list[int]) -> None:
        self._store = store
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace_ca_members(
        self, ca: str, members: Sequence[CaMember], event: Event | None
    ) -> None:
        count_down(self._countdown)
        await self._store.replace_ca_members(ca, members, event)
        count_down(self._countdown)

    async def retire_ca_issuer(self, ca: str, key_id: str, **given: Any) -> None:
        count_down(self._countdown)
        await self._store.retire_ca_issuer(ca, key_id, **given)
        count_down(self._countdown)


class KillingRing:
    """Any keys, whose process is killed before or after its *n*-th touch of one."""

    def __init__(self, ring: KeyStores, countdown: list[int]) -> None:
        self._ring = ring
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ring, name)
        return self._counted(found) if name in CHANGES else found

    def _counted(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*given: Any) -> Any:
            count_down(self._countdown)
            made = await call(*given)
            count_down(self._countdown)
            return made

        return counted


class KillingSigner(FakeSigner):
    """A signer whose process is killed before or after its *n*-th touch of a key."""

    def __init__(self, signer: FakeSigner, countdown: list[int]) -> None:
        super().__init__()
        self.keys = signer.keys
        self._countdown = countdown

    async def create_key(self, key_id: str, kind: str) -> bytes:
        count_down(self._countdown)
        made = await super().create_key(key_id, kind)
        count_down(self._countdown)
        return made

    async def destroy_key(self, key_id: str) -> None:
        count_down(self._countdown)
        await super().destroy_key(key_id)
        count_down(self._countdown)

    async def sign(self, key_id: str, data: bytes) -> bytes:
        count_down(self._countdown)
        return await super().sign(key_id, data)


def count_down(countdown: list[int]) -> None:
    """Take one off, and kill the process at zero."""
    countdown[0] -= 1
    if countdown[0] == 0:
        raise Killed


class Keeper:
    """Authorities over a store, and whom they told."""

    def __init__(
        self,
        directory: Path,
        store: SqliteStore,
        ring: KeyStores | None = None,
        places: KeyPlaces | None = None,
    ) -> None:
        self.directory = directory
        self.store = store
        self.signer = FakeSigner()
        self._ring = ring
        self._places = places
        self.clock = FakeClock()
        self.told: list[CaState] = []
        self.registry = self._registry(store, ring or self.signer)
        self.authorities = Authorities(self.registry)

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path) -> AsyncIterator[Self]:
        """Give a keeper over a store in *directory*."""
        store = await open_fresh(directory / "penstock.db")
        try:
            yield cls(directory, store)
        finally:
            await store.close()

    def _registry(self, store: Any, signer: Any) -> CaRegistry:
        registry = CaRegistry(
            store,
            signer=signer,
            places=self._places,
            clock=self.clock,
            files=self.directory / "ca",
        )
        registry.on_changed = lambda _, state: self.told.append(state)
        return registry

    def killed_at(self, step: int) -> Authorities:
        """Return the authorities of a process that is killed at its *step*-th step."""
        countdown = [step]
        signer: Any = KillingSigner(self.signer, countdown)
        if self._ring is not None:
            signer = KillingRing(self._ring, countdown)
        return Authorities(self._registry(KillingStore(self.store, countdown), signer))

    async def restart(self) -> CaState | None:
        """Start another process over what lies there, and return what it finds."""
        self.registry = self._registry(self.store, self._ring or self.signer)
        self.authorities = Authorities(self.registry)
        return await self.registry.recover("local")

    async def initialise(self, **changes: Any) -> Mapping[str, Any]:
        """Make the CA ``local``."""
        asked = {"subject": None, "permitted_names": (), "permitted_networks": (), **changes}
        return await self.authorities.initialise("local", actor=ANNA, **asked)

    async def prepare(self, **changes: Any) -> Mapping[str, Any]:
        """Prepare the next issuing CA."""
        asked = {"subject": None, "is_offline": False, **changes}
        return await self.authorities.prepare("local", actor=ANNA, **asked)

    async def activate(self) -> Mapping[str, Any]:
        """Put the next issuing CA to work."""
        return await self.authorities.activate("local", actor=ANNA)

    async def retire(self, issuer: str | None = None) -> Mapping[str, Any]:
        """Retire a past issuing CA."""
        return await self.authorities.retire("local", issuer=issuer, actor=ANNA)

    async def kept(self) -> CaState:
        """Return what is kept in the store."""
        state = await self.registry.load("local")
        assert state is not None
        return state

    async def roles(self) -> list[tuple[str, str | None]]:
        """Return role and key of each member."""
        return [(one.role.value, one.key_id) for one in await self.store.ca_members("local")]

    async def events(self) -> list[EventKind]:
        """Return what happened, in order."""
        found = await self.store.read_events(after=0, limit=1000, order_id=None)
        return [event.kind for _, event in found]

    async def issue(
        self, issuer_key_id: str, *, ends: timedelta = 30 * DAY, serial: int = 5
    ) -> CaCertificateRecord:
        """Put a certificate of that issuer into the ledger."""
        record = CaCertificateRecord(
            ca="local",
            order_ref=f"order{serial}",
            serial=f"{serial:x}",
            certificate_der=_some_certificate(),
            issuer_key_id=issuer_key_id,
            not_after=self.clock.now() + ends,
            issued_at=self.clock.now(),
        )
        return await self.store.record_ca_certificate(record)


class OfflineRoot:
    """A root that lies in a safe: it signs what it is brought."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Offline Root")])
        self.certificate = self._sign(self.name, self.key.public_key(), path_length=1)

    @property
    def pem(self) -> str:
        """Return its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def answer(self, csr_pem: str) -> str:
        """Return the issuing certificate for a request."""
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        assert csr.is_signature_valid
        public_key: Any = csr.public_key()
        signed = self._sign(csr.subject, public_key, path_length=0)
        return signed.public_bytes(Encoding.PEM).decode()

    def _sign(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, path_length: int
    ) -> x509.Certificate:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False)  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(START - DAY)
            .not_valid_after(START + 1000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def away(signer: FakeSigner) -> type[Unreachable]:
    """Have the signer go away, and return what it raises then."""
    signer.is_away = True
    return Unreachable


def _some_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return (
        x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + DAY)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("www.corp.example")]), critical=True
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
