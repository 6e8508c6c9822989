"""X.509 in the words that CSRs, certificates and policies share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

LIBRARY_FAULTS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""All that cryptography raises for a CSR or certificate it cannot read."""

KEY_USAGES: Final = (
    ("digital_signature", "digitalSignature"),
    ("content_commitment", "nonRepudiation"),
    ("key_encipherment", "keyEncipherment"),
    ("data_encipherment", "dataEncipherment"),
    ("key_agreement", "keyAgreement"),
    ("key_cert_sign", "keyCertSign"),
    ("crl_sign", "cRLSign"),
)
"""Key usages, as cryptography and as RFC 5280 §4.2.1.3 names them."""

_EC_NAMES: Final = {"secp256r1": "ec-p256", "secp384r1": "ec-p384", "secp521r1": "ec-p521"}

_OTHER_NAMES: Final[tuple[tuple[type[x509.GeneralName], str], ...]] = (
    (x509.DNSName, "dns"),
    (x509.RFC822Name, "email"),
    (x509.IPAddress, "ip"),
    (x509.UniformResourceIdentifier, "uri"),
    (x509.DirectoryName, "dirName"),
    (x509.RegisteredID, "registeredID"),
    (x509.OtherName, "otherName"),
)


def without_warnings() -> warnings.catch_warnings[None]:
    """Return a context in which cryptography does not warn of oddities in what a peer sent.

    It warns of a common name of more than 64 characters and the like on the standard
    error stream, which a peer could fill; what is odd is policy's to judge.
    """
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def key_usage_names(usage: x509.KeyUsage) -> frozenset[str]:
    """Return the names RFC 5280 §4.2.1.3 gives to the usages that are set."""
    names = {name for attribute, name in KEY_USAGES if getattr(usage, attribute)}
    if usage.key_agreement:
        names |= {"encipherOnly"} if usage.encipher_only else set()
        names |= {"decipherOnly"} if usage.decipher_only else set()
    return frozenset(names)


def extended_key_usage_oids(usages: Iterable[x509.ObjectIdentifier]) -> frozenset[str]:
    """Return extended key usages as dotted OIDs."""
    return frozenset(usage.dotted_string for usage in usages)


def general_name_kind(name: x509.GeneralName) -> str:
    """Return the word for a kind of subject alternative name, as OpenSSL would write it."""
    return next((word for kind, word in _OTHER_NAMES if isinstance(name, kind)), "unknown")


def subject_addresses(subject: x509.Name) -> tuple[str, ...]:
    """Return the e-mail addresses in a subject (RFC 2985 §5.2.1), as they stand."""
    found = subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    return tuple(str(attribute.value) for attribute in found)


def canonical_spki(public_key: object) -> bytes:
    """Return a public key as the DER of its SubjectPublicKeyInfo, always encoded alike.

    Raises:
        TypeError: For something that is no public key; that is our bug.
    """
    to_bytes = getattr(public_key, "public_bytes", None)
    if to_bytes is None:
        raise TypeError(f"{type(public_key).__name__} is no public key")
    return bytes(to_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def key_kind(public_key: object) -> str:
    """Return the policy word for a kind of key: ``rsa-2048``, ``ec-p256``, ``ed25519``."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"rsa-{public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        curve = public_key.curve.name.lower()
        return _EC_NAMES.get(curve, f"ec-{curve}")
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(public_key, ed448.Ed448PublicKey):
        return "ed448"
    if isinstance(public_key, dsa.DSAPublicKey):
        return f"dsa-{public_key.key_size}"
    return type(public_key).__name__.removesuffix("PublicKey").lower()
