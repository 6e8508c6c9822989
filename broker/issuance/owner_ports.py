"""Who answers for what: accounts, binding keys and nodes, each with an owner and a contact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event

__all__ = ["OwnedCertificate", "OwnedKind", "OwnedRecord", "OwnerRecord", "OwnerStore"]


class OwnedKind(StrEnum):
    """What somebody answers for."""

    ACCOUNT = "account"
    EAB_KEY = "eab-key"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedRecord:
    """One thing, and who answers for it."""

    kind: OwnedKind
    community: str
    subject: str
    """Id of the account, key or node."""
    name: str
    """What people call it: the node's name, the key's label, the account's id."""
    owner: str
    """Empty: nobody."""
    contact: str
    source: str
    """Where that is from: ``own``, or the key or node of an account that names nobody itself."""
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecord:
    """Somebody who answers for things; an empty name is nobody."""

    owner: str
    contacts: str
    """All that were given, separated by a comma."""
    accounts: int
    eab_keys: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedCertificate:
    """A certificate that lives, and whose account it is."""

    certificate_id: str
    account_id: str
    community: str
    names: str
    """JSON list of ``[type, value]``."""
    not_after: datetime


class OwnerStore(Protocol):
    """Owners of accounts, binding keys and nodes."""

    async def owners(
        self, *, community: str | None, text: str | None, limit: int
    ) -> Sequence[OwnerRecord]:
        """Return owners by name, those whose name or contact contains *text*; nobody first."""
        ...

    async def owned_by(
        self, owner: str, *, community: str | None, limit: int
    ) -> Sequence[OwnedRecord]:
        """Return what *owner* answers for, or is the contact of; what nobody does where it is
        empty."""
        ...

    async def owner_of(
        self, kind: OwnedKind, community: str | None, subject: str
    ) -> OwnedRecord | None:
        """Return who answers for one thing; None: there is no such thing."""
        ...

    async def owners_of_accounts(self, accounts: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Return owner and contact of each of *accounts*."""
        ...

    async def certificates_of_accounts(
        self, accounts: Sequence[str], now: datetime, limit: int
    ) -> Sequence[OwnedCertificate]:
        """Return their certificates that live at *now*, the first to end first."""
        ...

    async def set_owner(
        self, record: OwnedRecord, *, owner: str, contact: str, event: Event
    ) -> None:
        """Name who answers for it.

        Raises:
            Conflict: It is not there any more.
        """
        ...
