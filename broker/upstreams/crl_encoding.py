"""The entries of a revocation list, encoded once each.

The X.509 library encodes all entries anew with every list, and holds the interpreter while it
does: half a second for 100,000 of them, in which the broker answers nobody.  An entry never
changes, so its encoding is kept here, and a list is the join of them.  Each entry is written by
the library's declarative ASN.1; of our own is only the length in front of their sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1

from broker.issuance.records import CaRevocation

__all__ = ["REASONS", "EntryCache", "with_entries"]

REASONS: Final[dict[int, x509.ReasonFlags | None]] = {
    0: None,
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
}
"""The reasons (RFC 5280 §5.3.1) an end entity can be revoked for.

2 and 10 speak of authorities, 6 and 8 of a hold that could be lifted, 7 is not used.  0 is
written as no reason at all, which RFC 5280 §5.3.1 asks for.
"""

LAST_UTC_TIME: Final = datetime(2050, 1, 1, tzinfo=UTC)
"""From here on times are GeneralizedTime (RFC 5280 §5.1.2.6)."""

_SEQUENCE: Final = 0x30
"""Tag of a SEQUENCE (ITU-T X.690 §8.9)."""

_LONG_LENGTH: Final = 0x80
"""From here on a length has octets of its own, and says first how many (ITU-T X.690 §8.1.3)."""


@asn1.sequence
class _Extension:
    """One that is not critical (RFC 5280 §4.1)."""

    oid: x509.ObjectIdentifier
    value: bytes


@asn1.sequence
class _Entry:
    """One of revokedCertificates, without extensions (RFC 5280 §5.1)."""

    serial: int
    revoked_at: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _EntryWithReason:
    """One of revokedCertificates, with a reason."""

    serial: int
    revoked_at: asn1.UTCTime | asn1.GeneralizedTime
    extensions: list[_Extension]


@asn1.sequence
class _List:
    """TBSCertList with entries (RFC 5280 §5.1)."""

    version: int
    algorithm: asn1.TLV
    issuer: asn1.TLV
    this_update: asn1.TLV
    next_update: asn1.TLV
    entries: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(0)]


class EntryCache:
    """Keeps the encoding of each entry for as long as a list has it."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def encode(self, revoked: Sequence[CaRevocation]) -> Sequence[bytes]:
        """Return the entries for *revoked*, and forget all others."""
        known = self._kept
        self._kept = {one.serial: known.get(one.serial) or _encode(one) for one in revoked}
        return tuple(self._kept.values())


def with_entries(list_der: bytes, entries: Sequence[bytes]) -> bytes:
    """Return the TBSCertList *list_der*, which has entries, with *entries* in their place."""
    made = asn1.decode_der(_List, list_der)
    made.entries = asn1.decode_der(asn1.TLV, _sequence(b"".join(entries)))
    return asn1.encode_der(made)


def _encode(revocation: CaRevocation) -> bytes:
    at = revocation.revoked_at.replace(microsecond=0)
    when = asn1.UTCTime(at) if at < LAST_UTC_TIME else asn1.GeneralizedTime(at)
    serial = int(revocation.serial, 16)
    reason = _reason(revocation.revocation_reason or 0)
    if reason is None:
        return asn1.encode_der(_Entry(serial=serial, revoked_at=when))
    return asn1.encode_der(_EntryWithReason(serial=serial, revoked_at=when, extensions=[reason]))


@cache
def _reason(number: int) -> _Extension | None:
    flag = REASONS.get(number)
    if flag is None:
        return None
    reason = x509.CRLReason(flag)
    return _Extension(oid=reason.oid, value=reason.public_bytes())


def _sequence(content: bytes) -> bytes:
    """Return a SEQUENCE of *content* (ITU-T X.690 §8.1.3, the definite form)."""
    length = len(content)
    if length < _LONG_LENGTH:
        return bytes((_SEQUENCE, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((_SEQUENCE, _LONG_LENGTH | len(octets))) + octets + content
