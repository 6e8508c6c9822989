"""Who people are: by the user of their process, by a certificate, or by a token.

One person has one name, however they come, so that two approvals are of two people.  Whoever the
configuration does not name, and no group of a token gives a role to, is nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from broker.issuance.ports import Clock
from broker.policy.roles import Role, check_roles_apart
from broker.web.bearer import TokenVerifier, VerifiedToken
from broker.web.rights import Caller

__all__ = ["CertificateMatch", "Face", "NotKnown", "Person", "Register", "Roles"]

Roles = Mapping[str, frozenset[Role]]
"""Roles by community."""


class NotKnown(Exception):
    """Nobody that the configuration knows; the text says why, and nothing secret."""


class Face(StrEnum):
    """By what of a certificate a person is known."""

    EMAIL = "email"
    DNS = "dns"
    URI = "uri"
    SUBJECT = "subject"
    """The whole subject, as RFC 4514 writes it."""
    SHA256 = "sha256"
    """The certificate's fingerprint."""


@dataclass(frozen=True, slots=True)
class CertificateMatch:
    """What a certificate has to have to be a person's."""

    face: Face
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody whom the configuration names."""

    name: str
    roles: Roles
    users: frozenset[str] = frozenset()
    certificates: frozenset[CertificateMatch] = frozenset()
    subjects: frozenset[tuple[str, str]] = frozenset()
    """Name of the issuer and subject of tokens."""


class Register:
    """The people of one reading of the configuration."""

    def __init__(
        self,
        people: Sequence[Person],
        *,
        groups: Mapping[str, Mapping[str, Roles]],
        tokens: TokenVerifier,
        refused: frozenset[str],
        clock: Clock,
    ) -> None:
        """Know *people*, and the roles that *groups* of each issuer give.

        *refused* are fingerprints of certificates that are nobody's any more.
        """
        self._groups = groups
        self._tokens = tokens
        self._refused = refused
        self._clock = clock
        self._by_user = {user: one for one in people for user in one.users}
        self._by_face = {match: one for one in people for match in one.certificates}
        self._by_subject = {subject: one for one in people for subject in one.subjects}
        self.has_approvers = any(Role.APPROVER in held for one in people for held in
                                 one.roles.values()) or any(
            Role.APPROVER in held
            for issuer in groups.values()
            for roles in issuer.values()
            for held in roles.values()
        )  # fmt: skip
        """Whether anybody could be an approver."""

    def by_user(self, user: str, *, is_owner: bool) -> Caller | None:
        """Return who the process of *user* speaks for, None when they are nobody here."""
        person = self._by_user.get(user)
        if person is None and not is_owner:
            return None
        return Caller(
            name=user if person is None else person.name,
            roles={} if person is None else person.roles,
            is_owner=is_owner,
            is_person=person is not None,
            proof={"user": user},
        )

    def by_certificate(self, der: bytes) -> Caller:
        """Return whose certificate it is that TLS has verified.

        Raises:
            NotKnown: It is nobody's, or of two people.
        """
        fingerprint = hashlib.sha256(der).hexdigest()
        if fingerprint in self._refused:
            raise NotKnown("certificate is one that the configuration refuses")
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            # TLS takes what this reader is too strict for.
            raise NotKnown("certificate cannot be read") from None
        _verify_time(certificate, self._clock.now())
        people = {
            one.name: one
            for match in _faces(certificate, fingerprint)
            if (one := self._by_face.get(match)) is not None
        }
        if len(people) > 1:
            raise NotKnown(f"certificate is of {' and '.join(sorted(people))}, expected one person")
        if not people:
            raise NotKnown("certificate is nobody's that the configuration names")
        (person,) = people.values()
        proof = {
            "certificate": fingerprint,
            "subject": certificate.subject.rfc4514_string()[:500],
            "serial": f"{certificate.serial_number:x}",
        }
        return Caller(name=person.name, roles=person.roles, is_person=True, proof=proof)

    async def by_token(self, text: str, certificate_der: bytes | None) -> Caller:
        """Return whose token it is.

        Raises:
            NotKnown: It is nobody's, or its groups combine roles that have to be apart.
            TokenRejected: It proves nothing.
            Unreachable: Its issuer's keys cannot be had.
        """
        token = await self._tokens.verify(text, certificate_der)
        person = self._by_subject.get((token.issuer_name, token.subject))
        name = f"{token.issuer_name}/{token.subject}" if person is None else person.name
        roles = self._roles_of(token, person)
        if not any(roles.values()):
            raise NotKnown(f"'{name}' has no role here, neither by name nor by a group")
        apart = check_roles_apart(roles)
        if apart:
            raise NotKnown(f"'{name}': {'; '.join(apart)}")
        proof = {"issuer": token.issuer, "subject": token.subject}
        if token.token_id is not None:
            proof["token_id"] = token.token_id
        return Caller(name=name, roles=roles, is_person=True, proof=proof)

    def _roles_of(self, token: VerifiedToken, person: Person | None) -> Roles:
        given = self._groups[token.issuer_name]
        sources = [given[group] for group in sorted(token.groups) if group in given]
        if person is not None:
            sources.append(person.roles)
        roles: dict[str, frozenset[Role]] = {}
        for source in sources:
            for community, held in source.items():
                roles[community] = roles.get(community, frozenset()) | held
        return roles


def _verify_time(certificate: x509.Certificate, now: datetime) -> None:
    # TLS has looked at it when the connection began, which may be long ago.
    if now > certificate.not_valid_after_utc:
        raise NotKnown("certificate has expired")


def _faces(certificate: x509.Certificate, fingerprint: str) -> Sequence[CertificateMatch]:
    found = [CertificateMatch(Face.SHA256, fingerprint)]
    subject = certificate.subject.rfc4514_string()
    if subject:
        found.append(CertificateMatch(Face.SUBJECT, subject))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        ValueError,
    ):
        return found
    kinds = ((Face.EMAIL, x509.RFC822Name), (Face.DNS, x509.DNSName),
             (Face.URI, x509.UniformResourceIdentifier))  # fmt: skip
    return found + [
        CertificateMatch(face, _plain(face, value))
        for face, kind in kinds
        for value in names.get_values_for_type(kind)
    ]


def _plain(face: Face, value: str) -> str:
    """Return *value* as the configuration has it: hosts in lower case, all else as it is."""
    if face is Face.EMAIL:
        local, at, host = value.rpartition("@")
        return f"{local}{at}{host.lower()}"
    return value.lower() if face is Face.DNS else value
