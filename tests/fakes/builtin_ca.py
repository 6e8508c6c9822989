"""A built-in CA made in memory: root, issuing CA, ledger, signer and a clock moved by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.ports import UpstreamRequest
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.authority import (
    Authority,
    AuthorityPlan,
    IssuerSet,
    PermittedNames,
    create_issuing,
    create_root,
)
from broker.upstreams.builtin import BuiltinCa, BuiltinSettings
from broker.upstreams.builtin_leaf import CaProfile
from tests.fakes.ca_store import FakeCaStore
from tests.fakes.clock import FakeClock
from tests.fakes.signer import FakeSigner

DAY = timedelta(days=1)
BASE_URL = "http://ca.corp.example"

PROFILES = {
    "server": CaProfile(lifetime=30 * DAY, max_lifetime=90 * DAY),
    "client": CaProfile(
        lifetime=7 * DAY,
        max_lifetime=7 * DAY,
        extended_key_usages=("clientAuth",),
        policy_oids=("1.3.6.1.4.1.55555.1",),
        has_common_name=True,
    ),
}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def dns(*names: str) -> tuple[Identifier, ...]:
    """Return DNS identifiers."""
    return tuple(Identifier(IdentifierType.DNS, name) for name in names)


def request(
    *names: str,
    reference: str = "work1",
    profile: str | None = None,
    not_after: datetime | None = None,
) -> UpstreamRequest:
    """Return a request, for www.corp.example unless other names are given."""
    return UpstreamRequest(
        reference=reference,
        identifiers=dns(*(names or ("www.corp.example",))),
        profile=profile,
        not_after=not_after,
    )


def make_csr(key: PrivateKey, *names: str, extra: tuple[x509.ExtensionType, ...] = ()) -> bytes:
    """Return the DER of a CSR, for www.corp.example unless other names are given."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wanted = [x509.DNSName(name) for name in names or ("www.corp.example",)]
    builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def spki(key: PrivateKey) -> bytes:
    """Return the public half of a key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class CaWorld:
    """A CA and all it stands on."""

    signer: FakeSigner
    clock: FakeClock
    store: FakeCaStore
    root: Authority
    issuing: Authority
    ca: BuiltinCa

    def restarted(self, issuers: IssuerSet | None = None) -> BuiltinCa:
        """Return the CA as a new process would make it, over the same ledger and keys."""
        return make_ca(self.signer, self.clock, self.store, issuers or IssuerSet(self.issuing))


def make_ca(
    signer: FakeSigner,
    clock: FakeClock,
    store: FakeCaStore,
    issuers: IssuerSet,
    profiles: Mapping[str, CaProfile] = PROFILES,
) -> BuiltinCa:
    """Return a CA with the usual settings."""
    settings = BuiltinSettings(
        name="local",
        base_url=BASE_URL,
        profiles=profiles,
        default_profile="server",
        issuers=issuers,
    )
    return BuiltinCa(settings, signer=signer, store=store, clock=clock)


async def make_world(
    kind: str = "ec-p256",
    *,
    lifetime: timedelta = 365 * DAY,
    permitted: PermittedNames | None = None,
) -> CaWorld:
    """Return a CA of a year under a root of ten, permitted corp.example unless told otherwise."""
    signer, clock, store = FakeSigner(), FakeClock(), FakeCaStore()
    root = await create_root(
        signer,
        clock,
        AuthorityPlan(key_id="root", subject="CN=Root,O=Corp", lifetime=3650 * DAY, kind=kind),
    )
    plan = AuthorityPlan(
        key_id="issuing-1",
        subject="CN=Issuing 1,O=Corp",
        lifetime=lifetime,
        kind=kind,
        permitted=permitted or PermittedNames(("corp.example",)),
    )
    issuing = await create_issuing(signer, clock, plan, root)
    ca = make_ca(signer, clock, store, IssuerSet(issuing))
    return CaWorld(signer, clock, store, root, issuing, ca)


async def issue_one(world: CaWorld) -> bytes:
    """Have a certificate for www.corp.example issued, and return its DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    order = await world.ca.finalize(await world.ca.open_order(request()), make_csr(key))
    pem = await world.ca.download(order)
    return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
