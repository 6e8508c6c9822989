"""Requests for an identity: a P-256 key that has signed them, and nothing else."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker.protocol.identity_keys import parse_identity_request, parse_node_name
from broker.protocol.problems import Problem

KEY = ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY, name: str = "x") -> bytes:
    """Return a request."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_key_is_read_and_names_say_nothing() -> None:
    """Whatever the subject claims."""
    key = parse_identity_request(request(name="root"))
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.spki_der == spki
    assert key.spki_sha256 == hashlib.sha256(spki).hexdigest()
    assert parse_identity_request(request(name="other")).jwk == key.jwk


def forged(der: bytes) -> bytes:
    """Return a request with another signature than its own."""
    return der[:-1] + bytes([der[-1] ^ 1])


@pytest.mark.parametrize(
    ("der", "token"),
    [
        (b"", "badCSR"),
        (b"no DER", "badCSR"),
        (request()[:-1], "badCSR"),
        (request() + b"\x00" * 5000, "badCSR"),
        (forged(request()), "badCSR"),
        (request(ec.generate_private_key(ec.SECP384R1())), "badPublicKey"),
        (request(rsa.generate_private_key(65537, 2048)), "badPublicKey"),
    ],
    ids=["empty", "text", "cut", "long", "forged", "P-384", "RSA"],
)
def test_other_requests_are_refused(der: bytes, token: str) -> None:
    """With a word that tells what was expected."""
    with pytest.raises(Problem) as refused:
        parse_identity_request(der)
    assert refused.value.token == token


@pytest.mark.parametrize("name", ["a", "web-01", "web-01.corp.example", "1", "a" * 63])
def test_name_of_a_node_is_made_of_labels(name: str) -> None:
    """As host names are."""
    assert parse_node_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a.", "a" * 64, "a/b", "a b", "é", "a\n", None, 7,
     ".".join(["a" * 63] * 5), "*.a"],
    ids=repr,
)  # fmt: skip
def test_other_names_are_refused(name: object) -> None:
    """None of them can name a file, a pattern or another node."""
    with pytest.raises(Problem):
        parse_node_name(name)
