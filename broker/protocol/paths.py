"""Whether certificates lead to a trust anchor: path, validity, constraints.

Private PKIs break rules that public ones keep, so this is a walk of RFC 5280 §6 with
the checks a private PKI can be held to, not the web's profile.  Policies and
revocation are not looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from broker.protocol.constraints import ConstrainedNames, check_name_constraints
from broker.protocol.extensions import without_warnings
from broker.protocol.identifiers import Identifier, IdentifierType, canonical_dns_name
from broker.protocol.parsed_certificate import (
    REMEMBERED_CERTIFICATES,
    ParsedCertificate,
    is_issued_by,
)
from broker.protocol.problems import Problem, printable

_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)
_PROCESSED_OIDS: Final = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    )
)
"""Extensions an issuer may mark critical: we honour them, or do not use what they limit."""


def check_path_to_anchor(
    certificates: Sequence[ParsedCertificate],
    anchors: Sequence[ParsedCertificate],
    at: datetime,
) -> str | None:
    """Return why no path from the first certificate to an anchor holds, or None.

    Each certificate must be signed by the next.
    """
    faults: list[str] = []
    for path in _paths_to(anchors, certificates):
        fault = _check_path(path, at)
        if fault is None:
            return None
        faults.append(fault)
    return faults[0] if faults else f"leads to none of the {len(anchors)} trust anchors"


def _paths_to(
    trusted: Sequence[ParsedCertificate], certificates: Sequence[ParsedCertificate]
) -> Iterator[list[ParsedCertificate]]:
    """Yield every path from the leaf to an anchor, the anchor last."""
    anchor_ders = {anchor.der for anchor in trusted}
    for length, certificate in enumerate(certificates, start=1):
        path = list(certificates[:length])
        if length > 1 and certificate.der in anchor_ders:
            yield path
        loaded = x509.load_der_x509_certificate(certificate.der)
        for anchor in trusted:
            if anchor.der != certificate.der and is_issued_by(
                loaded, x509.load_der_x509_certificate(anchor.der)
            ):
                yield [*path, anchor]


def _check_path(path: Sequence[ParsedCertificate], at: datetime) -> str | None:
    for certificate in path:
        subject = printable(certificate.subject, 200) or "the leaf"
        if at < certificate.not_before:
            return f"'{subject}' is not valid before {certificate.not_before}"
        if at > certificate.not_after:
            return f"'{subject}' is not valid after {certificate.not_after}"
    for certificate in path[:-1]:
        if _is_weakly_signed(certificate):
            return f"'{printable(certificate.subject, 200)}' is signed with MD5 or SHA-1"
    for depth in range(1, len(path)):
        fault = _check_issuer(path[depth], path[:depth])
        if fault is not None:
            return f"issuer '{printable(path[depth].subject, 200)}': {fault}"
    return None


def _check_issuer(issuer: ParsedCertificate, below: Sequence[ParsedCertificate]) -> str | None:
    if not issuer.is_ca:
        return "is no CA certificate"
    if issuer.key_usages and "keyCertSign" not in issuer.key_usages:
        return "may not sign certificates: keyCertSign is not among its key usages"
    if unknown := issuer.critical_oids - _PROCESSED_OIDS:
        return f"has the unknown critical extension {', '.join(sorted(unknown))}"
    between = [c for c in below[1:] if c.subject != c.issuer]
    if issuer.path_length is not None and len(between) > issuer.path_length:
        return f"allows {issuer.path_length} intermediates below it, the chain has {len(between)}"
    if (constraints := _name_constraints(issuer)) is None:
        return None
    constrained = [c for c in below if c is below[0] or c.subject != c.issuer]
    findings = (check_name_constraints(constraints, _names_in(c)) for c in constrained)
    return next((finding for finding in findings if finding is not None), None)


def _name_constraints(certificate: ParsedCertificate) -> x509.NameConstraints | None:
    if ExtensionOID.NAME_CONSTRAINTS.dotted_string not in certificate.extension_oids:
        return None
    return _constraints_in(certificate.der)


@functools.lru_cache(maxsize=REMEMBERED_CERTIFICATES)
def _constraints_in(issuer_der: bytes) -> x509.NameConstraints:
    """Return the constraints of an issuer, who comes back with every order, read once."""
    loaded = x509.load_der_x509_certificate(issuer_der)
    return loaded.extensions.get_extension_for_class(x509.NameConstraints).value


def _names_in(certificate: ParsedCertificate) -> ConstrainedNames:
    identifiers = set(certificate.identifiers)
    if not identifiers and certificate.common_name is not None and not certificate.is_ca:
        # Old clients take the common name for a host name when there is no other.
        try:
            name = canonical_dns_name(certificate.common_name)
            identifiers.add(Identifier(IdentifierType.DNS, name))
        except Problem:
            pass
    with without_warnings():
        subject = x509.load_der_x509_certificate(certificate.der).subject
    return ConstrainedNames(
        identifiers=frozenset(identifiers),
        other_kinds=frozenset(other.partition(":")[0] for other in certificate.other_names),
        subject=subject,
    )


def _is_weakly_signed(certificate: ParsedCertificate) -> bool:
    # Its signature was verified when the path was built, so its algorithm is a known one.
    loaded = x509.load_der_x509_certificate(certificate.der)
    return isinstance(loaded.signature_hash_algorithm, _WEAK_HASHES)
