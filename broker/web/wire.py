"""Our records as ACME's wire objects: ids become URLs, and only what clients can bear is shown."""

from __future__ import annotations

from collections.abc import Mapping

from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    ChallengeRecord,
    OrderRecord,
)
from broker.protocol.problems import Problem
from broker.protocol.resources import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Order,
    OrderStatus,
)
from broker.web.links import CommunityLinks

__all__ = ["account_object", "authorization_object", "challenge_object", "order_object"]


def account_object(
    links: CommunityLinks, account: AccountRecord, *, terms_version: str | None = None
) -> Account:
    """Return the account object; a binding is shown as the client sent it (RFC 8555 §7.3.4).

    An account that agreed to other terms than *terms_version* is not shown to agree: a client that
    sends back what it was shown, to change a contact, must not agree by that.
    """
    is_current = terms_version is None or account.terms_version == terms_version
    return Account(
        status=account.status,
        contacts=account.contacts,
        terms_agreed=(account.terms_agreed and is_current) or None,
        external_account_binding=account.binding,
        orders=links.orders(account.account_id),
    )


def order_object(links: CommunityLinks, order: OrderRecord) -> Order:
    """Return the order object.

    ``error`` is there in an invalid order only: some clients take any ``error`` for the end.
    """
    is_valid = order.status is OrderStatus.VALID and order.certificate_id is not None
    return Order(
        status=order.status,
        identifiers=order.identifiers,
        authorizations=tuple(links.authorization(each) for each in order.authorization_ids),
        finalize=links.finalize(order),
        expires=order.expires_at,
        not_before=order.not_before,
        not_after=order.not_after,
        error=_problem(order.error) if order.status is OrderStatus.INVALID else None,
        certificate=links.certificate(order.certificate_id or "") if is_valid else None,
        profile=order.profile or None,
        replaces=order.replaces,
    )


def authorization_object(
    links: CommunityLinks, authorization: AuthorizationRecord
) -> Authorization:
    """Return the authorization object with the challenges that matter in its status."""
    return Authorization(
        identifier=authorization.identifier,
        status=authorization.status,
        challenges=tuple(
            challenge_object(links, authorization, each) for each in _telling(authorization)
        ),
        expires=authorization.expires_at,
        wildcard=authorization.is_wildcard,
    )


def challenge_object(
    links: CommunityLinks, authorization: AuthorizationRecord, challenge: ChallengeRecord
) -> Challenge:
    """Return the challenge object; ``error`` stays away from one that succeeded after all."""
    is_failing = challenge.status in (ChallengeStatus.PROCESSING, ChallengeStatus.INVALID)
    return Challenge(
        type=str(challenge.type),
        url=links.challenge(authorization, challenge.challenge_id),
        status=challenge.status,
        token=challenge.token,
        validated=challenge.validated_at,
        error=_problem(challenge.error) if is_failing else None,
    )


def _telling(authorization: AuthorizationRecord) -> tuple[ChallengeRecord, ...]:
    """Return the one that succeeded, those that failed, or all on offer (RFC 8555 §7.1.4)."""
    wanted = {
        AuthorizationStatus.VALID: ChallengeStatus.VALID,
        AuthorizationStatus.INVALID: ChallengeStatus.INVALID,
    }.get(authorization.status)
    chosen = tuple(each for each in authorization.challenges if each.status is wanted)
    return chosen or authorization.challenges


def _problem(document: Mapping[str, object] | None) -> Problem | None:
    return Problem.from_json(document) if document is not None else None
