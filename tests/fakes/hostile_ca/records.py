"""What the hostile CA remembers: accounts, orders, authorizations, certificates."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from tests.fakes.hostile_ca.envelope import thumbprint
from tests.fakes.hostile_ca.script import Behaviour, Resource


def new_id() -> str:
    """Return an id nobody guesses."""
    return secrets.token_urlsafe(12)


@dataclass(slots=True)
class Account:
    """A registered key."""

    id: str
    jwk: Mapping[str, Any]
    status: str = "valid"


@dataclass(slots=True)
class Challenge:
    """One way to prove control; *token* is None for a kind that has none."""

    id: str
    kind: str
    token: str | None
    status: str = "pending"


@dataclass(slots=True)
class Authorization:
    """Proof of control over one name, or the lack of it."""

    id: str
    order_id: str
    name: str
    challenges: list[Challenge]
    status: str = "pending"


@dataclass(slots=True)
class Order:
    """One order, with the behaviour it was born under."""

    id: str
    account_id: str
    names: tuple[str, ...]
    behaviour: Behaviour
    not_after: datetime.datetime | None
    profile: str | None
    status: str = "pending"
    authorizations: list[Authorization] = field(default_factory=list)
    certificate_id: str | None = None
    disguised_for: int = 0
    """How many more times the order shows something else than its status."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate as it is handed out."""

    id: str
    account_id: str
    order_id: str
    names: tuple[str, ...]
    certificate: x509.Certificate
    answer: bytes


@dataclass(slots=True)
class Records:
    """All of them, by id."""

    accounts: dict[str, Account] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    revoked_serials: set[int] = field(default_factory=set)

    def new_nonce(self) -> str:
        """Return a nonce that is good once."""
        nonce = new_id()
        self.nonces.add(nonce)
        return nonce

    def redeem_nonce(self, nonce: str) -> bool:
        """Say whether *nonce* is good, and make it bad."""
        if nonce not in self.nonces:
            return False
        self.nonces.remove(nonce)
        return True

    def account_of_key(self, jwk: Mapping[str, Any]) -> Account | None:
        """Return the account that registered this key."""
        wanted = thumbprint(jwk)
        return next((a for a in self.accounts.values() if thumbprint(a.jwk) == wanted), None)

    def coalescible(
        self, account_id: str, names: tuple[str, ...], profile: str | None
    ) -> Order | None:
        """Return an unfinished order for the same; its ``notAfter`` is not looked at."""
        for order in self.orders.values():
            same = (order.account_id, order.names, order.profile) == (account_id, names, profile)
            if same and order.status in ("pending", "ready"):
                return order
        return None

    def authorization(self, authorization_id: str) -> Authorization | None:
        """Return one authorization."""
        for order in self.orders.values():
            for authorization in order.authorizations:
                if authorization.id == authorization_id:
                    return authorization
        return None

    def challenge(self, challenge_id: str) -> tuple[Authorization, Challenge] | None:
        """Return one challenge with its authorization."""
        for order in self.orders.values():
            for authorization in order.authorizations:
                for challenge in authorization.challenges:
                    if challenge.id == challenge_id:
                        return authorization, challenge
        return None

    def order_id_of(self, resource: Resource, id_: str) -> str | None:
        """Return the order that a request is about, if it is about one."""
        match resource:
            case Resource.ORDER | Resource.FINALIZE:
                return id_ if id_ in self.orders else None
            case Resource.AUTHORIZATION:
                authorization = self.authorization(id_)
                return authorization.order_id if authorization else None
            case Resource.CHALLENGE:
                found = self.challenge(id_)
                return found[0].order_id if found else None
            case Resource.CERTIFICATE:
                certificate = self.certificates.get(id_.partition(".")[0])
                return certificate.order_id if certificate else None
            case _:
                return None
