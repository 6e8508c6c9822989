"""Certificate signing requests: parsed once, compared, never rebuilt.

The DER stays as the client signed it.  What the request asks for is laid open, so
that policy can judge every part; this module refuses only what has no single
meaning, or no meaning in ACME.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
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
from broker.protocol.identifiers import (
    Identifier,
    IdentifierType,
    addresses_beyond,
    canonical_dns_name,
    canonical_email_address,
    canonical_ip_address,
)
from broker.protocol.jwk import jwk_from_public_key
from broker.protocol.problems import Problem, ProblemType, printable

MAX_CSR_BYTES: Final = 32 * 1024
"""Largest CSR that is read, in bytes: 100 names of full length under an RSA-4096 key fit."""

MAX_RSA_BITS: Final = 8192
"""Largest RSA key with which a signature is verified, in bits; larger ones only cost time."""

MAX_RSA_EXPONENT_BITS: Final = 64
"""Longest RSA exponent with which a signature is verified, in bits, for the same reason."""

_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)
_EXTENSION_REQUESTS: Final = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})
"""The attribute that holds the extensions (RFC 2985 §5.4.2), and Microsoft's own for it."""


REMEMBERED_CSRS: Final = 128
"""Most CSRs whose reading is remembered: twice the orders that a busy broker finalizes at once.

At about 4 KiB each they take 512 KiB.
"""


@dataclass(frozen=True, slots=True)
class ParsedCsr:
    """A CSR whose signature verifies, laid open for policy.

    Attributes:
        der: The CSR byte for byte as the client signed it.
        spki_der: The public key as SubjectPublicKeyInfo, always encoded alike.
        spki_sha256: SHA-256 of it in lower case hex.
        public_key: The key as cryptography knows it.
        key_kind: ``rsa-2048``, ``ec-p256``, ``ed25519``, ``ec-secp256k1`` …
        key_thumbprint: The JWK thumbprint, None for a key that no account can have.
        identifiers: The subject alternative names, and the common name if it is a name.
        common_name: The common name as it stands, None if absent or empty.
        must_staple: Whether the TLS feature status_request is asked for (RFC 7633).
        requests_ca: Whether basicConstraints asks for a CA certificate.
        key_usages: Names of RFC 5280 §4.2.1.3.
        extended_key_usages: Dotted OIDs.
        other_extensions: Dotted OIDs of all extensions not told above.
        subject_other: Subject attributes other than the common name, as ``O=Example``.
        subject_mail: Those of them that are e-mail addresses (RFC 2985 §5.2.1), as they stand.
    """

    der: bytes = field(repr=False)
    spki_der: bytes = field(repr=False)
    spki_sha256: str
    public_key: object = field(repr=False, compare=False)
    key_kind: str
    key_thumbprint: str | None
    identifiers: frozenset[Identifier]
    common_name: str | None = None
    must_staple: bool = False
    requests_ca: bool = False
    key_usages: frozenset[str] = frozenset()
    extended_key_usages: frozenset[str] = frozenset()
    other_extensions: frozenset[str] = frozenset()
    subject_other: tuple[str, ...] = ()
    subject_mail: tuple[str, ...] = ()


@asn1.sequence
class _RequestInfo:
    """CertificationRequestInfo of RFC 2986 §4.1, for the key as it is encoded."""

    version: int
    subject: asn1.TLV
    public_key: asn1.TLV
    attributes: asn1.TLV


@dataclass(slots=True)
class _Asked:
    """What the extensions of a CSR ask for, as it is gathered."""

    names: set[Identifier] = field(default_factory=set)
    must_staple: bool = False
    requests_ca: bool = False
    key_usages: frozenset[str] = frozenset()
    extended_key_usages: frozenset[str] = frozenset()
    other: set[str] = field(default_factory=set)


@functools.lru_cache(maxsize=REMEMBERED_CSRS)
def parse_csr(der: bytes) -> ParsedCsr:
    """Return what a CSR asks for, its signature verified.

    The answer follows from the octets alone, so it is remembered: a CSR is read at finalize, by
    the built-in CA, and again when its certificate is judged.

    Raises:
        Problem: badCSR, with a sentence saying what was expected.  Tell the client;
            the order stays ready.
    """
    _verify_octets(der)
    try:
        csr = x509.load_der_x509_csr(der)
        if csr.public_bytes(Encoding.DER) != der:
            _refuse("is not DER, or has bytes behind its end")
        public_key = csr.public_key()
    except LIBRARY_FAULTS as error:
        _refuse(f"does not parse: {_reason(error)}")
    _verify_signature(csr, public_key)
    try:
        with without_warnings():
            spki_der = _verify_key_encoding(csr, public_key)
            asked = _read_extensions(csr)
            common_name, subject_other = _read_subject(csr.subject)
            subject_mail = subject_addresses(csr.subject)
    except LIBRARY_FAULTS as error:
        _refuse(f"does not parse: {_reason(error)}")
    identifiers = asked.names | _names_of(common_name)
    if not identifiers:
        _refuse("names nothing, expected the order's identifiers as subject alternative names")
    return ParsedCsr(
        der=der,
        spki_der=spki_der,
        spki_sha256=hashlib.sha256(spki_der).hexdigest(),
        public_key=public_key,
        key_kind=key_kind(public_key),
        key_thumbprint=_thumbprint(public_key),
        identifiers=frozenset(identifiers),
        common_name=common_name,
        must_staple=asked.must_staple,
        requests_ca=asked.requests_ca,
        key_usages=asked.key_usages,
        extended_key_usages=asked.extended_key_usages,
        other_extensions=frozenset(asked.other),
        subject_other=subject_other,
        subject_mail=subject_mail,
    )


def verify_csr_names(csr: ParsedCsr, identifiers: Iterable[Identifier]) -> ParsedCsr:
    """Return the CSR, proven to name exactly the identifiers of its order.

    RFC 8555 §7.4.  A common name that is not one of them is refused even when it is
    no DNS name, and so is an e-mail address in the subject: a CA might put it into the
    certificate.

    Raises:
        Problem: badCSR, naming what is missing and what is extra.
    """
    expected = frozenset(identifiers)
    faults = []
    if missing := expected - csr.identifiers:
        faults.append(f"lacks {_listed(missing)}")
    if extra := csr.identifiers - expected:
        faults.append(f"names {_listed(extra)} beyond the order")
    if faults:
        _refuse(" and ".join(faults))
    common_name = csr.common_name
    if common_name is not None and not _names_of(common_name):
        _refuse(
            f"has the common name '{printable(common_name, 300)}', expected none or a name "
            "of the order"
        )
    if beyond := addresses_beyond(csr.subject_mail, expected):
        _refuse(
            f"has the e-mail address {beyond} in its subject, expected none or one of the order"
        )
    return csr


def _verify_octets(der: bytes) -> None:
    if not der:
        _refuse("is empty, expected DER of a PKCS#10 request")
    if len(der) > MAX_CSR_BYTES:
        _refuse(f"has {len(der)} bytes, the limit is {MAX_CSR_BYTES}")
    if der.lstrip().startswith(b"-----BEGIN"):
        _refuse("is PEM, expected DER")


def _verify_signature(csr: x509.CertificateSigningRequest, public_key: object) -> None:
    if isinstance(public_key, dsa.DSAPublicKey):
        _refuse("has a DSA key, expected RSA, EC or Ed25519")
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size > MAX_RSA_BITS:
            _refuse(f"has an RSA key of {public_key.key_size} bits, the limit is {MAX_RSA_BITS}")
        if public_key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
            _refuse(f"has an RSA exponent longer than {MAX_RSA_EXPONENT_BITS} bits")
    try:
        weak = isinstance(csr.signature_hash_algorithm, _WEAK_HASHES)
        valid = not weak and csr.is_signature_valid
    except LIBRARY_FAULTS:
        _refuse("is signed with an algorithm that cannot be verified")
    if weak:
        _refuse("is signed with MD5 or SHA-1, expected SHA-256 or better")
    if not valid:
        _refuse("has a signature that does not verify")
    # The octet before the signature counts the unused bits of its BIT STRING; a reader
    # that overlooks it takes several spellings for one CSR.
    if csr.public_bytes(Encoding.DER)[-len(csr.signature) - 1] != 0:
        _refuse("has a signature with unused bits")


def _verify_key_encoding(csr: x509.CertificateSigningRequest, public_key: object) -> bytes:
    """Return the SubjectPublicKeyInfo, proven to be encoded the one usual way.

    A curve spelled out parameter by parameter (CVE-2022-0778) or a compressed point is
    the same key to us and a fault, or another key, to somebody further on.
    """
    canonical = canonical_spki(public_key)
    shown = asn1.decode_der(_RequestInfo, csr.tbs_certrequest_bytes).public_key
    usual = asn1.decode_der(asn1.TLV, canonical)
    if bytes(shown.data) != bytes(usual.data):
        _refuse("has a key that is not encoded as usual: named curve, uncompressed point")
    return canonical


def _read_extensions(csr: x509.CertificateSigningRequest) -> _Asked:
    # Readers disagree on which of several extension requests counts, so one at most.
    holders = [a for a in csr.attributes if a.oid.dotted_string in _EXTENSION_REQUESTS]
    if len(holders) > 1:
        _refuse("has several extension requests, expected one at most")
    asked = _Asked()
    for extension in csr.extensions:
        _read_extension(extension, asked)
    return asked


def _read_extension(extension: x509.Extension[x509.ExtensionType], asked: _Asked) -> None:
    value = extension.value
    if isinstance(value, x509.SubjectAlternativeName):
        asked.names.update(_read_name(name) for name in value)
    elif isinstance(value, x509.BasicConstraints):
        asked.requests_ca = value.ca
    elif isinstance(value, x509.KeyUsage):
        asked.key_usages = key_usage_names(value)
    elif isinstance(value, x509.ExtendedKeyUsage):
        asked.extended_key_usages = extended_key_usage_oids(value)
    elif isinstance(value, x509.TLSFeature) and set(value) == {x509.TLSFeatureType.status_request}:
        asked.must_staple = True
    else:
        asked.other.add(extension.oid.dotted_string)


def _read_name(name: x509.GeneralName) -> Identifier:
    if not isinstance(name, x509.DNSName | x509.IPAddress | x509.RFC822Name):
        _refuse(
            f"has a subject alternative name of kind {general_name_kind(name)}, "
            "expected dns, ip or email"
        )
    try:
        if isinstance(name, x509.DNSName):
            return Identifier(IdentifierType.DNS, canonical_dns_name(name.value))
        if isinstance(name, x509.IPAddress):
            return Identifier(IdentifierType.IP, canonical_ip_address(str(name.value)))
        return Identifier(IdentifierType.EMAIL, canonical_email_address(name.value))
    except Problem as problem:
        _refuse(f"has a subject alternative name that is refused: {problem.detail}")


def _read_subject(subject: x509.Name) -> tuple[str | None, tuple[str, ...]]:
    common_names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(common_names) > 1:
        _refuse(f"has {len(common_names)} common names, expected one at most")
    value = common_names[0].value if common_names else ""
    if isinstance(value, bytes):
        _refuse("has a common name that is no text")
    other = tuple(
        printable(attribute.rfc4514_string(), 300)
        for attribute in subject
        if attribute.oid != NameOID.COMMON_NAME
    )
    return value or None, other


def _names_of(common_name: str | None) -> frozenset[Identifier]:
    """Return the identifier a common name is, if it is one: a name or an address of any kind."""
    if common_name is None:
        return frozenset()
    for kind, canonical in (
        (IdentifierType.DNS, canonical_dns_name),
        (IdentifierType.IP, canonical_ip_address),
        (IdentifierType.EMAIL, canonical_email_address),
    ):
        try:
            return frozenset({Identifier(kind, canonical(common_name))})
        except Problem:
            continue
    return frozenset()


def _thumbprint(public_key: object) -> str | None:
    try:
        return jwk_from_public_key(public_key).thumbprint
    except Problem:
        return None


def _listed(identifiers: Iterable[Identifier]) -> str:
    names = sorted(str(identifier) for identifier in identifiers)
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _reason(error: Exception) -> str:
    return printable(str(error).replace("\n", " "), 200) or type(error).__name__


def _refuse(sentence: str) -> NoReturn:
    raise Problem(ProblemType.BAD_CSR, f"CSR {sentence}")
