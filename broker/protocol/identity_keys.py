"""The key of a node's identity, as the node sends it: a PKCS#10 request that it has signed itself.

Names in it say nothing.  Pure, as all of this room.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.protocol.jwk import Jwk, jwk_from_public_key
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["IdentityKey", "certified_key", "parse_identity_request", "parse_node_name"]

MAX_REQUEST_BYTES: Final = 4096
"""Largest request for an identity, in bytes: one for a P-256 key has about 250."""

MAX_NODE_NAME_CHARS: Final = 253
"""Longest name of a node, in characters: that of a host name (RFC 1035 §2.3.4)."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A key that whoever sent the request has proven to hold."""

    spki_der: bytes = field(repr=False)
    spki_sha256: str
    jwk: Jwk


def parse_identity_request(der: bytes) -> IdentityKey:
    """Return the key of a request for an identity.

    Raises:
        Problem: badCSR or badPublicKey; tell the agent.
    """
    if not 0 < len(der) <= MAX_REQUEST_BYTES:
        raise _bad(f"has {len(der)} bytes, expected 1 to {MAX_REQUEST_BYTES}")
    try:
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
        is_signed = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise _bad("does not parse, expected DER of a PKCS#10 request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Problem(ProblemType.BAD_PUBLIC_KEY, "an identity's key is EC P-256, this is not")
    if not is_signed:
        raise _bad("is not signed by its key")
    spki_der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return IdentityKey(spki_der, hashlib.sha256(spki_der).hexdigest(), jwk_from_public_key(key))


def certified_key(certificate_der: bytes) -> str:
    """Return the SHA-256 of the key that an identity certificate of ours certifies."""
    key = x509.load_der_x509_certificate(certificate_der).public_key()
    spki_der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki_der).hexdigest()


def parse_node_name(text: object) -> str:
    """Return *text* if a node can be called so; raises Problem."""
    is_fit = isinstance(text, str) and len(text) <= MAX_NODE_NAME_CHARS
    if not isinstance(text, str) or not is_fit or _NAME.fullmatch(text) is None:
        shown = printable(str(text), 80)
        raise Problem(
            ProblemType.MALFORMED, f"node name {shown!r} is not made of lower case DNS labels"
        )
    return text


def _bad(what: str) -> Problem:
    return Problem(ProblemType.BAD_CSR, f"request for an identity {what}")
