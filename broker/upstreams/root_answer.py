"""What an offline root answers to our request: read with suspicion before it becomes an issuing CA.

The request itself is ``authority.issuing_csr``.  Only the roots that the operator names are
believed, and whatever the answer grants beyond signing end entities is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken
from broker.issuance.ports import Clock, Signer
from broker.upstreams.authority import Authority
from broker.upstreams.sealing import parse_issuer_key

__all__ = ["accept_issuing"]


async def accept_issuing(
    certificate_pem: bytes,
    *,
    key_id: str,
    signer: Signer,
    clock: Clock,
    anchors: Sequence[x509.Certificate],
) -> Authority:
    """Return the issuing CA that an offline root made of our request, once it proves sound.

    *certificate_pem* may carry the root behind it; only *anchors* are believed.

    Raises:
        Broken: Saying what is wrong with the certificate.  Ask the root's keeper for another.
    """
    try:
        certificate = x509.load_pem_x509_certificates(certificate_pem)[0]
        spki = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        extensions = certificate.extensions
    except ValueError:
        raise Broken("issuing certificate does not parse, expected PEM") from None
    if spki != await signer.public_key(key_id):
        raise Broken(f"issuing certificate is for another key than '{key_id}'")
    _check_ca_extensions(extensions)
    now = clock.now()
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise Broken(
            f"issuing certificate runs {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, not now"
        )
    authority = Authority(key_id, certificate, _find_anchor(certificate, anchors, now))
    parse_issuer_key(key_id, spki)
    return authority


def _check_ca_extensions(extensions: x509.Extensions) -> None:
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound as error:
        raise Broken(f"issuing certificate lacks extension {error.oid.dotted_string}") from None
    if not basic.ca:
        raise Broken("issuing certificate is no CA certificate (basicConstraints)")
    if basic.path_length != 0:
        raise Broken(f"issuing certificate has path length {basic.path_length}, expected 0")
    if not (usage.key_cert_sign and usage.crl_sign):
        raise Broken("issuing certificate lacks key usage keyCertSign or cRLSign")


def _find_anchor(
    certificate: x509.Certificate, anchors: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    for anchor in anchors:
        try:
            certificate.verify_directly_issued_by(anchor)
        except (ValueError, TypeError, InvalidSignature):
            continue
        if now >= anchor.not_valid_after_utc:
            raise Broken(f"root ended {anchor.not_valid_after_utc:%Y-%m-%d}")
        return anchor
    raise Broken("issuing certificate was not signed by any of the given roots")
