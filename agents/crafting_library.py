"""The work of the child, done by the ``cryptography`` library.

Imported only in the child, and only there is it allowed to be missing.  Its sibling does the same
by the ``openssl`` program; a test runs every operation over both.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from agents.crafting_der import EKU_NAMES, KEY_USAGES
from agents.crafting_pem import first_key
from agents.crafting_ports import CraftFault

__all__ = ["ByLibrary"]

CHAIN_DEPTH: Final = 9
"""Most certificates between a leaf and its anchor: a chain is bounded at ten."""

PKCS12_ROUNDS: Final = 50_000
"""Rounds of PBKDF2 over the password of a PKCS#12: a tenth of a second for whoever opens it.  The
password lies beside it in a file of the same host, so more would guard nothing."""

_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "ec-p256": ec.SECP256R1(),
    "ec-p384": ec.SECP384R1(),
}

_USAGE_ATTRIBUTES: Final = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
}

_DER: Final = serialization.Encoding.DER
_PEM: Final = serialization.Encoding.PEM
_PKCS8: Final = serialization.PrivateFormat.PKCS8
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class ByLibrary:
    """Every operation on a key or a certificate, by the library."""

    name = "cryptography"

    def generate(self, kind: str) -> bytes:
        """Return a new private key in PEM."""
        made: Key
        if kind in _CURVES:
            made = ec.generate_private_key(_CURVES[kind])
        else:
            made = rsa.generate_private_key(65537, int(kind.removeprefix("rsa-")))
        return made.private_bytes(_PEM, _PKCS8, serialization.NoEncryption())

    def spki(self, key_pem: bytes) -> bytes:
        """Return the public half in DER."""
        return _load(key_pem).public_key().public_bytes(_DER, _SPKI)

    def sign(self, key_pem: bytes, message: bytes) -> bytes:
        """Return a signature over *message*, in the form that X.509 has it."""
        key = _load(key_pem)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return key.sign(message, ec.ECDSA(_digest_for(key)))

    def request(self, key_pem: bytes, names: Sequence[str]) -> bytes:
        """Return a certificate request in DER, with an empty subject."""
        builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
        if names:
            alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
            builder = builder.add_extension(alternatives, critical=True)
        key = _load(key_pem)
        return builder.sign(key, _digest_for(key)).public_bytes(_DER)

    def facts(self, certificate_der: bytes) -> dict[str, Any]:
        """Return what a certificate says of itself."""
        try:
            certificate = x509.load_der_x509_certificate(certificate_der)
            return _facts(certificate, certificate_der)
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise CraftFault(f"a certificate cannot be read: {type(error).__name__}") from None

    def is_issued_by(self, certificate_der: bytes, issuer_der: bytes) -> bool:
        """Tell whether the issuer's key signed the certificate."""
        try:
            certificate = x509.load_der_x509_certificate(certificate_der)
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer_der))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def why_unverified(
        self, chain: Sequence[bytes], anchors: Sequence[bytes], at: int
    ) -> str | None:
        """Return why the chain, leaf first, leads to none of *anchors* at that time, or None."""
        roots = [one for der in anchors if (one := _certificate(der)) is not None]
        if not roots:
            return "there is no anchor to verify against"
        leaf, *others = [x509.load_der_x509_certificate(der) for der in chain]
        whatever = ExtensionPolicy.permit_all()
        authority = whatever.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        verifier = (
            PolicyBuilder()
            .store(Store(roots))
            .time(datetime.datetime.fromtimestamp(at, datetime.UTC))
            .max_chain_depth(CHAIN_DEPTH)
            .extension_policies(ee_policy=whatever, ca_policy=authority)
            .build_client_verifier()
        )
        try:
            verifier.verify(leaf, others)
        except VerificationError as error:
            return str(error)[:200]
        return None

    def pkcs12(self, key_pem: bytes, chain: Sequence[bytes], password: bytes, name: str) -> bytes:
        """Return key and chain as PKCS#12 (RFC 7292), encrypted by AES-256."""
        leaf, *others = [x509.load_der_x509_certificate(der) for der in chain]
        encryption = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(PKCS12_ROUNDS)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
            .build(password)
        )
        return pkcs12.serialize_key_and_certificates(
            name.encode(), _load(key_pem), leaf, others, encryption
        )

    def open_pkcs12(self, octets: bytes, password: bytes) -> tuple[bytes, list[bytes]]:
        """Return the key in PEM and the chain in DER of a PKCS#12."""
        try:
            key, leaf, others = pkcs12.load_key_and_certificates(octets, password)
        except (ValueError, UnsupportedAlgorithm):
            raise CraftFault("the PKCS#12 cannot be opened with this password") from None
        if key is None or leaf is None:
            raise CraftFault("the PKCS#12 has no key with its certificate")
        pem = key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption())
        return pem, [one.public_bytes(_DER) for one in (leaf, *others)]

    def seal(self, octets: bytes, recipient_der: bytes) -> bytes:
        """Return *octets* enveloped for the recipient (RFC 5652 §6)."""
        recipient = x509.load_der_x509_certificate(recipient_der)
        if not isinstance(recipient.public_key(), rsa.RSAPublicKey):
            raise CraftFault("this recovery certificate has no RSA key, and the library wants one")
        return (
            pkcs7.PKCS7EnvelopeBuilder()
            .set_data(octets)
            .add_recipient(recipient)
            .set_content_encryption_algorithm(algorithms.AES256)
            .encrypt(_DER, [pkcs7.PKCS7Options.Binary])
        )


def _load(key_pem: bytes) -> Key:
    try:
        key = serialization.load_pem_private_key(first_key(key_pem), None)
    except TypeError:
        raise CraftFault("the key is encrypted, and nobody is here to type its password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CraftFault("the key cannot be read: no private key in PEM") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise CraftFault("the key is neither an EC nor an RSA key")
    return key


def _digest_for(key: Key) -> hashes.SHA256 | hashes.SHA384:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size == 384:
        return hashes.SHA384()
    return hashes.SHA256()


def _general(name: str) -> x509.GeneralName:
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(der: bytes) -> x509.Certificate | None:
    """Return the certificate, or None: one anchor of many that cannot be read spoils no other."""
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def _facts(certificate: x509.Certificate, der: bytes) -> dict[str, Any]:
    public = certificate.public_key().public_bytes(_DER, _SPKI)
    extensions = certificate.extensions
    basic = _find(extensions, x509.BasicConstraints)
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return {
        "fingerprint": hashlib.sha256(der).hexdigest(),
        "spki_sha256": hashlib.sha256(public).hexdigest(),
        "key_kind": _kind(certificate.public_key()),
        "serial": f"{certificate.serial_number:x}",
        "not_before": int(certificate.not_valid_before_utc.timestamp()),
        "not_after": int(certificate.not_valid_after_utc.timestamp()),
        "common_names": [str(one.value) for one in common],
        "is_self_issued": certificate.issuer == certificate.subject,
        "names": [_text(one) for one in _find(extensions, x509.SubjectAlternativeName) or ()],
        "is_ca": basic is not None and basic.ca,
        "key_usages": _usages(_find(extensions, x509.KeyUsage)),
        "extended_key_usages": [
            EKU_NAMES.get(one.dotted_string, one.dotted_string)
            for one in _find(extensions, x509.ExtendedKeyUsage) or ()
        ],
    }


def _find(extensions: x509.Extensions, kind: Any) -> Any:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _usages(usage: x509.KeyUsage | None) -> list[str]:
    if usage is None:
        return []
    found = [name for name, member in _USAGE_ATTRIBUTES.items() if getattr(usage, member)]
    if usage.key_agreement:
        found += [
            name
            for name, is_set in zip(
                KEY_USAGES[7:], (usage.encipher_only, usage.decipher_only), strict=True
            )
            if is_set
        ]
    return found


def _kind(key: Any) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "ec-p256", "secp384r1": "ec-p384", "secp521r1": "ec-p521"}.get(
            key.curve.name, "ec-other"
        )
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    return "ed448" if isinstance(key, ed448.Ed448PublicKey) else "other"


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return name.value.lower()
    if isinstance(name, (x509.RFC822Name, x509.IPAddress)):
        return str(name.value)
    return f"other:{type(name).__name__}"
