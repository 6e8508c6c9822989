"""Certificates and chains as a CA sends them, read with suspicion.

A CA is trusted to issue, not to send the right thing: what comes back is parsed
strictly here, and compared with what was asked for by policy.  The time, where it
matters, is an argument.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509

from broker.protocol.encoding import encode_base64url
from broker.protocol.parsed_certificate import (
    ChainError,
    ParsedCertificate,
    is_issued_by,
    parse_certificate,
)
from broker.protocol.paths import check_path_to_anchor

__all__ = [
    "Chain",
    "ChainError",
    "ParsedCertificate",
    "cert_id",
    "is_issued_by",
    "parse_certificate",
    "parse_chain",
    "verify_chain_anchored",
]

MAX_CHAIN_BYTES: Final = 100 * 1000
"""Largest chain that is read, in bytes; public chains are below 10 kB."""

MAX_CHAIN_CERTIFICATES: Final = 10
"""Longest chain that is read, in certificates; public chains have two to four."""

_PEM_BLOCK: Final = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----\s*"
)


@dataclass(frozen=True, slots=True)
class Chain:
    """A leaf and its issuers, each signed by the next.

    ``pem`` is what the CA sent, byte for byte; only a chain that came in another
    order is written anew, leaf first.
    """

    leaf: ParsedCertificate
    issuers: tuple[ParsedCertificate, ...]
    pem: bytes = field(repr=False)


def parse_chain(pem: bytes) -> Chain:
    """Return the chain a CA sent, leaf first and each certificate signed by the next.

    Certificates in another order are put in order when their signatures leave only
    one; anything that is not part of the one path is refused.

    Raises:
        ChainError: Keep what you had, raise the alarm, and do not just ask again.
    """
    parsed = [parse_certificate(der) for der in _split_pem(pem)]
    if len({certificate.fingerprint for certificate in parsed}) != len(parsed):
        raise ChainError("chain has a certificate twice")
    loaded = [x509.load_der_x509_certificate(certificate.der) for certificate in parsed]
    in_order = all(is_issued_by(certificate, issuer) for certificate, issuer in pairwise(loaded))
    if in_order:
        return Chain(parsed[0], tuple(parsed[1:]), pem)
    ordered = [parsed[index] for index in _order_by_signature(loaded)]
    return Chain(ordered[0], tuple(ordered[1:]), b"".join(c.pem for c in ordered))


def cert_id(certificate: ParsedCertificate) -> str:
    """Return the identifier that renewal information goes by (RFC 9773 §4.1).

    Raises:
        ChainError: If the certificate has no authority key identifier; such a one has
            no renewal information.
    """
    if not certificate.authority_key_id:
        raise ChainError("certificate has no authority key identifier")
    octets = bytes.fromhex(certificate.serial)
    if octets[0] & 0x80:
        # DER writes a positive INTEGER with a leading zero octet where it would look negative.
        octets = b"\x00" + octets
    return f"{encode_base64url(certificate.authority_key_id)}.{encode_base64url(octets)}"


def verify_chain_anchored(chain: Chain, anchors: Sequence[bytes], at: datetime) -> Chain:
    """Return the chain, proven to lead to one of the anchors (DER) at a moment.

    A walk of RFC 5280 §6 with what a private PKI can be held to: signatures, validity
    of every certificate, basicConstraints with path length, keyCertSign, name
    constraints.  An anchor may be a root or an intermediate, and may be missing from
    the chain; the leaf cannot be its own anchor.  Policies and revocation are not
    looked at.

    Raises:
        ChainError: With the reason why the likeliest path fails.
    """
    trusted = [parse_certificate(anchor) for anchor in anchors]
    fault = check_path_to_anchor([chain.leaf, *chain.issuers], trusted, at)
    if fault is not None:
        raise ChainError(f"chain: {fault}")
    return chain


def _split_pem(pem: bytes) -> list[bytes]:
    if len(pem) > MAX_CHAIN_BYTES:
        raise ChainError(f"chain has {len(pem)} bytes, the limit is {MAX_CHAIN_BYTES}")
    ders: list[bytes] = []
    position = 0
    while position < len(pem):
        block = _PEM_BLOCK.match(pem, position)
        if block is None:
            if not pem[position:].strip():
                break
            raise ChainError("chain has something other than CERTIFICATE blocks in it")
        if len(ders) == MAX_CHAIN_CERTIFICATES:
            raise ChainError(f"chain has more than {MAX_CHAIN_CERTIFICATES} certificates")
        ders.append(_decode_block(block.group(1)))
        position = block.end()
    if not ders:
        raise ChainError("chain is empty")
    return ders


def _decode_block(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ChainError("chain has a CERTIFICATE block that is not base64") from error


def _order_by_signature(loaded: Sequence[x509.Certificate]) -> list[int]:
    indices = range(len(loaded))
    issuers = {
        child: [i for i in indices if i != child and is_issued_by(loaded[child], loaded[i])]
        for child in indices
    }
    issuing = {issuer for candidates in issuers.values() for issuer in candidates}
    leaves = [index for index in indices if index not in issuing]
    if len(leaves) != 1:
        raise ChainError(f"chain has {len(leaves)} certificates that issued no other, expected one")
    path = leaves
    while len(path) < len(loaded):
        candidates = issuers[path[-1]]
        if len(candidates) != 1 or candidates[0] in path:
            raise ChainError("chain is broken: its certificates do not form one path")
        path.append(candidates[0])
    return path
