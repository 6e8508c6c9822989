"""What the store keeps, as frozen values.

These are not the wire objects of ``protocol.resources``: a record has our own random ids and
owners, a wire object has URLs.  Times are aware UTC, whole seconds or finer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)

__all__ = [
    "AccountRecord",
    "AuthorizationRecord",
    "CaCertificateRecord",
    "CaMember",
    "CaRevocation",
    "CaRole",
    "CertificateRecord",
    "ChallengeRecord",
    "EabKeyRecord",
    "Job",
    "JobKind",
    "OrderRecord",
    "Proof",
    "RestorationRecord",
    "Suspension",
    "UpstreamAccountRecord",
    "WorkRecord",
    "WorkStatus",
]


class Proof(StrEnum):
    """How an authorization became valid.  Only CHALLENGE confers the right to revoke
    a certificate that another account ordered (RFC 8555 §7.6)."""

    CHALLENGE = "challenge"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecord:
    """A downstream account.  (community, thumbprint) is unique."""

    account_id: str
    community: str
    status: AccountStatus
    jwk_json: str
    """Canonical JWK of the account key: RFC 7638 members, sorted."""
    thumbprint: str
    contacts: tuple[str, ...]
    terms_agreed: bool
    eab_key_id: str | None
    created_at: datetime
    binding: Mapping[str, object] | None = None
    """The external account binding as the client sent it; None also for accounts that were bound
    before it was kept."""
    terms_version: str | None = None
    """Which version of the terms it agreed to; None where the community named none."""
    owner: str = ""
    """Who answers for it, where it is not whoever answers for its key or node."""
    contact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EabKeyRecord:
    """An external account binding key that we minted (RFC 8555 §7.3.4)."""

    key_id: str
    community: str
    label: str
    mac_key: bytes = field(repr=False)
    """Sealed, as ``sealed_by`` says; empty where the configuration declares the key."""
    names: tuple[str, ...]
    """Name patterns that the key is limited to, in the policy's pattern language; empty: no
    limit of its own, policy alone decides."""
    profiles: tuple[str, ...]
    """Profiles it is limited to; empty: no limit of its own."""
    is_reusable: bool
    """False: the first account that binds it keeps it."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    bound_account_id: str | None
    sealed_by: str | None = None
    """The key that the MAC key is sealed under, as in ``key_ports.Sealed``; None for one in the
    clear: just minted and not yet kept, or kept by an earlier version."""
    owner: str = ""
    """Who answers for it and for the accounts that bind it; empty: nobody was named."""
    contact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRecord:
    """One challenge of a downstream authorization."""

    challenge_id: str
    type: ChallengeType
    token: str
    status: ChallengeStatus
    validated_at: datetime | None = None
    error: Mapping[str, object] | None = None
    """The problem document of the last failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRecord:
    """An authorization of one order, or of none (RFC 8555 §7.4.1); never shared between orders or
    accounts."""

    authorization_id: str
    order_id: str | None
    """None: a pre-authorization, made ahead of any order."""
    account_id: str
    community: str
    identifier: Identifier
    """Without the wildcard label; ``is_wildcard`` tells (RFC 8555 §7.1.4)."""
    is_wildcard: bool
    status: AuthorizationStatus
    expires_at: datetime
    proof: Proof | None
    challenges: tuple[ChallengeRecord, ...]
    rests_on: str | None = None
    """The pre-authorization of the same account that proved it; given up with that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """A downstream order and the decision that it runs under."""

    order_id: str
    account_id: str
    community: str
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorization_ids: tuple[str, ...]
    profile: str
    """Our profile, as policy chose it."""
    is_profile_asked: bool
    not_before: datetime | None
    """As the client asked; None when it asked for nothing."""
    not_after: datetime | None
    created_at: datetime
    expires_at: datetime
    decision: Mapping[str, object]
    """The facts of the newOrder decision, JSON-able, with ``policy_sha256``, ``lever``, ``cap``."""
    upstream: str
    upstream_profile: str | None
    cap_seconds: int
    """The validity cap, in seconds, counted from receipt of the certificate."""
    ask_not_after: bool
    """Whether the cap is asked for upstream as ``notAfter``."""
    csr_der: bytes | None = None
    csr_sha256: str | None = None
    finalized_at: datetime | None = None
    certificate_id: str | None = None
    error: Mapping[str, object] | None = None
    replaces: str | None = None
    """CertID of the certificate that the client says it replaces (RFC 9773 §5)."""
    replaces_upstream: str | None = None
    """The upstream whose account ordered that certificate; None: it is not ours to tell."""


class WorkStatus(StrEnum):
    """Where one upstream order stands.

    INTENDED is written before newOrder is sent; OPENED has the upstream's URL; FINALIZING means
    that our finalize may have reached the CA; ACCEPTED that the CA took it; SPENT gave its
    certificate; DEAD gave none and never will.
    """

    INTENDED = "intended"
    OPENED = "opened"
    FINALIZING = "finalizing"
    ACCEPTED = "accepted"
    SPENT = "spent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRecord:
    """One upstream order, or the intent of one.

    Not taken, it belongs to its ``work_key`` (upstream account, identifiers, profile, notAfter)
    and the first of our orders to finalize takes it.  At most one record that is not DEAD
    is taken by an order, at most one record holds an ``order_url``.
    """

    work_id: str
    upstream: str
    community: str
    work_key: str
    identifiers: tuple[Identifier, ...]
    upstream_profile: str | None
    not_after: datetime | None
    status: WorkStatus
    order_url: str | None
    taken_by: str | None
    is_sent: bool
    """True once newOrder may have reached the CA without its answer being kept."""
    created_at: datetime
    replaces: str | None = None
    """CertID that the CA is told this one replaces."""
    account_url: str | None = None
    """Our account that the order was opened under; None before that, and where nobody kept it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRecord:
    """A certificate that came back from an upstream; released, or withheld for a breach."""

    certificate_id: str
    order_id: str
    account_id: str
    community: str
    upstream: str
    fingerprint: str
    """SHA-256 of the leaf's DER, lower hex; unique."""
    serial: str
    """Lower hex, no leading zeros."""
    cert_id: str | None
    """RFC 9773 CertID, when the leaf has an authority key identifier."""
    chain_pem: bytes
    """As released: leaf first, byte for byte as the CA sent it."""
    leaf_der: bytes
    identifiers: tuple[Identifier, ...]
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    received_at: datetime
    is_released: bool
    revoked_at: datetime | None = None
    revocation_reason: int | None = None
    upstream_account: str | None = None
    """URL of our account that ordered it; None for the built-in CA, and where nobody kept it."""


class JobKind(StrEnum):
    """Work that survives a restart."""

    VALIDATE = "validate"
    """subject: authorization_id/challenge_id"""
    PREPARE = "prepare"
    """subject: work_id; the upstream half, before finalize"""
    FULFIL = "fulfil"
    """subject: order_id; from our finalize to the certificate"""
    CAA = "caa"
    """subject: order_id; look at CAA and report"""
    REVOKE = "revoke"
    """subject: certificate_id; pass a revocation up"""
    RETIRE = "retire"
    """subject: certificate_id; its retirement date, or the end of its successor's grace time"""
    INCIDENT = "incident"
    """subject: incident_id; a mass replacement"""
    DELIVER = "deliver"
    """subject: delivery_id; from the wish to the server at a node that serves the certificate"""
    WITHDRAW = "withdraw"
    """subject: approval_id; revoke what rests on an approval that was withdrawn"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A durable job row; (kind, subject) is unique."""

    kind: JobKind
    subject: str
    due_at: datetime
    attempts: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """An (upstream, upstream profile) pair that orders nothing until a person resumes it."""

    upstream: str
    upstream_profile: str | None
    since: datetime
    order_id: str
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAccountRecord:
    """Our one account at a CA for a community."""

    upstream: str
    community: str
    directory_url: str
    account_url: str
    key_id: str
    thumbprint: str
    registered_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CaCertificateRecord:
    """A certificate that our built-in CA signed."""

    ca: str
    order_ref: str
    """The built-in CA's own order reference; unique: one certificate an order, ever."""
    serial: str
    certificate_der: bytes
    issuer_key_id: str
    not_after: datetime
    issued_at: datetime
    revoked_at: datetime | None = None
    revocation_reason: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRevocation:
    """What a revocation list says of one certificate of the built-in CA."""

    serial: str
    revoked_at: datetime
    revocation_reason: int | None


class CaRole(StrEnum):
    """What a key of the built-in CA is for, in the order of its life."""

    ROOT = "root"
    PLANNED = "planned"
    """About to be made: one that stays behind after a crash is destroyed."""
    REQUESTED = "requested"
    """Made, and waiting for the offline root to certify it."""
    NEXT = "next"
    """Published, and signing nothing but its own, empty revocation list."""
    CURRENT = "current"
    PAST = "past"
    """Signing revocation lists for what it issued, and nothing new."""
    RETIRING = "retiring"
    """Nothing depends on it, and its last revocation list is being signed."""
    RETIRED = "retired"
    """Its key is destroyed; certificate and last list stay published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaMember:
    """One key of a built-in CA, with the certificate that it got."""

    ca: str
    role: CaRole
    key_id: str | None
    """Its name at the signer; None for an offline root."""
    subject: str
    """Distinguished name, RFC 4514."""
    certificate_der: bytes | None
    """None until it has one."""
    since: datetime
    """When it came into this role."""
    last_crl_der: bytes | None = None
    """The last revocation list of one that is retired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationRecord:
    """That this store came out of a backup.

    Until ``reconciled_at`` the broker reads and changes nothing: upstream orders may have moved
    on since the backup was made.
    """

    restoration_id: str
    backup_id: str
    backup_at: datetime
    """Until then everything is in the store; of what came later nothing is."""
    restored_at: datetime
    reconciled_at: datetime | None
    report: Mapping[str, object]
    """What was found and lost, as the last attempt left it."""
