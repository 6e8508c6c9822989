"""Mass replacements as they are kept; under the rules of ``ports`` and beside ``node_ports``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from broker.issuance.events import Event
from broker.issuance.records import Job
from broker.protocol.identifiers import Identifier

__all__ = [
    "AT_ONCE",
    "IncidentItem",
    "IncidentRecord",
    "IncidentStatus",
    "IncidentStore",
    "ItemKind",
    "ItemStatus",
    "Order",
    "Selected",
    "Selection",
]


AT_ONCE: Final = 50
"""Replacements that are being ordered at once, unless told otherwise: enough to keep a CA busy that
answers within seconds, few enough to leave room for what else is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which living certificates are meant: those that everything named is true of."""

    issuers: tuple[str, ...] = ()
    """Key identifiers of issuing CAs as a CertID has them (RFC 9773 §4.1); empty: any."""
    spki_sha256: str | None = None
    node: str | None = None
    """Name of a node."""
    profile: str | None = None
    upstream: str | None = None
    community: str | None = None
    issued_after: datetime | None = None
    issued_before: datetime | None = None

    def document(self) -> dict[str, object]:
        """Return what is named, as JSON has it."""
        named = {
            "issuers": list(self.issuers),
            "spki_sha256": self.spki_sha256,
            "node": self.node,
            "profile": self.profile,
            "upstream": self.upstream,
            "community": self.community,
            "issued_after": None if self.issued_after is None else self.issued_after.isoformat(),
            "issued_before": None if self.issued_before is None else self.issued_before.isoformat(),
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asks for."""

    selection: Selection
    revocation_reason: int
    deadline: timedelta | None = None
    at_once: int = AT_ONCE
    explanation_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A living certificate that a selection found."""

    certificate_id: str
    community: str
    upstream: str
    profile: str
    identifiers: tuple[Identifier, ...]
    not_after: datetime
    managed_id: str | None
    """What of a node it was made for; None: its client renews by itself."""
    node: str | None


class IncidentStatus(StrEnum):
    """Where a mass replacement stands."""

    OPEN = "open"
    PAUSED = "paused"
    DONE = "done"
    ABANDONED = "abandoned"


class ItemKind(StrEnum):
    """Who renews a certificate: we, at a node, or its client by itself."""

    MANAGED = "managed"
    STOCK = "stock"


class ItemStatus(StrEnum):
    """Where one certificate of a mass replacement stands.

    WAITING for its turn, or to be tried again; GOING, a delivery is begun; REPLACED, its successor
    was seen served; REVOKING, its revocation was asked for; REVOKED.  PULLED: its client was told
    to renew now.  HANDED_OVER: that client has another.  GONE: it ended or was revoked meanwhile.
    REFUSED: the CA does not revoke it.
    """

    WAITING = "waiting"
    GOING = "going"
    REPLACED = "replaced"
    REVOKING = "revoking"
    REVOKED = "revoked"
    PULLED = "pulled"
    HANDED_OVER = "handed-over"
    GONE = "gone"
    REFUSED = "refused"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows."""
        return self in _ENDS


_ENDS = frozenset({ItemStatus.REVOKED, ItemStatus.HANDED_OVER, ItemStatus.GONE, ItemStatus.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRecord:
    """One mass replacement."""

    incident_id: str
    status: IncidentStatus
    selection: Mapping[str, object]
    started_at: datetime
    deadline_at: datetime | None
    started_by: str
    reason: str | None
    revocation_reason: int
    """RFC 5280 §5.3.1."""
    at_once: int
    """Most replacements that are being ordered at once."""
    explanation_url: str | None = None
    """Told to clients that renew by themselves (RFC 9773 §4.2)."""
    late_at: datetime | None = None
    """When it was told that the deadline has passed."""
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentItem:
    """One certificate of a mass replacement."""

    incident_id: str
    certificate_id: str
    kind: ItemKind
    managed_id: str | None
    node: str | None
    status: ItemStatus
    note: str | None
    attempts: int
    retry_at: datetime | None
    place: int
    """Its turn; canaries have the first."""


class IncidentStore(Protocol):
    """Mass replacements."""

    async def select_certificates(
        self, selection: Selection, now: datetime, limit: int
    ) -> Sequence[Selected]:
        """Return the released certificates that are neither ended nor revoked."""
        ...

    async def issuer_samples(self) -> Mapping[str, bytes]:
        """Return a certificate (DER) of each issuing CA, by its key identifier."""
        ...

    async def start_incident(
        self, incident: IncidentRecord, items: Sequence[IncidentItem], event: Event, job: Job
    ) -> None:
        """Keep it with all its items; those that are PULLED tell their clients from now on."""
        ...

    async def change_incident(
        self,
        incident: IncidentRecord,
        *,
        expected: Sequence[IncidentStatus],
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep it in place of what is there; of one that is ABANDONED no client is told any more.

        Raises:
            Conflict: Its status is not *expected*.
        """
        ...

    async def keep_item(self, item: IncidentItem) -> None:
        """Keep *item* in place of what is there."""
        ...

    async def find_incident(self, incident_id: str) -> IncidentRecord | None: ...

    async def list_incidents(self, limit: int) -> Sequence[IncidentRecord]:
        """Return them, the newest first."""
        ...

    async def incident_items(
        self, incident_id: str, statuses: Sequence[ItemStatus], limit: int
    ) -> Sequence[IncidentItem]:
        """Return those in these states, in their turn."""
        ...

    async def count_items(self, incident_id: str) -> Mapping[ItemKind, Mapping[ItemStatus, int]]:
        """Return how many there are of each kind in each state."""
        ...
