"""DER by hand: what is written is read by others, what is not canonical is refused."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agents.crafting_der import (
    DerFault,
    certificate_facts,
    ec_spki,
    ecdsa_numbers,
    ecdsa_signature,
    issuer_of,
    key_kind_of,
    octets_of,
    request_body,
    rsa_spki,
    signed,
    subject_of,
)
from tests.fakes.node_authority import Issue, NodeAuthority

DER = serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def spki_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Return a public key in DER."""
    return key.public_key().public_bytes(DER, SPKI)


@pytest.fixture(scope="module")
def certificate() -> bytes:
    """A certificate in DER."""
    authority = NodeAuthority()
    pem = authority.certify_key(ec.generate_private_key(ec.SECP256R1()), Issue(["a.example"]))
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(DER)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_request_that_is_written_is_read(count: int) -> None:
    """By the library: its names, its key and its signature, short or long."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [f"host-{number}.example" for number in range(count)]
    body = request_body(spki_of(key), names)
    signature = key.sign(body, ec.ECDSA(hashes.SHA256()))
    csr = x509.load_der_x509_csr(signed(body, "ec-p256", signature))
    assert csr.is_signature_valid
    found = [
        name
        for extension in csr.extensions
        for name in extension.value.get_values_for_type(x509.DNSName)
    ]
    assert found == names


@pytest.mark.parametrize("numbers", [(1, 2), (127, 128), (2**255, 2**256 - 1)], ids=str)
def test_signatures_there_and_back(numbers: tuple[int, int]) -> None:
    """Numbers keep their value and their sign."""
    assert ecdsa_numbers(ecdsa_signature(*numbers)) == numbers


def test_public_keys_of_a_token() -> None:
    """What a token tells of its key makes the same octets as the library."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    oid = bytes.fromhex("06082a8648ce3d030107")
    assert ec_spki(oid, octets_of(bytes([4, len(point)]) + point)) == spki_of(key)
    rsa_key = rsa.generate_private_key(65537, 2048)
    numbers = rsa_key.public_key().public_numbers()
    assert rsa_spki(numbers.n, numbers.e) == spki_of(rsa_key)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ec-p256"),
        (ec.generate_private_key(ec.SECP384R1()), "ec-p384"),
        (ec.generate_private_key(ec.SECP256K1()), "ec-other"),
        (rsa.generate_private_key(65537, 2048), "rsa-2048"),
    ],
    ids=lambda one: one if isinstance(one, str) else "key",
)
def test_kinds_of_keys(key: ec.EllipticCurvePrivateKey, kind: str) -> None:
    """In the words of the configuration."""
    assert key_kind_of(spki_of(key)) == kind


def test_names_of_issuer_and_subject(certificate: bytes) -> None:
    """As they stand, octet for octet."""
    read = x509.load_der_x509_certificate(certificate)
    assert issuer_of(certificate) == read.issuer.public_bytes()
    assert subject_of(certificate) == read.subject.public_bytes()


def test_every_cut_is_refused(certificate: bytes) -> None:
    """However much of a certificate is missing or too much, it is a fault."""
    for length in range(len(certificate)):
        with pytest.raises(DerFault):
            certificate_facts(certificate[:length])
    with pytest.raises(DerFault):
        certificate_facts(certificate + b"\0")


def test_no_flipped_octet_is_an_accident(certificate: bytes) -> None:
    """Each octet changed: it is read or refused, and nothing else happens."""
    for place in range(len(certificate)):
        changed = bytearray(certificate)
        changed[place] ^= 0x81
        try:
            certificate_facts(bytes(changed))
        except (DerFault, ValueError, IndexError):
            continue


@pytest.mark.parametrize(
    "octets",
    [b"\x04\x81\x05hello", b"\x04\x80", b"\x04\x82\x00\x80" + b"x" * 128, b"\x1f\x01\x00", b"\x04"],
    ids=["long form for a short one", "indefinite", "leading zero", "long tag", "cut"],
)
def test_what_is_not_canonical(octets: bytes) -> None:
    """BER that is not DER is refused (X.690 §10.1)."""
    with pytest.raises(DerFault):
        octets_of(octets)
