"""Authorizations as they begin: pending, or valid already because of a rule or an older proof."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime

from broker.issuance.accounts import new_id
from broker.issuance.records import AuthorizationRecord, ChallengeRecord, OrderRecord, Proof
from broker.policy.decisions import Requirement
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus
from broker.protocol.transitions import (
    AuthorizationEvent,
    ChallengeEvent,
    advance_authorization,
    advance_challenge,
)

__all__ = ["Ground", "authorization_ahead", "authorization_of_order"]


@dataclass(frozen=True, slots=True)
class Ground:
    """A pre-authorization that makes an order's authorization valid, and its proof."""

    authorization: AuthorizationRecord
    challenge: ChallengeRecord
    """The challenge that succeeded, of a type that policy asks for today."""


def authorization_of_order(
    order: OrderRecord, identifier: Identifier, need: Requirement, ground: Ground | None = None
) -> AuthorizationRecord:
    """Return a pending authorization; a valid one where policy trusts the requester, or where
    the account proved the name ahead."""
    authorization = _pending(
        identifier,
        need,
        account_id=order.account_id,
        community=order.community,
        order_id=order.order_id,
        expires_at=order.expires_at,
    )
    if need.granted_by is not None:
        return _granted(authorization, order.created_at)
    if ground is None:
        return authorization
    return replace(
        authorization,
        status=advance_authorization(authorization.status, AuthorizationEvent.CHALLENGE_VALID),
        proof=ground.authorization.proof,
        rests_on=ground.authorization.authorization_id,
        # Its own object: what becomes of one challenge's URL is no matter of the other's.
        challenges=(replace(ground.challenge, challenge_id=new_id()),),
    )


def authorization_ahead(
    identifier: Identifier,
    need: Requirement,
    *,
    account_id: str,
    community: str,
    at: datetime,
    expires_at: datetime,
) -> AuthorizationRecord:
    """Return an authorization that belongs to no order (RFC 8555 §7.4.1)."""
    authorization = _pending(
        identifier,
        need,
        account_id=account_id,
        community=community,
        order_id=None,
        expires_at=expires_at,
    )
    return authorization if need.granted_by is None else _granted(authorization, at)


def _pending(
    identifier: Identifier,
    need: Requirement,
    *,
    account_id: str,
    community: str,
    order_id: str | None,
    expires_at: datetime,
) -> AuthorizationRecord:
    return AuthorizationRecord(
        authorization_id=new_id(),
        order_id=order_id,
        account_id=account_id,
        community=community,
        identifier=identifier.base,
        is_wildcard=identifier.is_wildcard,
        status=AuthorizationStatus.PENDING,
        expires_at=expires_at,
        proof=None,
        challenges=tuple(_new_challenge(kind) for kind in need.challenges),
    )


def _granted(authorization: AuthorizationRecord, at: datetime) -> AuthorizationRecord:
    return replace(
        authorization,
        status=advance_authorization(authorization.status, AuthorizationEvent.CHALLENGE_VALID),
        proof=Proof.POLICY,
        challenges=tuple(_settled(one, at) for one in authorization.challenges),
    )


def _new_challenge(kind: ChallengeType) -> ChallengeRecord:
    return ChallengeRecord(
        challenge_id=new_id(),
        type=kind,
        token=secrets.token_urlsafe(32),
        status=ChallengeStatus.PENDING,
    )


def _settled(challenge: ChallengeRecord, at: datetime) -> ChallengeRecord:
    responded = advance_challenge(challenge.status, ChallengeEvent.RESPONDED)
    return replace(
        challenge,
        status=advance_challenge(responded, ChallengeEvent.VALIDATED),
        validated_at=at,
    )
