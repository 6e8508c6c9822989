"""X.509 structures under keys that this process never holds.

The X.509 library builds and signs in one step, with a private key in hand.  Ours stay behind
``ports.Signer``.  So a structure is drafted under a throwaway key of the same type, which gives
the right algorithm identifiers; the part to be signed goes to the signer; and the answer takes
the place of the draft's signature.  Nothing leaves unless it verifies under the issuer's key.
This file knows no policy: what a certificate says is settled by whoever fills the builder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from broker.issuance.errors import Broken
from broker.issuance.ports import Signer
from broker.upstreams.crl_encoding import with_entries

__all__ = [
    "Draft",
    "IssuerKey",
    "draft_certificate",
    "parse_issuer_key",
    "seal_certificate",
    "seal_crl",
    "seal_csr",
    "seal_draft",
]

THROWAWAY_RSA_BITS: Final = 1024
"""Size of the throwaway RSA key, in bits: the smallest that the library makes.

Its signatures are replaced before anything leaves, so its strength protects nothing, while its
slowness would be paid with every certificate.
"""

_HASHES: Final[dict[str, hashes.SHA256 | hashes.SHA384]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}
# The curves that ports.Signer knows, and the hash it uses with each.


@asn1.sequence
class _Signed:
    """What certificates, revocation lists and requests have in common (RFC 5280 §4.1.1)."""

    to_be_signed: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class _RequestInfo:
    """CertificationRequestInfo (RFC 2986 §4.1)."""

    version: int
    subject: asn1.TLV
    public_key: asn1.TLV
    attributes: asn1.TLV


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A key that the signer holds, with its public half."""

    key_id: str
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey

    @property
    def spki_der(self) -> bytes:
        """Return the SubjectPublicKeyInfo."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def hash(self) -> hashes.SHA256 | hashes.SHA384:
        """Return the hash that the signer uses with this key."""
        if isinstance(self.public_key, rsa.RSAPublicKey):
            return hashes.SHA256()
        return _HASHES[self.public_key.curve.name]


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate that waits for its signature.

    Attributes:
        der: A whole one with the same algorithms, whose signature and content do not count.
        to_be_signed: The TBSCertificate.
    """

    der: bytes
    to_be_signed: bytes


def parse_issuer_key(key_id: str, spki_der: bytes) -> IssuerKey:
    """Return the key, if it can sign certificates.

    Raises:
        Broken: It is neither RSA nor on P-256 or P-384.  Make another.
    """
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm):
        raise Broken(f"the public key of '{key_id}' does not parse") from None
    if isinstance(key, rsa.RSAPublicKey):
        return IssuerKey(key_id, key)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return IssuerKey(key_id, key)
    raise Broken(f"key '{key_id}' cannot sign certificates, expected RSA, P-256 or P-384")


async def seal_certificate(
    builder: x509.CertificateBuilder, signer: Signer, issuer: IssuerKey
) -> x509.Certificate:
    """Return the certificate that *builder* describes, signed by *issuer*.

    Raises:
        Broken: The signer's answer does not verify, or there is no such key.
        Unreachable: The signer gave no answer.
    """
    made = draft_certificate(builder, issuer)
    draft = Draft(made.public_bytes(Encoding.DER), made.tbs_certificate_bytes)
    return x509.load_der_x509_certificate(await seal_draft(draft, signer, issuer))


def draft_certificate(builder: x509.CertificateBuilder, issuer: IssuerKey) -> x509.Certificate:
    """Return the certificate under a throwaway key: nobody but the callers of this may see it."""
    return builder.sign(_throwaway(issuer), issuer.hash)


async def seal_draft(draft: Draft, signer: Signer, issuer: IssuerKey) -> bytes:
    """Return the DER of the certificate that *draft* is, signed by *issuer*.

    Raises:
        Broken: The signer's answer does not verify, or there is no such key.
        Unreachable: The signer gave no answer.
    """
    sealed = await _seal(draft.der, draft.to_be_signed, signer, issuer)
    _verify(x509.load_der_x509_certificate(sealed).signature, draft.to_be_signed, issuer)
    return sealed


async def seal_crl(
    builder: x509.CertificateRevocationListBuilder,
    signer: Signer,
    issuer: IssuerKey,
    entries: Sequence[bytes] = (),
) -> bytes:
    """Return the DER of the list that *builder* describes, with *entries*, signed by *issuer*.

    The entries come encoded, and the builder has none of its own.  The octets are returned as they
    were made: the library would encode every entry anew.

    Raises:
        Broken: The signer's answer does not verify, or there is no such key.
        Unreachable: The signer gave no answer.
    """
    if entries:
        # One entry makes the place that all of them are put into.
        builder = builder.add_revoked_certificate(_place_holder())
    draft = builder.sign(_throwaway(issuer), issuer.hash)
    to_be_signed = draft.tbs_certlist_bytes
    if entries:
        to_be_signed = with_entries(to_be_signed, entries)
    sealed = await _seal(draft.public_bytes(Encoding.DER), to_be_signed, signer, issuer)
    _verify(x509.load_der_x509_crl(sealed).signature, to_be_signed, issuer)
    return sealed


async def seal_csr(
    builder: x509.CertificateSigningRequestBuilder, signer: Signer, subject: IssuerKey
) -> x509.CertificateSigningRequest:
    """Return the certification request for *subject*, signed by that same key.

    A request carries its own public key, so that is exchanged along with the signature.

    Raises:
        Broken: The signer's answer does not verify, or there is no such key.
        Unreachable: The signer gave no answer.
    """
    draft = builder.sign(_throwaway(subject), subject.hash)
    info = asn1.decode_der(_RequestInfo, draft.tbs_certrequest_bytes)
    info.public_key = asn1.decode_der(asn1.TLV, subject.spki_der)
    csr = x509.load_der_x509_csr(
        await _seal(draft.public_bytes(Encoding.DER), asn1.encode_der(info), signer, subject)
    )
    _verify(csr.signature, csr.tbs_certrequest_bytes, subject)
    return csr


async def _seal(draft_der: bytes, to_be_signed: bytes, signer: Signer, issuer: IssuerKey) -> bytes:
    signed = asn1.decode_der(_Signed, draft_der)
    octets = await signer.sign(issuer.key_id, to_be_signed)
    signed.to_be_signed = asn1.decode_der(asn1.TLV, to_be_signed)
    signed.signature = asn1.BitString(_as_x509(octets, issuer), 0)
    return asn1.encode_der(signed)


def _as_x509(octets: bytes, issuer: IssuerKey) -> bytes:
    # X.509 wants Ecdsa-Sig-Value (RFC 3279 §2.2.3) where JWS has r‖s (RFC 7518 §3.4).
    if isinstance(issuer.public_key, rsa.RSAPublicKey):
        return octets
    half = (issuer.public_key.key_size + 7) // 8
    if len(octets) != 2 * half:
        raise Broken(
            f"key '{issuer.key_id}' gave a signature of {len(octets)} bytes, expected {2 * half}"
        )
    return encode_dss_signature(
        int.from_bytes(octets[:half], "big"), int.from_bytes(octets[half:], "big")
    )


def _verify(signature: bytes, signed: bytes, issuer: IssuerKey) -> None:
    key = issuer.public_key
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), issuer.hash)
        else:
            key.verify(signature, signed, ec.ECDSA(issuer.hash))
    except InvalidSignature:
        raise Broken(f"the signature by key '{issuer.key_id}' does not verify") from None


@cache
def _place_holder() -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(1)
    return builder.revocation_date(datetime(2000, 1, 1, tzinfo=UTC)).build()


def _throwaway(issuer: IssuerKey) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = issuer.public_key
    return _throwaway_key("rsa" if isinstance(key, rsa.RSAPublicKey) else key.curve.name)


@cache
def _throwaway_key(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, THROWAWAY_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1() if kind == "secp256r1" else ec.SECP384R1())
