"""End-entity certificates written over one that the X.509 library made.

Nearly all of a certificate is the same for its issuer, its profile and its kind of key.  The
library encodes all of that anew for each, which is half of what issuing costs.  So it makes one,
and later ones are that one with another serial, validity, subject, key, names and key identifier
in their places: each of these encoded by the library, and put together by its declarative ASN.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding

from broker.upstreams.sealing import Draft

__all__ = ["LeafTemplate", "OwnPart"]

LAST_UTC_TIME: Final = datetime(2050, 1, 1, tzinfo=UTC)
"""From here on times are GeneralizedTime (RFC 5280 §4.1.2.5)."""


@asn1.sequence
class _Validity:
    """Validity (RFC 5280 §4.1)."""

    not_before: asn1.UTCTime | asn1.GeneralizedTime
    not_after: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _Extension:
    """One that is not critical (RFC 5280 §4.1)."""

    oid: x509.ObjectIdentifier
    value: bytes


@asn1.sequence
class _CriticalExtension:
    """One that is."""

    oid: x509.ObjectIdentifier
    critical: bool
    value: bytes


@asn1.sequence
class _Certificate:
    """TBSCertificate of version 3, without unique identifiers (RFC 5280 §4.1)."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: _Validity
    subject: asn1.TLV
    key: asn1.TLV
    extensions: Annotated[list[asn1.TLV], asn1.Explicit(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPart:
    """What a certificate has for itself; its extensions come before those in common."""

    serial: int
    not_before: datetime
    not_after: datetime
    subject: x509.Name
    spki_der: bytes
    extensions: Sequence[x509.Extension[x509.ExtensionType]]


class LeafTemplate:
    """What certificates of one issuer, one profile and one kind of key have in common."""

    def __init__(self, made: x509.Certificate, own_extensions: int) -> None:
        """Take it from one that was *made*, whose first *own_extensions* are its own."""
        self._draft_der = made.public_bytes(Encoding.DER)
        first = asn1.decode_der(_Certificate, made.tbs_certificate_bytes)
        self._version = first.version
        self._algorithm = first.algorithm
        self._issuer = first.issuer
        self._common = first.extensions[own_extensions:]

    def fill(self, own: OwnPart) -> Draft:
        """Return the certificate with *own* in it, to be signed."""
        to_be_signed = asn1.encode_der(
            _Certificate(
                version=self._version,
                serial=own.serial,
                algorithm=self._algorithm,
                issuer=self._issuer,
                validity=_Validity(
                    not_before=_time(own.not_before), not_after=_time(own.not_after)
                ),
                subject=asn1.decode_der(asn1.TLV, own.subject.public_bytes()),
                key=asn1.decode_der(asn1.TLV, own.spki_der),
                extensions=[*map(_extension, own.extensions), *self._common],
            )
        )
        return Draft(self._draft_der, to_be_signed)


def _time(moment: datetime) -> asn1.UTCTime | asn1.GeneralizedTime:
    return asn1.UTCTime(moment) if moment < LAST_UTC_TIME else asn1.GeneralizedTime(moment)


def _extension(extension: x509.Extension[x509.ExtensionType]) -> asn1.TLV:
    value = extension.value.public_bytes()
    if extension.critical:
        encoded = asn1.encode_der(_CriticalExtension(oid=extension.oid, critical=True, value=value))
    else:
        encoded = asn1.encode_der(_Extension(oid=extension.oid, value=value))
    return asn1.decode_der(asn1.TLV, encoded)
