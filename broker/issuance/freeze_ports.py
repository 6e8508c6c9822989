"""What is kept of freezes: what was stopped, by whom, why, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.node_ports import NodeRecord
from broker.issuance.records import AccountRecord

__all__ = ["FreezeKind", "FreezePlace", "FreezeRecord", "FreezeRooms", "FreezeStore"]


class FreezeKind(StrEnum):
    """What can be stopped."""

    COMMUNITY = "community"
    ACCOUNT = "account"
    EAB_KEY = "eab-key"
    NODE = "node"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class FreezePlace:
    """The one thing that a freeze is of."""

    kind: FreezeKind
    community: str
    """Empty for an upstream."""
    subject: str
    """Name of a community or upstream, id of an account, key or node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRecord:
    """A freeze that was not lifted."""

    kind: FreezeKind
    community: str
    subject: str
    name: str
    """What people call it: the node's name, everything else's subject."""
    at: datetime
    actor: str
    reason: str
    """For ourselves; no client is told."""
    told: str | None = None
    """What clients are told of why."""
    ask: str | None = None
    """Whom clients are told to ask; None: whoever the configuration names."""
    until: datetime | None = None
    """When it ends by itself."""

    @property
    def place(self) -> FreezePlace:
        """Return what it is of."""
        return FreezePlace(self.kind, self.community, self.subject)

    def is_in_force(self, now: datetime) -> bool:
        """Return whether it has not ended by itself."""
        return self.until is None or self.until > now

    def __str__(self) -> str:
        """Return what is frozen, for people."""
        return f"{_WORDS[self.kind]} '{self.name}'"


_WORDS = {
    FreezeKind.COMMUNITY: "community",
    FreezeKind.ACCOUNT: "account",
    FreezeKind.EAB_KEY: "EAB key",
    FreezeKind.NODE: "node",
    FreezeKind.UPSTREAM: "upstream",
}


class FreezeStore(Protocol):
    """Freezes, shared by all processes over one store."""

    async def freezes(self) -> Sequence[FreezeRecord]:
        """Return those that were not lifted, the newest first."""
        ...

    async def keep_freeze(self, record: FreezeRecord, event: Event) -> None:
        """Keep *record* in place of what is kept of the same thing."""
        ...

    async def lift_freeze(self, record: FreezeRecord, event: Event) -> None:
        """Forget *record*, and have the renewals that it held up looked at again.

        Raises:
            Conflict: It was lifted or changed meanwhile.
        """
        ...


class FreezeRooms(FreezeStore, Protocol):
    """Freezes, and what tells whom they are about."""

    async def find_account(self, account_id: str) -> AccountRecord | None: ...
    async def find_node_by_account(self, account_id: str) -> NodeRecord | None: ...
