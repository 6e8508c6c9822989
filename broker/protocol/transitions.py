"""The status tables of RFC 8555 §7.1.6; nothing else changes a status.

The tables know neither the time nor which side they are on: the same ones hold
for the orders we serve and for the orders a CA serves us.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final, TypeVar

from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)


class AccountEvent(Enum):
    """What can happen to an account."""

    DEACTIVATED = "deactivated by the client"
    REVOKED = "revoked by the server"


class OrderEvent(Enum):
    """What can happen to an order.

    AUTHORIZATION_FAILED stands for every final status of an authorization other
    than valid, deactivated, expired and revoked included (RFC 8555 §7.1.6), so a
    READY order can still meet it.
    """

    AUTHORIZED = "every authorization is valid"
    AUTHORIZATION_FAILED = "an authorization failed"
    FINALIZE_ACCEPTED = "finalize accepted"
    ISSUED = "certificate issued"
    ISSUANCE_REFUSED = "issuance refused"
    EXPIRED = "expired"


class AuthorizationEvent(Enum):
    """What can happen to an authorization."""

    CHALLENGE_VALID = "a challenge is valid"
    CHALLENGE_INVALID = "a challenge is invalid"
    DEACTIVATED = "deactivated by the client"
    EXPIRED = "expired"
    REVOKED = "revoked by the server"


class ChallengeEvent(Enum):
    """What can happen to a challenge."""

    RESPONDED = "the client responded"
    LOOK_FAILED = "a look failed and another follows"
    VALIDATED = "validated"
    FAILED = "validation failed"


class IllegalTransition(Exception):
    """An event that the table does not allow in this status.

    On an object we serve, this is our bug.  On an object an upstream serves us,
    it is theirs.
    """

    def __init__(self, status: StrEnum, event: Enum) -> None:
        super().__init__(f"{type(status).__name__} '{status}' does not allow '{event.name}'")
        self.status = status
        self.event = event


ACCOUNT_TABLE: Final[Mapping[tuple[AccountStatus, AccountEvent], AccountStatus]] = {
    (AccountStatus.VALID, AccountEvent.DEACTIVATED): AccountStatus.DEACTIVATED,
    (AccountStatus.VALID, AccountEvent.REVOKED): AccountStatus.REVOKED,
}

ORDER_TABLE: Final[Mapping[tuple[OrderStatus, OrderEvent], OrderStatus]] = {
    (OrderStatus.PENDING, OrderEvent.AUTHORIZED): OrderStatus.READY,
    (OrderStatus.PENDING, OrderEvent.AUTHORIZATION_FAILED): OrderStatus.INVALID,
    (OrderStatus.PENDING, OrderEvent.EXPIRED): OrderStatus.INVALID,
    (OrderStatus.READY, OrderEvent.FINALIZE_ACCEPTED): OrderStatus.PROCESSING,
    (OrderStatus.READY, OrderEvent.AUTHORIZATION_FAILED): OrderStatus.INVALID,
    (OrderStatus.READY, OrderEvent.EXPIRED): OrderStatus.INVALID,
    (OrderStatus.PROCESSING, OrderEvent.ISSUED): OrderStatus.VALID,
    (OrderStatus.PROCESSING, OrderEvent.ISSUANCE_REFUSED): OrderStatus.INVALID,
}

AUTHORIZATION_TABLE: Final[
    Mapping[tuple[AuthorizationStatus, AuthorizationEvent], AuthorizationStatus]
] = {
    (AuthorizationStatus.PENDING, AuthorizationEvent.CHALLENGE_VALID): AuthorizationStatus.VALID,
    (
        AuthorizationStatus.PENDING,
        AuthorizationEvent.CHALLENGE_INVALID,
    ): AuthorizationStatus.INVALID,
    (AuthorizationStatus.PENDING, AuthorizationEvent.DEACTIVATED): AuthorizationStatus.DEACTIVATED,
    (AuthorizationStatus.PENDING, AuthorizationEvent.EXPIRED): AuthorizationStatus.EXPIRED,
    (AuthorizationStatus.PENDING, AuthorizationEvent.REVOKED): AuthorizationStatus.REVOKED,
    (AuthorizationStatus.VALID, AuthorizationEvent.DEACTIVATED): AuthorizationStatus.DEACTIVATED,
    (AuthorizationStatus.VALID, AuthorizationEvent.EXPIRED): AuthorizationStatus.EXPIRED,
    (AuthorizationStatus.VALID, AuthorizationEvent.REVOKED): AuthorizationStatus.REVOKED,
}

CHALLENGE_TABLE: Final[Mapping[tuple[ChallengeStatus, ChallengeEvent], ChallengeStatus]] = {
    (ChallengeStatus.PENDING, ChallengeEvent.RESPONDED): ChallengeStatus.PROCESSING,
    # A client may ask for another attempt while we are still trying (RFC 8555 §8.2).
    (ChallengeStatus.PROCESSING, ChallengeEvent.RESPONDED): ChallengeStatus.PROCESSING,
    (ChallengeStatus.PROCESSING, ChallengeEvent.LOOK_FAILED): ChallengeStatus.PROCESSING,
    (ChallengeStatus.PROCESSING, ChallengeEvent.VALIDATED): ChallengeStatus.VALID,
    (ChallengeStatus.PROCESSING, ChallengeEvent.FAILED): ChallengeStatus.INVALID,
}

_S = TypeVar("_S", bound=StrEnum)
_E = TypeVar("_E", bound=Enum)


def advance_account(status: AccountStatus, event: AccountEvent) -> AccountStatus:
    """Return the account status that *event* leads to.

    Raises:
        IllegalTransition: On an account we serve, this is our bug.
    """
    return _advance(ACCOUNT_TABLE, status, event)


def advance_order(status: OrderStatus, event: OrderEvent) -> OrderStatus:
    """Return the order status that *event* leads to.

    Two readings of ours.  An upstream that cannot be reached is no event: the
    order stays PROCESSING, and PROCESSING never expires, because the CA may have
    issued already; only an answer ends it.  And FINALIZE_ACCEPTED is the last
    event before the CA is asked for a certificate, so a refusal by policy before
    it leaves the order READY, as RFC 8555 §7.4 advises for a bad CSR.

    Raises:
        IllegalTransition: On an order we serve, this is our bug.  On an order an
            upstream serves us, it is theirs.
    """
    return _advance(ORDER_TABLE, status, event)


def advance_authorization(
    status: AuthorizationStatus, event: AuthorizationEvent
) -> AuthorizationStatus:
    """Return the authorization status that *event* leads to.

    Raises:
        IllegalTransition: On an authorization we serve, this is our bug.
    """
    return _advance(AUTHORIZATION_TABLE, status, event)


def advance_challenge(status: ChallengeStatus, event: ChallengeEvent) -> ChallengeStatus:
    """Return the challenge status that *event* leads to.

    Raises:
        IllegalTransition: On a challenge we serve, this is our bug.
    """
    return _advance(CHALLENGE_TABLE, status, event)


def _advance(table: Mapping[tuple[_S, _E], _S], status: _S, event: _E) -> _S:
    try:
        return table[status, event]
    except KeyError:
        raise IllegalTransition(status, event) from None


def render_diagrams() -> str:
    """Return the four tables as Markdown with one Mermaid state diagram each."""
    sections = [
        _render("Account", ACCOUNT_TABLE),
        _render("Order", ORDER_TABLE),
        _render("Authorization", AUTHORIZATION_TABLE),
        _render("Challenge", CHALLENGE_TABLE),
    ]
    return "\n".join(sections)


def _render(title: str, table: Mapping[tuple[_S, _E], _S]) -> str:
    first = next(iter(table))[0]
    left = {status for status, _ in table}
    ends = [status for status in type(first) if status not in left]
    lines = [f"### {title}", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for (status, event), after in table.items():
        lines.append(f"    {status} --> {after}: {event.value}")
    lines += [f"    {status} --> [*]" for status in ends]
    return "\n".join([*lines, "```", ""])
