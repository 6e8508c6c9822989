"""Root and issuing CA of the built-in CA: how they are made, read and kept within their names.

An `Authority` is a CA certificate with the name of its key.  The key itself stays behind
``ports.Signer``; which there are and what each is for is ``authority_state``.  A root made here
signs issuing CAs only; an offline root signs our request (`issuing_csr`), and its answer is read in
``root_answer``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken, Conflict
from broker.issuance.ports import Clock, Signer
from broker.protocol.constraints import ConstrainedNames, check_name_constraints
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.name_constraints import (
    UNCONSTRAINED,
    PermittedNames,
    certifiable_types,
    name_constraints_extension,
)
from broker.upstreams.sealing import IssuerKey, parse_issuer_key, seal_certificate, seal_csr

__all__ = [
    "Authority",
    "AuthorityPlan",
    "IssuerSet",
    "PermittedNames",
    "RetiredIssuer",
    "create_issuing",
    "create_root",
    "issuing_csr",
    "new_serial",
]

BACKDATE: Final = timedelta(seconds=60)
"""How far before its signing a CA certificate begins, for verifiers whose clock is behind."""

SERIAL_BITS: Final = 159
"""Random bits of a serial: what 20 octets hold without a sign bit (RFC 5280 §4.1.2.2)."""

PUBLISHED_NAME_DIGITS: Final = 32
"""Hex digits of an issuer's published name that is made of its key: 128 bits, so that no two
issuers of anybody ever share one."""

_FILE_KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
# It becomes part of a URL and of a file name.
_STORED_KEY_ID: Final = re.compile(r"[a-z]+:[A-Za-z0-9._/-]{1,250}#[1-9][0-9]{0,8}", re.ASCII)
# A version of a key in a store of keys.  It is published under another name.


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityPlan:
    """What a CA certificate is to say.

    Attributes:
        key_id: Name of its key at the signer: lower case letters, digits, dot, dash, underscore; or
            the version of a key in a store, ``vault:MOUNT/NAME#VERSION``.
        subject: Distinguished name in RFC 4514 form, such as ``CN=Example Root,O=Example``.
        lifetime: From now on.
        kind: Kind of key to make: ``ec-p256``, ``ec-p384``, ``rsa-2048``, ``rsa-3072``…
        permitted: Names it may certify; nothing given means no constraint.
        is_made: Whether the key is there already: somebody else makes the keys of that store.
    """

    key_id: str
    subject: str
    lifetime: timedelta
    kind: str = "ec-p256"
    permitted: PermittedNames = UNCONSTRAINED
    is_made: bool = False


@dataclass(frozen=True)
class Authority:
    """A CA certificate, the name of its key, and the certificate that vouches for it.

    ``parent`` is None for a root.  Without slots, since what is read from the certificate for every
    leaf is kept.
    """

    key_id: str
    certificate: x509.Certificate
    parent: x509.Certificate | None = None

    @cached_property
    def key(self) -> IssuerKey:
        """Return the key it signs with."""
        spki = self.certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return parse_issuer_key(self.key_id, spki)

    @cached_property
    def published_name(self) -> str:
        """Return what its certificate and its revocation list are published under.

        That is the name of a key in a file.  Of a key in a store it is made from the public key:
        every certificate shows it, and where our keys lie is nobody's business.
        """
        if _FILE_KEY_ID.fullmatch(self.key_id) is not None:
            return self.key_id
        return hashlib.sha256(self.key.spki_der).hexdigest()[:PUBLISHED_NAME_DIGITS]

    @cached_property
    def der(self) -> bytes:
        """Return the certificate's DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @cached_property
    def pem(self) -> bytes:
        """Return the certificate as one PEM block."""
        return self.certificate.public_bytes(Encoding.PEM)

    @cached_property
    def authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """Return the extension that its certificates point back with."""
        subject_key = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key.value)

    @cached_property
    def not_after(self) -> datetime:
        """Return the last moment at which anything it signed can verify."""
        return min(certificate.not_valid_after_utc for certificate in self._path)

    def check_names(self, identifiers: Collection[Identifier]) -> str | None:
        """Return why this CA may not certify *identifiers*, or None.

        A verifier refuses what is outside its issuer's constraints, so signing it helps nobody.
        """
        names = ConstrainedNames(frozenset(identifiers), frozenset(), x509.Name([]))
        for constraints in self._constraints:
            fault = check_name_constraints(constraints, names)
            if fault is not None:
                return fault
        beyond = frozenset(str(one.type) for one in identifiers) - self.identifier_types
        return f"of type {', '.join(sorted(beyond))} it certifies nothing" if beyond else None

    @cached_property
    def identifier_types(self) -> frozenset[str]:
        """Return the types of identifiers that the constraints leave something of."""
        return certifiable_types(self._constraints)

    @cached_property
    def _constraints(self) -> tuple[x509.NameConstraints, ...]:
        return tuple(
            extension.value
            for certificate in self._path
            for extension in certificate.extensions
            if isinstance(extension.value, x509.NameConstraints)
        )

    @property
    def _path(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate,) if self.parent is None else (self.certificate, self.parent)


@dataclass(frozen=True, slots=True)
class RetiredIssuer:
    """An issuing CA whose key is gone, with its last revocation list."""

    authority: Authority
    last_crl_der: bytes


@dataclass(frozen=True, slots=True)
class IssuerSet:
    """The issuing CAs that live beside each other.

    ``current`` signs.  ``next`` is published before it takes over, so that verifiers know it in
    time; those in ``past`` sign revocation lists until the last certificate of theirs has ended.
    ``retired`` ones sign nothing any more; what they left stays published.
    """

    current: Authority
    next: Authority | None = None
    past: tuple[Authority, ...] = ()
    retired: tuple[RetiredIssuer, ...] = ()

    def __iter__(self) -> Iterator[Authority]:
        """Return those that can sign, the current one first."""
        yield self.current
        if self.next is not None:
            yield self.next
        yield from self.past

    def find(self, key_id: str) -> Authority | None:
        """Return the issuer that can sign with this key, or None."""
        return next((issuer for issuer in self if issuer.key_id == key_id), None)

    def find_retired(self, key_id: str) -> RetiredIssuer | None:
        """Return the retired issuer that had this key, or None."""
        return next((one for one in self.retired if one.authority.key_id == key_id), None)

    def find_published(self, key_id: str) -> Authority | None:
        """Return the issuer of this key, whether it can still sign or not."""
        issuer, retired = self.find(key_id), self.find_retired(key_id)
        return retired.authority if issuer is None and retired is not None else issuer

    def find_named(self, published_name: str) -> Authority | None:
        """Return the issuer that is published under this name, retired ones included."""
        everyone = (*self, *(one.authority for one in self.retired))
        return next((one for one in everyone if one.published_name == published_name), None)


def new_serial() -> int:
    """Return a random serial number that is not zero (RFC 5280 §4.1.2.2)."""
    return secrets.randbelow(2**SERIAL_BITS - 1) + 1


async def create_root(signer: Signer, clock: Clock, plan: AuthorityPlan) -> Authority:
    """Make a key and a self-signed root that may sign issuing CAs, and nothing below them.

    Raises:
        Conflict: There is a key of that name already.  Choose another name.
        Broken: The plan is impossible, or the signer's answer does not verify.
    """
    subject = _parse_plan(plan)
    key = parse_issuer_key(plan.key_id, await _key_for(plan, signer))
    builder = _ca_builder(plan, subject, subject, key, clock.now(), path_length=1)
    return Authority(plan.key_id, await seal_certificate(builder, signer, key))


async def create_issuing(
    signer: Signer, clock: Clock, plan: AuthorityPlan, root: Authority
) -> Authority:
    """Make a key and an issuing CA under *root* that may sign end entities only.

    Raises:
        Conflict: There is a key of that name already.  Choose another name.
        Broken: The plan is impossible, outlives the root, or the answer does not verify.
    """
    subject = _parse_plan(plan)
    now = clock.now()
    end = now + plan.lifetime
    if end > root.not_after:
        raise Broken(
            f"issuing CA would end {end:%Y-%m-%d}, its root ends {root.not_after:%Y-%m-%d}"
        )
    if subject == root.certificate.subject:
        raise Broken(f"issuing CA and root would both be called '{plan.subject}'")
    suffixes = [
        Identifier(IdentifierType.DNS, name.lower()) for name in plan.permitted.dns_suffixes
    ]
    fault = root.check_names(suffixes)
    if fault is not None:
        raise Broken(f"issuing CA would be permitted more than its root: {fault}")
    key = parse_issuer_key(plan.key_id, await _key_for(plan, signer))
    builder = _ca_builder(plan, subject, root.certificate.subject, key, now, path_length=0)
    builder = builder.add_extension(root.authority_key_identifier, critical=False)
    certificate = await seal_certificate(builder, signer, root.key)
    return Authority(plan.key_id, certificate, root.certificate)


async def issuing_csr(signer: Signer, plan: AuthorityPlan) -> bytes:
    """Return a PEM request that an offline root can sign, making the key if there is none.

    Asking again with a key that exists gives a request for that key, so that a lost file costs
    nothing.  ``lifetime`` and ``permitted`` are the root's to decide and are not asked for.

    Raises:
        Broken: The plan is impossible, or the signer's answer does not verify.
    """
    subject = _parse_plan(plan)
    try:
        spki_der = await _key_for(plan, signer)
    except Conflict:
        spki_der = await signer.public_key(plan.key_id)
    key = parse_issuer_key(plan.key_id, spki_der)
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_key_usage(), critical=True)
    )
    return (await seal_csr(builder, signer, key)).public_bytes(Encoding.PEM)


async def _key_for(plan: AuthorityPlan, signer: Signer) -> bytes:
    if plan.is_made:
        return await signer.public_key(plan.key_id)
    return await signer.create_key(plan.key_id, plan.kind)


def _parse_plan(plan: AuthorityPlan) -> x509.Name:
    if not any(form.fullmatch(plan.key_id) for form in (_FILE_KEY_ID, _STORED_KEY_ID)):
        raise Broken(
            f"key id '{plan.key_id}' is not made of at most 64 lower case letters, digits, "
            "dots, dashes and underscores, nor of the form vault:MOUNT/NAME#VERSION"
        )
    if plan.lifetime <= timedelta(0):
        raise Broken(f"lifetime of '{plan.key_id}' is {plan.lifetime}, expected more than nothing")
    try:
        subject = x509.Name.from_rfc4514_string(plan.subject)
    except ValueError:
        raise Broken(
            f"subject '{plan.subject}' is not of the form CN=Example Root,O=Example"
        ) from None
    if not list(subject):
        raise Broken("subject is empty, a CA needs a name (RFC 5280 §4.1.2.6)")
    # For its faults alone: they have to come to light before a key is made.
    name_constraints_extension(plan.permitted)
    return subject


def _ca_builder(
    plan: AuthorityPlan,
    subject: x509.Name,
    issuer: x509.Name,
    key: IssuerKey,
    now: datetime,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    start = now.replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key)
        .serial_number(new_serial())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + plan.lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_ca_key_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key), critical=False)
    )
    constraints = name_constraints_extension(plan.permitted)
    return builder if constraints is None else builder.add_extension(constraints, critical=True)


def _ca_key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
