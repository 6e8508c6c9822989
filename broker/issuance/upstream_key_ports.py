"""What changing our own account key at a CA asks of the world: a journal, and the CA."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.records import UpstreamAccountRecord

__all__ = [
    "AccountKeyAge",
    "AccountsAtCas",
    "KeyAgeStore",
    "KeyChangeStatus",
    "KeyRotationFailure",
    "KeyUses",
    "UpstreamKeyChange",
    "UpstreamKeyStore",
]


class KeyChangeStatus(StrEnum):
    """How far a change of key has come."""

    BEGUN = "begun"
    """The CA may know either key; nothing is sent in the account's name but the question."""
    CHANGED = "changed"
    """The account has the new key; the old one is kept and signs no more."""
    UNDONE = "undone"
    """The account kept the old key; the new one was destroyed, or lies in Vault unused."""
    TAKEN = "taken"
    """As before, and the new key is another account's: it is not tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamKeyChange:
    """One change of our account's key at a CA, from the moment that a person asked for it."""

    upstream: str
    community: str
    account_url: str
    old_key_id: str
    new_key_id: str
    status: KeyChangeStatus
    begun_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotationFailure:
    """Why an account's key was not rotated when it was to be, the last time."""

    upstream: str
    community: str
    key_id: str
    """The key that the account has kept; with another one none of this counts any more."""
    failures: int
    """How often in a row."""
    failed_at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKeyAge:
    """Which key our account at a CA has, and since when."""

    upstream: str
    community: str
    key_id: str
    since: datetime
    """When the CA was found to know it; the registration, for the account's first key."""
    failure: KeyRotationFailure | None = None


class UpstreamKeyStore(Protocol):
    """The journal of changes; a change and the account it leads to are one transaction."""

    async def begin_upstream_key_change(self, change: UpstreamKeyChange, event: Event) -> None:
        """Keep a change durably before anything is done for it.

        Raises:
            Conflict: Another change of the same account has not ended, or the account has another
                key than ``change.old_key_id``.
        """
        ...

    async def end_upstream_key_change(
        self, change: UpstreamKeyChange, account: UpstreamAccountRecord | None, event: Event
    ) -> None:
        """Keep how a change ended, with the account as it is by then where that changed.

        Raises:
            Conflict: It has ended already.
        """
        ...

    async def open_upstream_key_changes(self) -> Sequence[UpstreamKeyChange]:
        """Return every change that has begun and not ended, oldest first."""
        ...


class KeyAgeStore(Protocol):
    """How old account keys are, and how their rotation goes."""

    async def account_key_ages(self) -> Sequence[AccountKeyAge]:
        """Return the age of each account's key, by upstream and community."""
        ...

    async def keep_key_rotation_failure(self, failure: KeyRotationFailure) -> None:
        """Keep why a key was not rotated, in place of what was kept of that account before."""
        ...


class KeyUses(Protocol):
    """Remembers which keys were ever ours, so that none is taken for a new one."""

    async def used_key_ids(self) -> Sequence[str]:
        """Return every id that an account or a built-in CA ever had, or is about to have.

        A key that a change made and undid was nobody's: the next change may take it.
        """
        ...


class AccountsAtCas(Protocol):
    """Our accounts as their CAs know them.  Refused, Unreachable and Broken as everywhere."""

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from using the account, once all that is under way has ended.

        Raises:
            Unreachable: What is under way takes too long; nothing was done.
        """
        ...

    def set_certain(self, upstream: str, community: str, *, is_certain: bool) -> None:
        """Say whether the account's key is known.  While it is not, the account is used by
        nobody: what would be signed with the wrong key is refused by the CA, for good."""
        ...

    def doubt(self, upstream: str, community: str) -> None:
        """Have the account looked at: it may be lost."""
        ...

    def verify_usable(self, upstream: str, community: str) -> None:
        """See that the account is not known to be lost; raises Broken where it is."""
        ...

    async def change_key(self, account: UpstreamAccountRecord, new_key_id: str) -> None:
        """Ask the CA to give the account another key.  After Unreachable it may have done so."""
        ...

    async def account_of(self, account: UpstreamAccountRecord, key_id: str) -> str | None:
        """Return the URL of the account that the CA knows by this key, None for none."""
        ...

    async def thumbprint(self, upstream: str, key_id: str) -> str:
        """Return the thumbprint of a key of ours (RFC 7638)."""
        ...
