"""Structures signed by keys that are elsewhere, in every kind of key."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.sealing import (
    IssuerKey,
    parse_issuer_key,
    seal_certificate,
    seal_crl,
    seal_csr,
)
from tests.fakes.clock import START
from tests.fakes.signer import FakeSigner

KINDS = ["ec-p256", "ec-p384", "rsa-2048"]
NAME = x509.Name.from_rfc4514_string("CN=Somebody")


async def held_key(signer: FakeSigner, kind: str = "ec-p256") -> IssuerKey:
    """Return a key that *signer* holds."""
    return parse_issuer_key("key", await signer.create_key("key", kind))


def certificate_builder(key: IssuerKey) -> x509.CertificateBuilder:
    """Return a self-issued certificate to be signed."""
    return (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key)
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_certificate_verifies_under_the_held_key(kind: str) -> None:
    """What comes out is what a library signing with the key itself would make."""
    signer = FakeSigner()
    key = await held_key(signer, kind)
    certificate = await seal_certificate(certificate_builder(key), signer, key)
    certificate.verify_directly_issued_by(certificate)
    assert signer.signatures == 1
    hash_algorithm = certificate.signature_hash_algorithm
    assert hash_algorithm is not None
    assert hash_algorithm.name == ("sha384" if kind == "ec-p384" else "sha256")


@pytest.mark.parametrize("kind", KINDS)
async def test_crl_verifies_under_the_held_key(kind: str) -> None:
    """The same for a revocation list."""
    signer = FakeSigner()
    key = await held_key(signer, kind)
    builder = x509.CertificateRevocationListBuilder(NAME, START, START + timedelta(days=1))
    crl = x509.load_der_x509_crl(await seal_crl(builder, signer, key))
    assert crl.is_signature_valid(key.public_key)


@pytest.mark.parametrize("kind", KINDS)
async def test_csr_carries_and_verifies_under_the_held_key(kind: str) -> None:
    """A request names the held key, not the throwaway one it was drafted with."""
    signer = FakeSigner()
    key = await held_key(signer, kind)
    basic = x509.BasicConstraints(ca=True, path_length=0)
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    csr = await seal_csr(builder.add_extension(basic, critical=True), signer, key)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key
    assert csr.subject == NAME
    assert csr.extensions.get_extension_for_class(x509.BasicConstraints).value == basic


@pytest.mark.parametrize("kind", KINDS)
async def test_signature_that_does_not_verify_never_leaves(kind: str) -> None:
    """A signer that signs something else is found out before anyone else sees it."""
    signer = FakeSigner()
    key = await held_key(signer, kind)
    signer.is_lying = True
    with pytest.raises(Broken, match="by key 'key' does not verify"):
        await seal_certificate(certificate_builder(key), signer, key)


async def test_signature_of_the_wrong_length_is_refused() -> None:
    """A signer that answers for another curve is found out, too."""
    signer = FakeSigner()
    key = await held_key(signer)
    signer.keys["key"] = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(Broken, match="96 bytes, expected 64"):
        await seal_certificate(certificate_builder(key), signer, key)


async def test_signer_that_is_away_is_told_as_such() -> None:
    """Trying later is the caller's to decide."""
    signer = FakeSigner()
    key = await held_key(signer)
    signer.is_away = True
    with pytest.raises(Unreachable):
        await seal_certificate(certificate_builder(key), signer, key)


@pytest.mark.parametrize("kind", KINDS)
async def test_key_of_a_usable_kind_is_parsed(kind: str) -> None:
    """The negative twin of those below."""
    spki_der = await FakeSigner().create_key("key", kind)
    assert parse_issuer_key("key", spki_der).spki_der == spki_der


@pytest.mark.parametrize(
    ("public_key", "reason"),
    [
        pytest.param(ec.generate_private_key(ec.SECP521R1()).public_key(), "cannot", id="p521"),
        pytest.param(ed25519.Ed25519PrivateKey.generate().public_key(), "cannot", id="ed25519"),
        pytest.param(None, "does not parse", id="nonsense"),
    ],
)
def test_key_of_another_kind_is_refused(
    public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | None, reason: str
) -> None:
    """Only kinds whose signatures ports.Signer defines can sign certificates."""
    der = b"nonsense"
    if public_key is not None:
        der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Broken, match=reason):
        parse_issuer_key("key", der)
