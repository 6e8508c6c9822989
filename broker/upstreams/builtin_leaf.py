"""End-entity certificates of the built-in CA: what their profile says goes in, nothing else.

Of a request only the public key is used.  Whatever extensions a CSR asks for never reach a
certificate, so nothing can be smuggled through one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from broker.issuance.errors import Refused
from broker.protocol.extensions import KEY_USAGES, key_kind
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.upstreams.authority import Authority
from broker.upstreams.leaf_template import LeafTemplate, OwnPart
from broker.upstreams.sealing import Draft, draft_certificate

__all__ = [
    "CaProfile",
    "LeafKey",
    "Validity",
    "certificate_url",
    "crl_url",
    "leaf_draft",
    "parse_leaf_key",
]

LeafKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS: Final = 2048
"""Smallest RSA key that is certified, in bits (NIST SP 800-57 Part 1: 112 bits of strength)."""

MAX_RSA_BITS: Final = 4096
"""Largest RSA key that is certified, in bits: every verifier pays for its size."""

MAX_COMMON_NAME_CHARS: Final = 64
"""Longest common name, in characters (RFC 5280 appendix A.1, ub-common-name)."""

REMEMBERED_KINDS: Final = 256
"""Combinations of issuer, profile and kind of key whose common part is kept: more than anyone has,
each a few kilobytes."""

_NO_SUBJECT: Final = x509.Name([])
_KINDS: Final = frozenset({"ec-p256", "ec-p384", "ec-p521", "ed25519"})
_USAGE_OIDS: Final[Mapping[str, x509.ObjectIdentifier]] = {
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
}
_FITTING_USAGES: Final[Mapping[str, frozenset[str]]] = {
    "rsa": frozenset({"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment"}),
    "ec": frozenset({"digitalSignature", "nonRepudiation", "keyAgreement"}),
    "ed25519": frozenset({"digitalSignature", "nonRepudiation"}),
}
# What a key of each kind can do at all (RFC 3279 §2.3, RFC 5480 §3, RFC 8410 §5).


@dataclass(frozen=True, slots=True, kw_only=True)
class CaProfile:
    """A named class of certificates.

    Attributes:
        lifetime: From now on, when nothing is asked for.
        max_lifetime: The longest that may be asked for.
        extended_key_usages: ``serverAuth``, ``clientAuth``, ``emailProtection`` or dotted OIDs.
        key_usages: Names of RFC 5280 §4.2.1.3; those that a key of its kind cannot serve are
            left out of its certificate.
        policy_oids: Certificate policies, dotted.
        has_common_name: Whether the first DNS name is repeated in the subject, for old software.

    Raises:
        ValueError: The members contradict each other; the configuration is wrong.
    """

    lifetime: timedelta
    max_lifetime: timedelta
    extended_key_usages: tuple[str, ...] = ("serverAuth",)
    key_usages: tuple[str, ...] = ("digitalSignature", "keyEncipherment")
    policy_oids: tuple[str, ...] = ()
    has_common_name: bool = False

    def __post_init__(self) -> None:
        if not timedelta(0) < self.lifetime <= self.max_lifetime:
            raise ValueError(
                f"lifetime {self.lifetime} is not between nothing and the longest, "
                f"{self.max_lifetime}"
            )
        known = frozenset[str]().union(*_FITTING_USAGES.values())
        if unknown := set(self.key_usages) - known:
            raise ValueError(f"key usages {sorted(unknown)} are not for end entities")
        for name in (*self.extended_key_usages, *self.policy_oids):
            _oid(name)


@dataclass(frozen=True, slots=True)
class Validity:
    """Both ends of a certificate, whole seconds in UTC."""

    not_before: datetime
    not_after: datetime


def parse_leaf_key(spki_der: bytes) -> LeafKey:
    """Return the public key, if this CA certifies keys of its kind.

    Raises:
        Refused: badPublicKey.
    """
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(Problem(ProblemType.BAD_PUBLIC_KEY, "public key does not parse")) from None
    kind = key_kind(key)
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return key
    is_fit = kind in _KINDS
    if is_fit and isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise Refused(
        Problem(
            ProblemType.BAD_PUBLIC_KEY,
            f"public key is {kind}, expected RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, "
            + ", ".join(sorted(_KINDS)),
        )
    )


def certificate_url(base_url: str, issuer_name: str) -> str:
    """Return where the issuer's certificate is published (RFC 5280 §4.2.2.1)."""
    return f"{base_url}/ca/{issuer_name}.crt"


def crl_url(base_url: str, issuer_name: str) -> str:
    """Return where the issuer's revocation list is published (RFC 5280 §4.2.1.13)."""
    return f"{base_url}/crl/{issuer_name}.crl"


def leaf_draft(
    issuer: Authority,
    profile: CaProfile,
    *,
    identifiers: Sequence[Identifier],
    key: LeafKey,
    validity: Validity,
    serial: int,
    base_url: str,
) -> Draft:
    """Return the certificate to be signed.

    Raises:
        Refused: A key of this kind can serve none of the profile's usages.
    """
    subject = _subject(identifiers) if profile.has_common_name else _NO_SUBJECT
    names = x509.SubjectAlternativeName([_general_name(name) for name in identifiers])
    own = OwnPart(
        serial=serial,
        not_before=validity.not_before,
        not_after=validity.not_after,
        subject=subject,
        spki_der=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        # Critical when there is no subject (RFC 5280 §4.2.1.6).
        extensions=_own_extensions(names, key, is_critical=not subject.rdns),
    )
    return _template(issuer, profile, key_kind(key), base_url).fill(own)


def _own_extensions(
    names: x509.SubjectAlternativeName, key: LeafKey, *, is_critical: bool
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    return (
        _extension(names, is_critical=is_critical),
        _extension(x509.SubjectKeyIdentifier.from_public_key(key), is_critical=False),
    )


@lru_cache(maxsize=REMEMBERED_KINDS)
def _template(issuer: Authority, profile: CaProfile, kind: str, base_url: str) -> LeafTemplate:
    """Return what the certificates of an issuer, a profile and a kind of key have in common."""
    # In the places of what each has for itself stands something that is there anyway.
    key = issuer.key.public_key
    own = _own_extensions(
        x509.SubjectAlternativeName([x509.DNSName("invalid")]), key, is_critical=True
    )
    made = draft_certificate(
        x509.CertificateBuilder(
            issuer_name=issuer.certificate.subject,
            subject_name=_NO_SUBJECT,
            public_key=key,
            serial_number=1,
            not_valid_before=issuer.certificate.not_valid_before_utc,
            not_valid_after=issuer.certificate.not_valid_after_utc,
            extensions=[*own, *_common_extensions(issuer, profile, kind, base_url)],
        ),
        issuer.key,
    )
    return LeafTemplate(made, len(own))


def _common_extensions(
    issuer: Authority, profile: CaProfile, kind: str, base_url: str
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    issuer_url = x509.UniformResourceIdentifier(certificate_url(base_url, issuer.published_name))
    list_url = x509.UniformResourceIdentifier(crl_url(base_url, issuer.published_name))
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, issuer_url)
    extensions = [
        _extension(_key_usage(profile, kind), is_critical=True),
        _extension(x509.BasicConstraints(ca=False, path_length=None), is_critical=True),
        _extension(issuer.authority_key_identifier, is_critical=False),
        _extension(x509.AuthorityInformationAccess([access]), is_critical=False),
        _extension(
            x509.CRLDistributionPoints([x509.DistributionPoint([list_url], None, None, None)]),
            is_critical=False,
        ),
    ]
    if profile.extended_key_usages:
        usages = [_oid(name) for name in profile.extended_key_usages]
        extensions.append(_extension(x509.ExtendedKeyUsage(usages), is_critical=False))
    if profile.policy_oids:
        policies = [x509.PolicyInformation(_oid(name), None) for name in profile.policy_oids]
        extensions.append(_extension(x509.CertificatePolicies(policies), is_critical=False))
    return tuple(extensions)


def _extension(
    value: x509.ExtensionType, *, is_critical: bool
) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, is_critical, value)


def _key_usage(profile: CaProfile, kind: str) -> x509.KeyUsage:
    family = kind.partition("-")[0]
    wanted = _FITTING_USAGES[family] & set(profile.key_usages)
    if not wanted:
        raise Refused(
            Problem(
                ProblemType.BAD_PUBLIC_KEY,
                f"a key of kind {kind} can serve none of the profile's usages "
                + ", ".join(profile.key_usages),
            )
        )
    usages = {attribute: name in wanted for attribute, name in KEY_USAGES}
    return x509.KeyUsage(**usages, encipher_only=False, decipher_only=False)


def _general_name(identifier: Identifier) -> x509.GeneralName:
    if identifier.type is IdentifierType.DNS:
        return x509.DNSName(identifier.value)
    if identifier.type is IdentifierType.IP:
        return x509.IPAddress(ipaddress.ip_address(identifier.value))
    return x509.RFC822Name(identifier.value)


def _subject(identifiers: Sequence[Identifier]) -> x509.Name:
    # Only a DNS name: some verifiers hold an address there against the constraints on names.
    names = [one.value for one in identifiers if one.type is IdentifierType.DNS]
    if not names or len(names[0]) > MAX_COMMON_NAME_CHARS:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])


def _oid(name: str) -> x509.ObjectIdentifier:
    known = _USAGE_OIDS.get(name)
    if known is not None:
        return known
    try:
        return x509.ObjectIdentifier(name)
    except ValueError:
        words = ", ".join(_USAGE_OIDS)
        raise ValueError(f"'{name}' is no dotted OID and none of {words}") from None
