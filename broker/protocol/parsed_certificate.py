"""One certificate laid open.

Nothing is verified here.  What a certificate says is told in words that policy can
compare; names that no client could ask for are kept apart, not dropped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.protocol.extensions import (
    LIBRARY_FAULTS,
    canonical_spki,
    extended_key_usage_oids,
    general_name_kind,
    key_kind,
    key_usage_names,
    subject_addresses,
    without_warnings,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import printable

MAX_RSA_BITS: Final = 8192
"""Largest RSA key with which a signature is verified, in bits; larger ones only cost time."""


REMEMBERED_CERTIFICATES: Final = 256
"""Most certificates, and most pairs of them, whose reading is remembered.

Anchors and issuers come back with every order; a leaf comes back within moments or never.  At
about 4 KiB each they take 1 MiB.
"""


class ChainError(ValueError):
    """A certificate or chain that cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True)
class ParsedCertificate:
    """A certificate laid open.  Nothing in it has been verified.

    Attributes:
        der: The certificate as it came.
        fingerprint: SHA-256 of ``der`` in lower case hex.
        serial: The serial number in lower case hex, two digits an octet.
        identifiers: Subject alternative names of type dns, ip and email.
        other_names: Every other subject alternative name, as ``kind:text``.
        common_name: The subject's common name, if there is exactly one.
        spki_der: The public key as SubjectPublicKeyInfo, always encoded alike.
        key_kind: ``rsa-2048``, ``ec-p256`` …
        subject_mail: E-mail addresses in the subject (RFC 2985 §5.2.1), as they stand.
        path_length: The path length of basicConstraints, if any.
        key_usages: Names of RFC 5280 §4.2.1.3.
        extended_key_usages: Dotted OIDs.
        authority_key_id: The key identifier octets, which RFC 9773 §4.1 builds on.
        extension_oids: Dotted OIDs of all extensions.
        critical_oids: Dotted OIDs of the critical ones.
    """

    der: bytes = field(repr=False)
    fingerprint: str
    serial: str
    not_before: datetime
    not_after: datetime
    issuer: str
    subject: str
    common_name: str | None
    identifiers: frozenset[Identifier]
    other_names: tuple[str, ...]
    spki_der: bytes = field(repr=False)
    key_kind: str
    is_ca: bool
    path_length: int | None
    key_usages: frozenset[str]
    extended_key_usages: frozenset[str]
    authority_key_id: bytes | None
    subject_key_id: bytes | None
    extension_oids: frozenset[str]
    critical_oids: frozenset[str]
    subject_mail: tuple[str, ...] = ()

    @property
    def lifetime(self) -> timedelta:
        """Return the difference of the two ends."""
        return self.not_after - self.not_before

    @property
    def pem(self) -> bytes:
        """Return the certificate as one PEM block."""
        text = base64.b64encode(self.der)
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return b"\n".join(
            [b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""]
        )


@functools.lru_cache(maxsize=REMEMBERED_CERTIFICATES)
def parse_certificate(der: bytes) -> ParsedCertificate:
    """Return what a certificate says; the same octets are read once.

    Raises:
        ChainError: If it is no single DER certificate that can be read as a whole.
    """
    try:
        with without_warnings():
            certificate = x509.load_der_x509_certificate(der)
            if certificate.public_bytes(Encoding.DER) != der:
                raise ChainError("certificate is not DER")
            if certificate.serial_number <= 0:
                raise ChainError("certificate has a serial number that is not positive")
            return _lay_open(certificate, der)
    except ChainError:
        raise
    except LIBRARY_FAULTS as error:
        reason = printable(str(error).replace("\n", " "), 200)
        raise ChainError(f"certificate does not parse: {reason}") from error


@functools.lru_cache(maxsize=REMEMBERED_CERTIFICATES)
def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether *issuer*'s name and key stand behind *certificate*'s signature.

    Two certificates are the same when their octets are, so what one signature check told holds
    for good.
    """
    try:
        key = issuer.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size > MAX_RSA_BITS:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *LIBRARY_FAULTS):
        return False
    return True


def _lay_open(certificate: x509.Certificate, der: bytes) -> ParsedCertificate:
    extensions = list(certificate.extensions)
    by_type = {type(extension.value): extension.value for extension in extensions}
    basic = by_type.get(x509.BasicConstraints)
    usage = by_type.get(x509.KeyUsage)
    extended = by_type.get(x509.ExtendedKeyUsage)
    names = by_type.get(x509.SubjectAlternativeName)
    authority = by_type.get(x509.AuthorityKeyIdentifier)
    subject_key = by_type.get(x509.SubjectKeyIdentifier)
    identifiers, other_names = _read_names(names)
    public_key = certificate.public_key()
    serial = f"{certificate.serial_number:x}"
    return ParsedCertificate(
        der=der,
        fingerprint=hashlib.sha256(der).hexdigest(),
        serial=serial.zfill(len(serial) + len(serial) % 2),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        issuer=certificate.issuer.rfc4514_string(),
        subject=certificate.subject.rfc4514_string(),
        common_name=_common_name(certificate.subject),
        identifiers=identifiers,
        other_names=other_names,
        spki_der=canonical_spki(public_key),
        key_kind=key_kind(public_key),
        is_ca=isinstance(basic, x509.BasicConstraints) and basic.ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        key_usages=key_usage_names(usage) if isinstance(usage, x509.KeyUsage) else frozenset(),
        extended_key_usages=extended_key_usage_oids(
            extended if isinstance(extended, x509.ExtendedKeyUsage) else ()
        ),
        authority_key_id=(
            authority.key_identifier if isinstance(authority, x509.AuthorityKeyIdentifier) else None
        ),
        subject_key_id=(
            subject_key.digest if isinstance(subject_key, x509.SubjectKeyIdentifier) else None
        ),
        extension_oids=frozenset(e.oid.dotted_string for e in extensions),
        critical_oids=frozenset(e.oid.dotted_string for e in extensions if e.critical),
        subject_mail=subject_addresses(certificate.subject),
    )


def _read_names(
    names: x509.ExtensionType | None,
) -> tuple[frozenset[Identifier], tuple[str, ...]]:
    identifiers: set[Identifier] = set()
    others: list[str] = []
    for name in names if isinstance(names, x509.SubjectAlternativeName) else ():
        try:
            identifiers.add(_identifier_of(name))
        except ValueError:
            text = printable(str(name.value), 300)
            others.append(f"{general_name_kind(name)}:{text}")
    return frozenset(identifiers), tuple(others)


def _identifier_of(name: x509.GeneralName) -> Identifier:
    """Return a name as an identifier; rules for what may be asked for do not apply here."""
    if isinstance(name, x509.DNSName):
        return Identifier(IdentifierType.DNS, name.value.lower())
    if isinstance(name, x509.RFC822Name):
        local, _, domain = name.value.rpartition("@")
        return Identifier(IdentifierType.EMAIL, f"{local}@{domain.lower()}")
    if isinstance(name, x509.IPAddress) and isinstance(
        name.value, ipaddress.IPv4Address | ipaddress.IPv6Address
    ):
        return Identifier(IdentifierType.IP, str(name.value))
    raise ValueError("no identifier")


def _common_name(subject: x509.Name) -> str | None:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None
