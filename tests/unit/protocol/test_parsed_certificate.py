"""One certificate laid open."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.parsed_certificate import (
    ChainError,
    ParsedCertificate,
    is_issued_by,
    parse_certificate,
)
from tests.unit.protocol import der
from tests.unit.protocol.builders import NOW, Authority, key_usage, name, private_key

ROOT = Authority.root()
SERIAL = b"\x02\x02\x41\x23"
"""The serial number of the good certificate, as DER."""
OTHER = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")


def der_of(certificate: x509.Certificate) -> bytes:
    """Return the DER of a certificate."""
    return certificate.public_bytes(Encoding.DER)


def parsed(*names: Any, **kwargs: Any) -> ParsedCertificate:
    """Return a leaf of the root, laid open."""
    return parse_certificate(der_of(ROOT.leaf(*names, **kwargs)))


def test_leaf_is_laid_open() -> None:
    """Everything policy compares is told."""
    certificate = ROOT.leaf(
        "a.example",
        "*.B.example",
        "192.0.2.1",
        x509.RFC822Name("Alice@Example.com"),
        subject=name("a.example", organization_name="Example"),
        serial=0x0FEDCBA987,
        key_usage=key_usage("digital_signature"),
        extensions=[
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.SubjectKeyIdentifier(b"subject"), False),
            (x509.UnrecognizedExtension(OTHER, b"x"), True),
        ],
    )
    leaf = parse_certificate(der_of(certificate))
    assert leaf.der == der_of(certificate)
    assert leaf.fingerprint == hashlib.sha256(leaf.der).hexdigest()
    assert leaf.serial == "0fedcba987"
    assert (leaf.not_before, leaf.not_after) == (NOW - timedelta(hours=1), NOW + timedelta(days=89))
    assert leaf.not_after.tzinfo is not None
    assert leaf.lifetime == timedelta(days=89, hours=1)
    assert leaf.issuer == "CN=Root"
    assert leaf.subject == "CN=a.example,O=Example"
    assert leaf.common_name == "a.example"
    assert leaf.identifiers == {
        Identifier(IdentifierType.DNS, "a.example"),
        Identifier(IdentifierType.DNS, "*.b.example"),
        Identifier(IdentifierType.IP, "192.0.2.1"),
        Identifier(IdentifierType.EMAIL, "Alice@example.com"),
    }
    assert leaf.other_names == ()
    assert leaf.spki_der == der.spki(private_key("ES256", 2))
    assert leaf.key_kind == "ec-p256"
    assert not leaf.is_ca
    assert leaf.path_length is None
    assert leaf.key_usages == {"digitalSignature"}
    assert leaf.extended_key_usages == {"1.3.6.1.5.5.7.3.1"}
    assert leaf.authority_key_id is not None
    assert len(leaf.authority_key_id) == 20
    assert leaf.subject_key_id == b"subject"
    assert leaf.extension_oids == {
        "2.5.29.14",
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.35",
        "2.5.29.37",
        OTHER.dotted_string,
    }
    assert leaf.critical_oids == {"2.5.29.15", OTHER.dotted_string}


def test_ca_is_told_with_its_path_length() -> None:
    """BasicConstraints are laid open."""
    issuing = parse_certificate(ROOT.intermediate(path_length=0).der)
    assert issuing.is_ca
    assert issuing.path_length == 0
    assert parse_certificate(ROOT.der).path_length is None


def test_names_no_client_could_ask_for_are_told_apart() -> None:
    """Nothing that was smuggled in is lost: it is an identifier or an other name."""
    leaf = parsed(
        "a.example",
        x509.UniformResourceIdentifier("https://a.example"),
        x509.OtherName(OTHER, b"\x0c\x01a"),
        x509.DirectoryName(name("x")),
        "localhost",
        "under_score.example",
    )
    assert {i.value for i in leaf.identifiers} == {"a.example", "localhost", "under_score.example"}
    assert sorted(other.partition(":")[0] for other in leaf.other_names) == [
        "dirName",
        "otherName",
        "uri",
    ]


def test_name_with_a_control_character_is_an_other_name() -> None:
    """It is no identifier, and its text is escaped."""
    raw = der_of(ROOT.leaf("a-b.example")).replace(b"a-b.example", b"a\nb.example")
    leaf = parse_certificate(raw)
    assert leaf.identifiers == frozenset()
    assert leaf.other_names == ("dns:a\\u000ab.example",)


def test_certificate_without_names_or_identifiers() -> None:
    """Absent extensions are absent values."""
    root = parse_certificate(ROOT.der)
    assert root.identifiers == frozenset()
    assert root.authority_key_id is root.subject_key_id is None
    assert root.key_usages == root.extended_key_usages == frozenset()


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 0x0100, 2**158 + 1])
def test_serial_is_hex_of_whole_octets(serial: int) -> None:
    """Lower case, two digits an octet, no sign octet."""
    text = parsed("a.example", serial=serial).serial
    assert int(text, 16) == serial
    assert len(text) % 2 == 0
    assert text == text.lower()


def test_pem_reads_back() -> None:
    """The one PEM block of a certificate holds its DER."""
    leaf = parsed("a.example")
    assert der_of(x509.load_pem_x509_certificate(leaf.pem)) == leaf.der
    assert leaf.pem == x509.load_der_x509_certificate(leaf.der).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"<html>", id="HTML"),
        pytest.param(lambda good: good[:-1], id="cut short"),
        pytest.param(lambda good: good + b"\x00", id="byte behind"),
        pytest.param(lambda good: b"\x30\x80" + good[4:] + b"\x00\x00", id="BER"),
        pytest.param(
            lambda good: good.replace(bytes.fromhex("551d23"), bytes.fromhex("551d11")),
            id="alternative names twice",
        ),
        pytest.param(lambda good: good.replace(SERIAL, b"\x02\x02\x81\x23"), id="negative serial"),
        pytest.param(
            lambda good: good.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),
            id="version 8",
        ),
        pytest.param(
            lambda good: good.replace(b"\x82\x09a.example", b"\x89\x09a.example"), id="tag"
        ),
    ],
)
def test_what_is_no_certificate_is_refused(make: Any) -> None:
    """What cannot be read as a whole is refused; the good one is read."""
    good = der_of(ROOT.leaf("a.example", serial=0x4123))
    with pytest.raises(ChainError):
        parse_certificate(make(good))
    assert parse_certificate(good).der == good


def test_long_common_name_is_read_without_a_warning() -> None:
    """65 characters are odd, not a fault."""
    short = der_of(ROOT.leaf("a.example", subject=name("a" * 64)))
    assert parse_certificate(short).common_name == "a" * 64


def test_issuer_is_told_by_name_and_signature() -> None:
    """Both have to fit."""
    leaf = ROOT.leaf("a.example")
    impostor = Authority.root("Root", key=private_key("ES256", "impostor"))
    stranger = Authority.root("Stranger", key=ROOT.key)
    assert is_issued_by(leaf, ROOT.certificate)
    assert not is_issued_by(leaf, impostor.certificate)
    assert not is_issued_by(leaf, stranger.certificate)
    assert not is_issued_by(ROOT.certificate, leaf)


def test_issuer_with_an_enormous_key_is_none() -> None:
    """Verifying with 16384 bits would cost more than it could tell."""
    leaf = ROOT.leaf("a.example")
    huge = rsa.RSAPublicNumbers(65537, (1 << 16383) | 1).public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(ROOT.certificate.subject)
        .issuer_name(ROOT.certificate.subject)
        .public_key(huge)
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(ROOT.key, hashes.SHA256())
    )
    assert not is_issued_by(leaf, certificate)
    assert is_issued_by(leaf, ROOT.certificate)


def test_damaged_certificate_is_read_or_refused() -> None:
    """Each bit of one certificate flipped: a value or a ChainError, no other exception."""
    good = der_of(
        ROOT.leaf(
            "a.example",
            "192.0.2.1",
            subject=name("a", organization_name="x"),
            key_usage=key_usage("digital_signature"),
            extensions=[
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (x509.NameConstraints([x509.DNSName("a.b")], None), True),
            ],
        )
    )
    refused = 0
    for index in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[index // 8] ^= 1 << index % 8
        try:
            assert parse_certificate(bytes(damaged)).der == damaged
        except ChainError:
            refused += 1
    assert refused > len(good)
