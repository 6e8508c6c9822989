"""What was asked of policy, as the store keeps it, for ``policy diff`` to ask again.

Beside ``ports`` and under its rules.  Pages are small, so that no reader is held for long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from broker.protocol.identifiers import Identifier

__all__ = ["AskedRecord", "Asker", "ReplayPlace", "ReplayStore"]


@dataclass(frozen=True, slots=True)
class ReplayPlace:
    """Where the next page begins: behind this moment, and behind this id at it."""

    at: datetime
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRecord:
    """One request, as it was asked."""

    reference: str
    """Id of the order or the certificate, or the number of the event of a refusal."""
    community: str
    account_id: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    """As the client asked; None when it named none."""
    is_start_asked: bool
    lifetime: timedelta | None
    """From the request to the end that the client asked for; None when it asked for none."""
    at: datetime
    """What pages are ordered by: when it was asked, or when the certificate was received."""
    requester: Mapping[str, object] = field(default_factory=dict)
    """What was proved or seen of whoever asked, as the decision kept it."""
    is_unchanged_renewal: bool = False
    until: datetime | None = None
    """End of a live certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """An account, with what its binding or its node limits it to now."""

    account_id: str
    thumbprint: str
    eab_key_id: str | None
    eab_names: tuple[str, ...]
    eab_profiles: tuple[str, ...]
    node: str | None
    node_names: tuple[str, ...]
    node_profiles: tuple[str, ...]
    attestation: str | None
    """How the node was let in."""
    is_closed: bool
    """Whether the account, its key or its node was revoked: it orders nothing any more."""


class ReplayStore(Protocol):
    """What was asked, oldest first."""

    async def orders_asked(self, after: ReplayPlace, limit: int) -> Sequence[AskedRecord]:
        """Return orders that were made behind *after*."""
        ...

    async def certificates_alive(
        self, now: datetime, after: ReplayPlace, limit: int
    ) -> Sequence[AskedRecord]:
        """Return certificates that are released, not revoked and valid past *now*, with the orders
        that brought them."""
        ...

    async def refusals_asked(self, after: ReplayPlace, limit: int) -> Sequence[AskedRecord]:
        """Return requests for orders that policy refused, those whose request was kept."""
        ...

    async def askers(self, account_ids: Sequence[str]) -> Sequence[Asker]:
        """Return these accounts."""
        ...

    async def count_asked(self, now: datetime, since: datetime) -> tuple[int, int]:
        """Return how many orders were made past *since*, and how many certificates are alive."""
        ...
