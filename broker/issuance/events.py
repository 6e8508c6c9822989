"""What happened, as frozen values: the append-only event table, telemetry and audit read these.

An event is written in the transaction of the change that it tells of, so there is never a change
without its event, nor an event without its change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = ["SYSTEM", "Actor", "Event", "EventKind"]


class EventKind(StrEnum):
    """Names of events; stable, since metrics and queries are built on them."""

    ACCOUNT_CREATED = "account-created"
    ACCOUNT_UPDATED = "account-updated"
    ACCOUNT_DEACTIVATED = "account-deactivated"
    ACCOUNT_KEY_CHANGED = "account-key-changed"
    ACCOUNT_AGREED = "account-agreed"
    EAB_MINTED = "eab-minted"
    EAB_REVOKED = "eab-revoked"
    SECRETS_SEALED = "secrets-sealed"
    AUDIT_CHAIN_BEGUN = "audit-chain-begun"
    SIGNATURES_MADE = "signatures-made"
    APPROVAL_REQUESTED = "approval-requested"
    APPROVAL_SUPPORTED = "approval-supported"
    APPROVAL_GRANTED = "approval-granted"
    APPROVAL_DENIED = "approval-denied"
    APPROVAL_EXPIRED = "approval-expired"
    APPROVAL_DUE = "approval-due"
    APPROVAL_RENEWED = "approval-renewed"
    APPROVAL_SUSPENDED = "approval-suspended"
    APPROVAL_RESUMED = "approval-resumed"
    APPROVAL_WITHDRAWN = "approval-withdrawn"
    APPROVAL_CLEARED = "approval-cleared"
    ORDER_CREATED = "order-created"
    ORDER_READY = "order-ready"
    ORDER_FINALIZED = "order-finalized"
    ORDER_REFUSED = "order-refused"
    ORDER_EXPIRED = "order-expired"
    ORDER_CANCELLED = "order-cancelled"
    REQUEST_REFUSED = "request-refused"
    REFUSALS_LEFT_OUT = "refusals-left-out"
    RULE_WARNED = "rule-warned"
    QUOTA_EXCEEDED = "quota-exceeded"
    CHALLENGE_RESPONDED = "challenge-responded"
    CHALLENGE_VALID = "challenge-valid"
    CHALLENGE_INVALID = "challenge-invalid"
    AUTHORIZATION_CREATED = "authorization-created"
    AUTHORIZATION_DEACTIVATED = "authorization-deactivated"
    UPSTREAM_ORDER_OPENED = "upstream-order-opened"
    UPSTREAM_ORDER_ADOPTED = "upstream-order-adopted"
    UPSTREAM_ORDER_LOST = "upstream-order-lost"
    UPSTREAM_ACCOUNT_REGISTERED = "upstream-account-registered"
    UPSTREAM_KEY_CHANGE_BEGUN = "upstream-key-change-begun"
    UPSTREAM_KEY_CHANGED = "upstream-key-changed"
    UPSTREAM_KEY_CHANGE_UNDONE = "upstream-key-change-undone"
    UPSTREAM_KEY_IMPORTED = "upstream-key-imported"
    UPSTREAM_KEY_DESTROYED = "upstream-key-destroyed"
    UPSTREAM_ACCOUNT_ADOPTED = "upstream-account-adopted"
    UPSTREAM_ADOPTION_UNDONE = "upstream-adoption-undone"
    CERTIFICATES_ADOPTED = "certificates-adopted"
    ADOPTED_CERTIFICATE_REVOKED = "adopted-certificate-revoked"
    UPSTREAM_ACCOUNT_LOST = "upstream-account-lost"
    UPSTREAM_ACCOUNT_FOUND = "upstream-account-found"
    UPSTREAM_RECOVERY_BEGUN = "upstream-recovery-begun"
    UPSTREAM_ACCOUNT_REPINNED = "upstream-account-repinned"
    UPSTREAM_ACCOUNT_REPLACED = "upstream-account-replaced"
    ORDER_BEGUN_ANEW = "order-begun-anew"
    ORDER_MOVED = "order-moved"
    ORDER_ANSWERED_AGAIN = "order-answered-again"
    UPSTREAM_SUSPENDED = "upstream-suspended"
    UPSTREAM_RESUMED = "upstream-resumed"
    UPSTREAM_LEFT_ALONE = "upstream-left-alone"
    UPSTREAM_ANSWERS_AGAIN = "upstream-answers-again"
    CERTIFICATE_ISSUED = "certificate-issued"
    CERTIFICATE_WITHHELD = "certificate-withheld"
    CERTIFICATE_REVOCATION_REQUESTED = "certificate-revocation-requested"
    CERTIFICATE_REVOCATION_REFUSED = "certificate-revocation-refused"
    CERTIFICATE_REVOKED = "certificate-revoked"
    ALTERNATE_CHAIN_WITHHELD = "alternate-chain-withheld"
    PREFERRED_CHAIN_MISSING = "preferred-chain-missing"
    RENEWAL_MOVED_EARLIER = "renewal-moved-earlier"
    REPLACES_DROPPED = "replaces-dropped"
    CERTIFICATE_REPLACED = "certificate-replaced"
    CERTIFICATE_RETIRED = "certificate-retired"
    RETIREMENT_OVERDUE = "retirement-overdue"
    CAA_LOOKED_AT = "caa-looked-at"
    CA_CREATED = "ca-created"
    BACKUP_MADE = "backup-made"
    STORE_RESTORED = "store-restored"
    STORE_RECONCILED = "store-reconciled"
    UPSTREAM_ORDER_RECOVERED = "upstream-order-recovered"
    ORDER_HURRIED = "order-hurried"
    CA_ISSUER_REQUESTED = "ca-issuer-requested"
    CA_ISSUER_PREPARED = "ca-issuer-prepared"
    CA_ISSUER_ACTIVATED = "ca-issuer-activated"
    CA_ISSUER_RETIRED = "ca-issuer-retired"
    CA_KEY_DESTROYED = "ca-key-destroyed"
    CERTIFICATE_MANAGED = "certificate-managed"
    CERTIFICATE_UNMANAGED = "certificate-unmanaged"
    MANAGED_REFUSED = "managed-refused"
    RENEWAL_LATE = "renewal-late"
    DELIVERY_BEGUN = "delivery-begun"
    DELIVERY_MOVED = "delivery-moved"
    DELIVERY_HELD = "delivery-held"
    DELIVERY_RELEASED = "delivery-released"
    DELIVERY_NOT_SEEN = "delivery-not-seen"
    DELIVERY_SEEN = "delivery-seen"
    DELIVERY_FAILED = "delivery-failed"
    DELIVERY_WITHDRAWN = "delivery-withdrawn"
    DELIVERY_SUPERSEDED = "delivery-superseded"
    CERTIFICATE_NOT_RENEWED = "certificate-not-renewed"
    JOIN_TOKEN_MINTED = "join-token-minted"
    JOIN_TOKEN_REVOKED = "join-token-revoked"
    ENROLMENT_REQUESTED = "enrolment-requested"
    ENROLMENT_APPROVED = "enrolment-approved"
    ENROLMENT_DENIED = "enrolment-denied"
    ENROLMENT_REFUSED = "enrolment-refused"
    NODE_ENROLLED = "node-enrolled"
    NODE_RETURNED = "node-returned"
    NODE_RENEWED = "node-renewed"
    NODE_DRAINED = "node-drained"
    NODE_RESUMED = "node-resumed"
    NODE_REVOKED = "node-revoked"
    NODE_REQUEST_REFUSED = "node-request-refused"
    ROLLOUT_HALTED = "rollout-halted"
    ROLLOUT_RESUMED = "rollout-resumed"
    INCIDENT_STARTED = "incident-started"
    INCIDENT_PAUSED = "incident-paused"
    INCIDENT_RESUMED = "incident-resumed"
    INCIDENT_ABANDONED = "incident-abandoned"
    INCIDENT_DONE = "incident-done"
    INCIDENT_LATE = "incident-late"
    FROZEN = "frozen"
    UNFROZEN = "unfrozen"
    OWNER_CHANGED = "owner-changed"
    OPERATOR_COMMAND = "operator-command"
    OPERATOR_REFUSED = "operator-refused"
    POLICY_ACTIVATED = "policy-activated"
    POLICY_REFUSED = "policy-refused"
    CONFIGURATION_TAKEN = "configuration-taken"

    @classmethod
    def written(cls, name: str) -> EventKind:
        """Return the kind that a store holds as *name*.

        A later version may have written kinds that this one does not know; it is read all the same
        after a return from there, or nobody could look at what happened.
        """
        try:
            return cls(name)
        except ValueError:
            unknown = str.__new__(cls, name)
            unknown._name_ = unknown._value_ = name
            return unknown


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused a change.

    ``account:ID``, ``operator:NAME``, ``certificate-key`` (whoever proved to hold a certificate's
    key), ``anonymous`` (a refused request that nobody was seen behind) or ``system``.
    """

    name: str
    reason: str | None = None


SYSTEM = Actor("system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    ``data`` holds only strings, numbers, booleans, None and lists or mappings of these; never a
    key, a token or a CSR body.  Fingerprints and identifiers are welcome.
    """

    kind: EventKind
    at: datetime
    actor: Actor = SYSTEM
    community: str | None = None
    account_id: str | None = None
    order_id: str | None = None
    upstream: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
