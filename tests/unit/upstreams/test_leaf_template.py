"""Certificates over a template: the same octets that the library writes."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.upstreams.leaf_template import LeafTemplate, OwnPart
from tests.fakes.clock import START

KEY = ec.generate_private_key(ec.SECP256R1())


def extension(
    value: x509.ExtensionType, *, is_critical: bool = False
) -> x509.Extension[x509.ExtensionType]:
    """Return a value as an extension."""
    return x509.Extension(value.oid, is_critical, value)


COMMON = (
    extension(x509.BasicConstraints(ca=False, path_length=None), is_critical=True),
    extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
)
NAMED = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.corp.example")])


def by_library(own: OwnPart, public_key: object) -> x509.Certificate:
    """Return the certificate that the library writes."""
    builder = x509.CertificateBuilder(
        issuer_name=NAMED,
        subject_name=own.subject,
        public_key=public_key,  # type: ignore[arg-type]
        serial_number=own.serial,
        not_valid_before=own.not_before,
        not_valid_after=own.not_after,
        extensions=[*own.extensions, *COMMON],
    )
    return builder.sign(KEY, hashes.SHA256())


def part(
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey,
    *names: str,
    serial: int = 7,
    subject: x509.Name | None = None,
    not_after: datetime = START + timedelta(days=90),
) -> OwnPart:
    """Return what a certificate has for itself."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return OwnPart(
        serial=serial,
        not_before=START,
        not_after=not_after,
        subject=subject or x509.Name([]),
        spki_der=public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        extensions=(
            extension(san, is_critical=subject is None),
            extension(key_id),
        ),
    )


P384 = ec.generate_private_key(ec.SECP384R1()).public_key()
RSA = rsa.generate_private_key(65537, 2048).public_key()
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()


@pytest.mark.parametrize(
    ("own", "public_key"),
    [
        (part(KEY.public_key(), "a.example"), KEY.public_key()),
        (part(P384, *(f"n{number}.corp.example" for number in range(100))), P384),
        (part(RSA, "a.example", serial=2**159 - 1), RSA),
        (part(ED25519, "*.a.example", subject=NAMED), ED25519),
        (part(P384, "a.example", not_after=datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)), P384),
        (part(P384, "a.example", not_after=datetime(2050, 1, 1, tzinfo=UTC)), P384),
        (part(P384, "a.example", not_after=datetime(2050, 1, 1, 5, tzinfo=UTC)), P384),
    ],
    ids=["one", "hundred", "rsa", "subject", "last-utc-time", "generalized", "later"],
)
def test_certificate_is_what_the_library_writes(own: OwnPart, public_key: object) -> None:
    """Octet for octet, whatever is in the places."""
    first = part(KEY.public_key(), "invalid", serial=1)
    template = LeafTemplate(by_library(first, KEY.public_key()), 2)
    assert template.fill(own).to_be_signed == by_library(own, public_key).tbs_certificate_bytes
