"""Revocation lists of other CAs, read with suspicion, and whether a chain stands on none of them.

A list is believed when the CA that issued the certificate in question has signed it, it is current
and nothing in it is critical that is not understood here.  One that names its distribution point
may be one of several that the CA cut its list into: it speaks for certificates that name the same.
What no such list speaks for is refused, as is what stands on any list of that CA, however old:
unsure means no (RFC 5280 §6.3.3).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from broker.protocol.certificates import Chain, ChainError
from broker.protocol.extensions import LIBRARY_FAULTS
from broker.protocol.parsed_certificate import is_issued_by

__all__ = ["RevocationList", "RevocationUnknown", "parse_revocation_lists", "verify_unrevoked"]

MAX_LISTS: Final = 100
"""Most lists in one file; a PKI has one for each of its CAs."""

EARLY: Final = timedelta(minutes=5)
"""How far a list may begin in the future: clocks of CAs differ from ours."""

_BLOCK: Final = re.compile(
    rb"\s*-----BEGIN X509 CRL-----[ \t]*\r?\n([A-Za-z0-9+/=\s]+?)-----END X509 CRL-----\s*"
)
_FAULTS: Final = (InvalidSignature, UnsupportedAlgorithm, *LIBRARY_FAULTS)


class RevocationUnknown(ChainError):
    """Nobody can say whether a certificate was revoked: a fault for whoever runs the broker."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list as a CA publishes it; nothing of it has been verified."""

    issuer: x509.Name
    begins: datetime
    ends: datetime | None
    """When the next one is there at the latest; None: the list does not say."""
    is_understood: bool
    """Whether it is about all certificates of its issuer, or all of its distribution point, as far
    as it can be read here."""
    names: tuple[x509.GeneralName, ...] | None
    """Names of its distribution point; None: it has none, and is about all certificates."""
    loaded: x509.CertificateRevocationList = field(repr=False)


def parse_revocation_lists(octets: bytes) -> tuple[RevocationList, ...]:
    """Return the lists in a file: one in DER, or any number in PEM.

    Raises:
        RevocationUnknown: Something in it is no list, or there is none.
    """
    ders = _split(octets) if octets.lstrip().startswith(b"-----BEGIN") else [octets]
    try:
        return tuple(_read(x509.load_der_x509_crl(der)) for der in ders)
    except _FAULTS as error:
        raise RevocationUnknown("revocation list cannot be read") from error


def verify_unrevoked(
    chain: Chain, anchors: Sequence[bytes], lists: Sequence[RevocationList], at: datetime
) -> Chain:
    """Return the chain, none of whose certificates below an anchor was revoked.

    What is looked at is the leaf and everything that came along and stands above it.

    Raises:
        RevocationUnknown: No current list speaks for one of them.
        ChainError: One was revoked.
    """
    trusted = [x509.load_der_x509_certificate(der) for der in anchors]
    shown = [x509.load_der_x509_certificate(one.der) for one in chain.issuers]
    waiting = [x509.load_der_x509_certificate(chain.leaf.der)]
    seen: list[x509.Certificate] = []
    while waiting:
        one = waiting.pop()
        if one in seen or one in trusted:
            continue
        seen.append(one)
        issuers = [other for other in (*trusted, *shown) if is_issued_by(one, other)]
        _check(one, issuers, lists, at)
        waiting += issuers
    return chain


def _check(
    certificate: x509.Certificate,
    issuers: Iterable[x509.Certificate],
    lists: Sequence[RevocationList],
    at: datetime,
) -> None:
    issuers = list(issuers)
    signed = [
        one
        for one in lists
        if one.issuer == certificate.issuer and any(_has_signed(other, one) for other in issuers)
    ]
    for one in signed:
        entry = one.loaded.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if entry is not None:
            day = entry.revocation_date_utc.date()
            raise ChainError(f"certificate {_named(certificate)} was revoked on {day}")
    points = _points_of(certificate)
    usable = [one for one in signed if one.is_understood and _is_about(one, points)]
    if not any(_is_current(one, at) for one in usable):
        issuer = certificate.issuer.rfc4514_string()
        raise RevocationUnknown(
            f"no current revocation list of '{issuer}' is there, {_why_not(lists, signed, usable)}"
        )


def _why_not(
    lists: Sequence[RevocationList],
    signed: Sequence[RevocationList],
    usable: Sequence[RevocationList],
) -> str:
    if not signed:
        return f"and none of the {len(lists)} at hand is signed by it"
    if not any(one.is_understood for one in signed):
        return "what there is has parts that are not understood"
    if not usable:
        return "what there is has a distribution point that the certificate does not name"
    ends = max((one.ends for one in usable if one.ends is not None), default=None)
    return "what there is names no end" if ends is None else f"the newest ended {ends.isoformat()}"


def _points_of(certificate: x509.Certificate) -> frozenset[x509.GeneralName]:
    """Return the names under which its issuer's own lists, for every reason, are to be had."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *_FAULTS):
        return frozenset()
    whole = [one for one in found if one.reasons is None and one.crl_issuer is None]
    return frozenset(name for one in whole for name in one.full_name or ())


def _is_about(one: RevocationList, points: frozenset[x509.GeneralName]) -> bool:
    """Return whether a list is about the certificate with these points (RFC 5280 §6.3.3)."""
    return one.names is None or not points.isdisjoint(one.names)


def _is_current(one: RevocationList, at: datetime) -> bool:
    return one.ends is not None and one.begins - EARLY <= at < one.ends


def _has_signed(issuer: x509.Certificate, one: RevocationList) -> bool:
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    except _FAULTS:
        return False
    try:
        return one.issuer == issuer.subject and one.loaded.is_signature_valid(
            issuer.public_key()  # type: ignore[arg-type]  # other kinds are a fault of the library
        )
    except (*_FAULTS, TypeError):
        return False


def _read(loaded: x509.CertificateRevocationList) -> RevocationList:
    return RevocationList(
        issuer=loaded.issuer,
        begins=loaded.last_update_utc,
        ends=loaded.next_update_utc,
        is_understood=_is_understood(loaded),
        names=_names_of(loaded),
        loaded=loaded,
    )


def _is_understood(loaded: x509.CertificateRevocationList) -> bool:
    """Return whether it is a whole list of its issuer's own certificates, or of those of one
    distribution point (RFC 5280 §5.2)."""
    for extension in loaded.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return False
        if isinstance(value, x509.IssuingDistributionPoint):
            is_partial = (
                value.only_contains_user_certs
                or value.only_contains_ca_certs
                or value.only_contains_attribute_certs
                or value.only_some_reasons is not None
                or value.indirect_crl
                or value.relative_name is not None
            )
            if is_partial:
                return False
        elif extension.critical:
            return False
    return True


def _names_of(loaded: x509.CertificateRevocationList) -> tuple[x509.GeneralName, ...] | None:
    for extension in loaded.extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint) and value.full_name is not None:
            return tuple(value.full_name)
    return None


def _split(octets: bytes) -> list[bytes]:
    ders: list[bytes] = []
    position = 0
    while octets[position:].strip():
        block = _BLOCK.match(octets, position)
        if block is None or len(ders) == MAX_LISTS:
            raise RevocationUnknown(
                "file of revocation lists has something else in it, or too many"
            )
        try:
            ders.append(base64.b64decode(b"".join(block.group(1).split()), validate=True))
        except binascii.Error:
            raise RevocationUnknown("revocation list is no base64") from None
        position = block.end()
    return ders


def _named(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x} of '{certificate.issuer.rfc4514_string()}'"
