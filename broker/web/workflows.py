"""What the skin calls: the workflows, as far as HTTP needs them.

Small Protocols, so that the skin can be tried without a store.  Each method refuses a client by
raising ``protocol.problems.Problem``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.issuance.approval_ports import ApprovalRecord
from broker.issuance.events import Event
from broker.issuance.handover import Handed
from broker.issuance.origins import Origin
from broker.issuance.records import AccountRecord, AuthorizationRecord, OrderRecord
from broker.issuance.renewals import Suggestion
from broker.protocol.identifiers import Identifier
from broker.protocol.jws import Jwk, ParsedBinding
from broker.protocol.key_change import VerifiedKeyChange
from broker.protocol.requests import AccountUpdate, NewAccount, NewOrder, Revocation

__all__ = [
    "Accounts",
    "Approvals",
    "Authorizations",
    "Handover",
    "KeyChanges",
    "Orders",
    "ProfileNames",
    "RecordRefusal",
    "Renewals",
    "Revocations",
    "Workflows",
]

RecordRefusal = Callable[[Event], Awaitable[None]]
"""Keeps the event of a refused request, without waiting for the disk."""

ProfileNames = Callable[[str], Mapping[str, str]]
"""From a community to its profiles: name and one-line description, as the directory shows them."""


class Accounts(Protocol):
    """``issuance.accounts.Accounts``."""

    async def register(
        self,
        community: str,
        key: Jwk,
        request: NewAccount,
        binding: ParsedBinding | None,
        /,
        *,
        origin: Origin,
    ) -> tuple[AccountRecord, bool]:
        """Return the account of *key*, and whether it was made just now."""
        ...

    async def require(self, community: str, account_id: str, /) -> AccountRecord:
        """Return the account; raises Problem when it is missing or deactivated."""
        ...

    async def update(self, account: AccountRecord, update: AccountUpdate, /) -> AccountRecord:
        """Change contacts or deactivate."""
        ...


class Orders(Protocol):
    """``issuance.orders.Orders``."""

    async def create(
        self, account: AccountRecord, request: NewOrder, /, *, origin: Origin
    ) -> OrderRecord:
        """Make an order, or refuse it by policy."""
        ...

    async def read(self, account: AccountRecord, order_id: str, /) -> OrderRecord:
        """Return an order of this account."""
        ...

    async def finalize(
        self, account: AccountRecord, order_id: str, csr_der: bytes, /, *, origin: Origin
    ) -> OrderRecord:
        """Take the CSR and wait a few seconds for the certificate."""
        ...

    async def list(
        self, account: AccountRecord, after: str | None, /
    ) -> tuple[Sequence[str], str | None]:
        """Return ids of the account's living orders, and where the next page begins."""
        ...

    async def pre_authorize(
        self, account: AccountRecord, identifier: Identifier, /, *, origin: Origin
    ) -> AuthorizationRecord:
        """Make an authorization ahead of any order, or refuse it by policy."""
        ...


class Handover(Protocol):
    """``issuance.handover.Handover``."""

    async def certificate(
        self, account: AccountRecord, certificate_id: str, number: int, /
    ) -> Handed:
        """Return a chain of a released certificate of this account."""
        ...


class Renewals(Protocol):
    """``issuance.renewals.Renewals``."""

    async def suggestion(self, community: str, cert_id: str, /) -> Suggestion:
        """Return when to renew a certificate."""
        ...


class Approvals(Protocol):
    """``issuance.registration.RegistrationAuthority``, as far as strangers may look."""

    async def read(self, approval_id: str, /) -> ApprovalRecord:
        """Return the approval as it stands; raises Problem when there is none."""
        ...


class Authorizations(Protocol):
    """``issuance.authorizations.Authorizations``."""

    async def read(self, account: AccountRecord, authorization_id: str, /) -> AuthorizationRecord:
        """Return an authorization of this account."""
        ...

    async def respond(
        self, account: AccountRecord, authorization_id: str, challenge_id: str, /
    ) -> AuthorizationRecord:
        """Take the client's word that the challenge can be looked at."""
        ...

    async def deactivate(
        self, account: AccountRecord, authorization_id: str, /
    ) -> AuthorizationRecord:
        """Give the authorization up."""
        ...


class KeyChanges(Protocol):
    """``issuance.key_changes.KeyChanges``."""

    async def change(self, account: AccountRecord, change: VerifiedKeyChange, /) -> AccountRecord:
        """Give the account another key; raises KeyInUse where an account has it."""
        ...


class Revocations(Protocol):
    """``issuance.revocations.Revocations``."""

    async def revoke(
        self,
        community: str,
        request: Revocation,
        /,
        *,
        account: AccountRecord | None,
        key: Jwk | None,
    ) -> None:
        """Revoke for an account, or for the holder of the certificate's own key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflows:
    """The workflows behind the ACME listener."""

    accounts: Accounts
    orders: Orders
    authorizations: Authorizations
    revocations: Revocations
    handover: Handover
    renewals: Renewals
    key_changes: KeyChanges
    approvals: Approvals | None = None
    """What people are asked; None where a listener is tried without."""
