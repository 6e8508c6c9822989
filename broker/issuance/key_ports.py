"""What keeping keys asks of the world beyond signing: where the next key is, and seals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.ports import KeyRing
from broker.issuance.records import EabKeyRecord

__all__ = [
    "KeyFault",
    "KeyFaultKind",
    "KeyPlaces",
    "KeyStores",
    "ReadSecret",
    "Resealed",
    "Sealed",
    "Sealer",
    "SealingStore",
    "known_secret",
]

ReadSecret = Callable[[], Awaitable[bytes]]
"""Reads a secret of the configuration when it is needed, since it may lie in Vault.

Raises Unreachable where it cannot be read now, Broken where a person has to see to it.
"""


def known_secret(value: bytes) -> ReadSecret:
    """Return a reader of what is known already."""

    async def read() -> bytes:
        return value

    return read


class KeyFaultKind(StrEnum):
    """What follows from a fault of a key."""

    BARRING = "barring"
    """Nothing is signed with it until this is put right."""
    EXPOSED = "exposed"
    """It may leave where it is, and nobody can take that back: it is taken for nothing new, and
    signs what it signed before, for its successor needs its signature (RFC 8555 §7.3.5)."""
    ORIGIN = "origin"
    """It has lived elsewhere, as somebody wanted: a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFault:
    """Something about a key that must not be so, such as one that Vault rotates by itself."""

    key_id: str
    reason: str
    kind: KeyFaultKind = KeyFaultKind.BARRING


class KeyPlaces(Protocol):
    """Knows where keys are kept, and what the next one of a kind will be called.

    An id names one key for good.  In files it is a file's name; in Vault it is
    ``vault:MOUNT/NAME#VERSION``, one version of a transit key, and never *the latest*.
    """

    async def next_account_key_id(self, upstream: str, community: str, current: str | None) -> str:
        """Return the id that our account's next key will have, where configuration keeps it.

        *current* is the id of its present key, None before the first registration.  Nothing is
        made.

        Raises:
            Unreachable: Vault cannot answer now.
        """
        ...

    async def next_ca_key_id(self, upstream: str, role: str, taken: Sequence[str]) -> str:
        """Return the id that the built-in CA's next key will have; *role* is root or issuing."""
        ...


class KeyStores(KeyRing, Protocol):
    """All keys, in files and in Vault, told apart by their ids."""

    async def retire_before(self, key_id: str) -> None:
        """See that no earlier version of this key signs any more; done twice it does nothing.

        Of a key in a file there are no versions, and nothing is done.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: No identity that may do so is configured.
        """
        ...

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        """Return what must not be so about this key: it rotates by itself, can be exported, backed
        up in the clear or deleted, or its pinned version is not to be had.

        Raises:
            Unreachable: Vault cannot answer now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as the store keeps it."""

    by: str
    """Under which key: ``file:FINGERPRINT``, or ``vault:MOUNT/NAME#VERSION``."""
    octets: bytes = field(repr=False)


class Sealer(Protocol):
    """Encrypts what the store keeps and nobody who reads the store should learn."""

    async def sealing_key(self) -> str:
        """Return under which key `seal` seals now, as it stands in `Sealed.by`.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: The key cannot be used.
        """
        ...

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """Return the secret sealed; *context* says whose it is, and opening asks for the same.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: Its key cannot be used.
        """
        ...

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """Return the secret.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: It was sealed elsewhere, for another context, or was tampered with.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """A row's secret sealed anew."""

    before: EabKeyRecord
    """The row as it was read; one that has changed since is left alone."""
    sealed: Sealed


class SealingStore(Protocol):
    """Secrets of the store that are to be sealed, or under another key."""

    async def unsealed_eab_keys(self) -> Sequence[EabKeyRecord]:
        """Return every binding key whose MAC key lies in the clear: an earlier version's."""
        ...

    async def eab_keys_not_under(self, sealing_key: str, limit: int) -> Sequence[EabKeyRecord]:
        """Return at most *limit* binding keys that are sealed under another key than this."""
        ...

    async def reseal_eab_keys(self, resealed: Sequence[Resealed], event: Event) -> None:
        """Keep all of *resealed* with *event*, in one transaction.

        Where any of them lay in the clear, nothing of the table's old pages is left in the
        database file: what was there is overwritten.
        """
        ...

    async def fold_log(self) -> None:
        """Move the write-ahead log into the database file and cut it to nothing.

        Raises:
            Unreachable: A long read stood in the way, which a later call does not find there.
        """
        ...
