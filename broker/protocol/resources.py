"""ACME's resources as frozen values, written for our clients and read from our CAs.

``to_json`` writes what our server sends: members in a stable order (acme.sh reads
them with regular expressions), absent ones left out.  ``from_json`` reads what an
upstream CA sends: unknown members are ignored, known ones must have their type.
Request payloads of our own clients are read in ``requests``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.protocol import drafts
from broker.protocol.encoding import format_timestamp
from broker.protocol.identifiers import Identifier, IdentifierType, folded
from broker.protocol.members import (
    Members,
    ProtocolError,
    read_flag,
    read_list,
    read_object,
    read_text,
    read_texts_by_name,
    read_time,
    read_url,
    read_word,
)
from broker.protocol.problems import Problem

__all__ = [
    "Account",
    "AccountStatus",
    "Authorization",
    "AuthorizationStatus",
    "Challenge",
    "ChallengeStatus",
    "Directory",
    "DirectoryMeta",
    "Order",
    "OrderStatus",
    "ProtocolError",
]


class AccountStatus(StrEnum):
    """RFC 8555 §7.1.2."""

    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class OrderStatus(StrEnum):
    """RFC 8555 §7.1.3."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """RFC 8555 §7.1.4."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    """RFC 8555 §8."""

    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


def _peer_identifier(value: Any) -> Identifier:
    """Read an identifier as a CA spells it: upper case and a trailing dot are forgiven."""
    members = Members(value, "identifier")
    kind = members.required("type", read_word(IdentifierType))
    text = members.required("value", read_text)
    if kind is IdentifierType.DNS:
        text = text.lower().removesuffix(".")
    return Identifier(kind, folded(text) if kind is IdentifierType.EMAIL else text)


def _embedded_problem(value: Any) -> Problem:
    return Problem.from_json(value)


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _written(moment: datetime | None) -> str | None:
    return format_timestamp(moment) if moment is not None else None


@dataclass(frozen=True, slots=True)
class DirectoryMeta:
    """The directory's ``meta`` object."""

    terms_of_service: str | None = None
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the members that say something."""
        return _present(
            {
                "termsOfService": self.terms_of_service,
                "website": self.website,
                "caaIdentities": list(self.caa_identities) or None,
                "externalAccountRequired": self.external_account_required or None,
                drafts.PROFILES_META_MEMBER: dict(self.profiles) or None,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> DirectoryMeta:
        """Read a CA's ``meta``.

        Raises:
            ProtocolError: If a member has another type than it should.
        """
        members = Members(obj, "directory.meta")
        return cls(
            terms_of_service=members.optional("termsOfService", read_text),
            website=members.optional("website", read_text),
            caa_identities=members.optional("caaIdentities", read_list(read_text)) or (),
            external_account_required=bool(members.optional("externalAccountRequired", read_flag)),
            profiles=members.optional(drafts.PROFILES_META_MEMBER, read_texts_by_name) or {},
        )


@dataclass(frozen=True, slots=True)
class Directory:
    """RFC 8555 §7.1.1.

    ``revoke_cert`` and ``key_change`` are required by the RFC but left out by
    some CAs; whoever needs one of them has to look.
    """

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None = None
    key_change: str | None = None
    renewal_info: str | None = None
    new_authz: str | None = None
    meta: DirectoryMeta = field(default_factory=DirectoryMeta)

    def to_json(self) -> dict[str, object]:
        """Return the directory object."""
        return _present(
            {
                "newNonce": self.new_nonce,
                "newAccount": self.new_account,
                "newOrder": self.new_order,
                "newAuthz": self.new_authz,
                "revokeCert": self.revoke_cert,
                "keyChange": self.key_change,
                "renewalInfo": self.renewal_info,
                "meta": self.meta.to_json() or None,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> Directory:
        """Read a CA's directory.

        Raises:
            ProtocolError: If what every client needs is missing or no URL.
        """
        members = Members(obj, "directory")
        return cls(
            new_nonce=members.required("newNonce", read_url),
            new_account=members.required("newAccount", read_url),
            new_order=members.required("newOrder", read_url),
            revoke_cert=members.optional("revokeCert", read_url),
            key_change=members.optional("keyChange", read_url),
            renewal_info=members.optional("renewalInfo", read_url),
            new_authz=members.optional("newAuthz", read_url),
            meta=members.optional("meta", DirectoryMeta.from_json) or DirectoryMeta(),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """RFC 8555 §7.1.2."""

    status: AccountStatus
    contacts: tuple[str, ...] = ()
    terms_agreed: bool | None = None
    external_account_binding: Mapping[str, Any] | None = None
    orders: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the account object."""
        binding = self.external_account_binding
        return _present(
            {
                "status": str(self.status),
                "contact": list(self.contacts) or None,
                "termsOfServiceAgreed": self.terms_agreed,
                "externalAccountBinding": dict(binding) if binding is not None else None,
                "orders": self.orders,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> Account:
        """Read a CA's account object.

        Raises:
            ProtocolError: If a member is missing or has another type.
        """
        members = Members(obj, "account")
        return cls(
            status=members.required("status", read_word(AccountStatus)),
            contacts=members.optional("contact", read_list(read_text)) or (),
            terms_agreed=members.optional("termsOfServiceAgreed", read_flag),
            external_account_binding=members.optional("externalAccountBinding", read_object),
            orders=members.optional("orders", read_url),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """RFC 8555 §7.1.3, with ``replaces`` (RFC 9773 §5) and the profiles draft."""

    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    finalize: str
    expires: datetime | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    error: Problem | None = None
    certificate: str | None = None
    profile: str | None = None
    replaces: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the order object."""
        return _present(
            {
                "status": str(self.status),
                "expires": _written(self.expires),
                "identifiers": [identifier.to_json() for identifier in self.identifiers],
                "notBefore": _written(self.not_before),
                "notAfter": _written(self.not_after),
                "error": self.error.to_json() if self.error is not None else None,
                "authorizations": list(self.authorizations),
                "finalize": self.finalize,
                "certificate": self.certificate,
                drafts.PROFILE_MEMBER: self.profile,
                "replaces": self.replaces,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> Order:
        """Read a CA's order object.

        Raises:
            ProtocolError: If a member is missing or has another type.
        """
        members = Members(obj, "order")
        return cls(
            status=members.required("status", read_word(OrderStatus)),
            identifiers=members.required("identifiers", read_list(_peer_identifier)),
            authorizations=members.required("authorizations", read_list(read_url)),
            finalize=members.required("finalize", read_url),
            expires=members.optional("expires", read_time),
            not_before=members.optional("notBefore", read_time),
            not_after=members.optional("notAfter", read_time),
            error=members.optional("error", _embedded_problem),
            certificate=members.optional("certificate", read_url),
            profile=members.optional(drafts.PROFILE_MEMBER, read_text),
            replaces=members.optional("replaces", read_text),
        )


@dataclass(frozen=True, slots=True)
class Challenge:
    """RFC 8555 §7.1.5 and §8; ``type`` is plain text, since CAs offer types we do not know."""

    type: str
    url: str
    status: ChallengeStatus
    token: str | None = None
    validated: datetime | None = None
    error: Problem | None = None

    def to_json(self) -> dict[str, object]:
        """Return the challenge object, flat but for ``error``."""
        return _present(
            {
                "type": str(self.type),
                "url": self.url,
                "status": str(self.status),
                "token": self.token,
                "validated": _written(self.validated),
                "error": self.error.to_json() if self.error is not None else None,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> Challenge:
        """Read a CA's challenge object.

        The token is not judged here: a strange one in a challenge we never answer
        must not spoil the authorization.  `challenges.verify_token` judges it
        before it is used.

        Raises:
            ProtocolError: If a member is missing or has another type.
        """
        members = Members(obj, "challenge")
        return cls(
            type=members.required("type", read_text),
            url=members.required("url", read_url),
            status=members.required("status", read_word(ChallengeStatus)),
            token=members.optional("token", lambda v: v if isinstance(v, str) else None),
            validated=members.optional("validated", read_time),
            error=members.optional("error", _embedded_problem),
        )


@dataclass(frozen=True, slots=True)
class Authorization:
    """RFC 8555 §7.1.4."""

    identifier: Identifier
    status: AuthorizationStatus
    challenges: tuple[Challenge, ...] = ()
    expires: datetime | None = None
    wildcard: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the authorization object; ``wildcard`` appears only when true."""
        return _present(
            {
                "identifier": self.identifier.to_json(),
                "status": str(self.status),
                "expires": _written(self.expires),
                "challenges": [challenge.to_json() for challenge in self.challenges],
                "wildcard": self.wildcard or None,
            }
        )

    @classmethod
    def from_json(cls, obj: object) -> Authorization:
        """Read a CA's authorization object.

        Raises:
            ProtocolError: If a member is missing or has another type.
        """
        members = Members(obj, "authorization")
        return cls(
            identifier=members.required("identifier", _peer_identifier),
            status=members.required("status", read_word(AuthorizationStatus)),
            challenges=members.optional("challenges", read_list(Challenge.from_json)) or (),
            expires=members.optional("expires", read_time),
            wildcard=members.optional("wildcard", read_flag) or False,
        )
