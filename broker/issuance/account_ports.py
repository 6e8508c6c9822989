"""What looking after our accounts at CAs asks of the world, and what is kept of lost ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.records import CertificateRecord, UpstreamAccountRecord

__all__ = [
    "AccountRecovery",
    "AccountRegistrar",
    "AccountsAsked",
    "FormerAccount",
    "FormerAccounts",
    "LossCause",
    "Replaced",
    "Standing",
    "Successors",
]


class LossCause(StrEnum):
    """Why our account at a CA cannot be used, and will not be by waiting."""

    KEY_GONE = "key-gone"
    """There is no such key: its Vault or mount is new, or was emptied."""
    KEY_ARCHIVED = "key-archived"
    """The key is there and may not sign: somebody raised the minimum version in Vault past it."""
    KEY_OLDER = "key-older"
    """The key is as it was before its last rotation: its Vault was restored from a snapshot."""
    KEY_OTHER = "key-other"
    """Under the pinned id lies another key: its Vault was set up anew and the name used again."""
    STORE_OLDER = "store-older"
    """Our store is as it was before the last rotation; the key that the CA knows is there."""
    KEY_UNKNOWN = "key-unknown"
    """The CA has the account with a key that is nowhere to be found here."""
    ACCOUNT_CLOSED = "account-closed"
    """The account was deactivated, or the CA has revoked it."""
    ACCOUNT_UNKNOWN = "account-unknown"
    """The CA knows no such account: it was emptied or set up anew."""
    CA_OTHER = "ca-other"
    """The configuration names another directory than the one that the account is at."""
    REGISTERED_ANEW = "registered-anew"
    """Nothing was lost: a person registered or adopted another account in its place."""


class Standing(StrEnum):
    """How a CA stands to our account when one of our keys speaks for it."""

    VALID = "valid"
    CLOSED = "closed"
    ACCOUNT_UNKNOWN = "account-unknown"
    KEY_UNKNOWN = "key-unknown"
    """It has the account, and this is not its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerAccount:
    """An account that was ours at a CA, and in whose place another one is."""

    upstream: str
    community: str
    directory_url: str
    account_url: str
    key_id: str
    thumbprint: str
    registered_at: datetime
    until: datetime
    """When it was replaced."""
    cause: LossCause


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecovery:
    """A new account on its way, from the moment at which its key has a name."""

    upstream: str
    community: str
    old_account_url: str
    new_key_id: str
    cause: LossCause
    begun_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """What became of the orders that were on their way when an account was replaced."""

    begun_anew: tuple[str, ...] = ()
    """Orders that go on under the new account: no finalize of theirs was ever sent."""
    undecided: tuple[str, ...] = ()
    """Orders whose finalize the CA may have taken: a certificate may exist that nobody can fetch
    without the old account."""


class AccountsAsked(Protocol):
    """Our accounts, as their CAs and the keepers of their keys show them now.

    Nothing is answered from memory.  Refused, Unreachable and Broken as everywhere.
    """

    def using(self, upstream: str, community: str) -> AbstractAsyncContextManager[bool]:
        """Keep changes of the account's key away for as long as the block lasts, lost or not.

        Yields whether it is known which key it has; where it is not, a change has not ended.
        """
        ...

    def directory_url(self, upstream: str) -> str | None:
        """Return the directory that configuration names, None where it names no such CA."""
        ...

    async def has_key(self, key_id: str) -> bool:
        """Return whether the key is there; where a mount is gone none is."""
        ...

    async def thumbprint_now(self, key_id: str) -> str | None:
        """Return the thumbprint of the key that lies under this id, None where none does.

        Raises:
            KeyArchived: It is there, and nobody may see or use it for now.
        """
        ...

    async def standing(self, account: UpstreamAccountRecord, key_id: str) -> Standing:
        """Return what the CA says when this key speaks for the account."""
        ...

    def doubted(self) -> Collection[tuple[str, str]]:
        """Return the (upstream, community) pairs whose use has failed for the account's sake, or
        may have, since they were last looked at."""
        ...

    def set_lost(self, upstream: str, community: str, reason: str | None) -> None:
        """Have everybody who would use the account be told *reason* instead; None: all is well.

        In either case it is doubted no more.
        """
        ...


class Successors(Protocol):
    """Knows under which other ids a key of an account may lie."""

    async def key_ids_of_account(self, upstream: str, community: str) -> Sequence[str]:
        """Return every id that any record of ours names for a key of this account, newest first."""
        ...


class AccountRegistrar(Protocol):
    """Has a new account made for a new key."""

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from using the account, once all that is under way has ended."""
        ...

    async def next_key_id(self, upstream: str, community: str, current: str) -> str:
        """Return the id that the next key will have; nothing is made."""
        ...

    async def make_key(self, upstream: str, key_id: str) -> None:
        """Make the key, of the kind that is configured; one that is there already is left alone."""
        ...

    async def has_key(self, key_id: str) -> bool:
        """Return whether the key is there."""
        ...

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find the account of this key at the CA, or have one made, with the binding that is
        configured; return its record without keeping it."""
        ...


class FormerAccounts(Successors, Protocol):
    """What the store keeps of accounts that are replaced; each method is one transaction."""

    async def begin_account_recovery(self, recovery: AccountRecovery, event: Event) -> None:
        """Keep durably which key a new account will have, in place of an earlier intention."""
        ...

    async def open_account_recovery(self, upstream: str, community: str) -> AccountRecovery | None:
        """Return the recovery that has begun and not ended, or None."""
        ...

    async def repin_upstream_account(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Have the same account be spoken for by another key of ours.

        A change of its key that has not ended is over by that, and a recovery as well.

        Raises:
            Conflict: The account is another one by now.
        """
        ...

    async def replace_upstream_account(
        self, account: UpstreamAccountRecord, *, old_url: str, cause: LossCause, event: Event
    ) -> Replaced:
        """Put *account* in the place of the one at *old_url*, which is kept as a former one.

        In the same transaction: what was opened under the old one and never finalized is begun
        anew, no order that is still open tells the CA any more what it replaces, a change of key
        that has not ended is over, and so is the recovery.

        Raises:
            Conflict: The account is another one by now.
        """
        ...

    async def former_upstream_accounts(
        self, upstream: str | None, community: str | None
    ) -> Sequence[FormerAccount]:
        """Return former accounts, newest first."""
        ...

    async def live_certificates_of(
        self, account_url: str, *, now: datetime, limit: int
    ) -> tuple[int, Sequence[CertificateRecord]]:
        """Return how many released certificates of this account are in force, and those that end
        last, at most *limit*."""
        ...
