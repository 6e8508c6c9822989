"""Which of the chains that a CA offers is wanted (RFC 8555 §7.4.2).

A wish is a common name or a SHA-256 fingerprint of where the chain leads: the issuer that its
topmost certificate names, as certbot and lego read ``--preferred-chain``, or that issuer's or the
topmost certificate's own DER.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.protocol.certificates import Chain, ParsedCertificate, is_issued_by, parse_certificate
from broker.protocol.extensions import LIBRARY_FAULTS

__all__ = ["is_wanted", "parse_chain_wish"]

MAX_NAME_CHARS: Final = 256
"""Longest common name that a wish may have, in characters; RFC 5280 §A.1 allows 64."""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_chain_wish(text: str) -> str:
    """Return a wish in its one spelling: fingerprints in lower case without colons.

    Raises:
        ValueError: It is neither a name nor a fingerprint.
    """
    digits = text.replace(":", "").lower()
    if _FINGERPRINT.fullmatch(digits):
        return digits
    if not text.strip() or text != text.strip() or len(text) > MAX_NAME_CHARS:
        raise ValueError(
            f"expected the common name of an issuer, at most {MAX_NAME_CHARS} characters, or a "
            "SHA-256 fingerprint in hex"
        )
    return text


def is_wanted(chain: Chain, wish: str, anchors: Sequence[bytes] = ()) -> bool:
    """Return whether *chain* leads where *wish* says.

    A root is seldom part of a chain, so a root's fingerprint is looked for among *anchors* (DER).
    """
    top = chain.issuers[-1] if chain.issuers else chain.leaf
    if _FINGERPRINT.fullmatch(wish) is None:
        return wish in _issuer_names(top)
    if chain.issuers and top.fingerprint == wish:
        return True
    issuer = next((a for a in map(parse_certificate, anchors) if a.fingerprint == wish), None)
    return issuer is not None and is_issued_by(_loaded(top), _loaded(issuer))


def _issuer_names(certificate: ParsedCertificate) -> tuple[str, ...]:
    try:
        names = _loaded(certificate).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    except LIBRARY_FAULTS:
        return ()
    return tuple(name.value for name in names if isinstance(name.value, str))


def _loaded(certificate: ParsedCertificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.der)
