"""What the workflows keep and ask about renewal: windows, successors, retirement, other chains.

Beside ``ports`` and ``records`` and under their rules: every method of a store port is one
transaction, times are aware UTC, adapters raise only what ``errors`` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from broker.issuance.adoption_ports import AdoptedCertificate
from broker.issuance.events import Event
from broker.issuance.records import CertificateRecord, Job
from broker.protocol.identifiers import Identifier
from broker.protocol.renewal import RenewalInfo

__all__ = [
    "ChainStore",
    "RenewalAnswer",
    "RenewalRecord",
    "RenewalStore",
    "RenewalThere",
    "RenewalView",
    "RetirementRecord",
    "RetirementStatus",
    "RetirementStore",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRecord:
    """What a CA last said about the renewal of one of its certificates."""

    certificate_id: str
    cert_id: str
    upstream: str
    community: str
    not_after: datetime
    """End of the certificate: past it nobody asks."""
    due_at: datetime | None
    """When the CA is asked next; None: never again, it was replaced, revoked or has ended."""
    failures: int = 0
    """Questions in a row that brought no answer."""
    window_start: datetime | None = None
    window_end: datetime | None = None
    explanation_url: str | None = None
    """Where the CA explains itself, for the operator; clients are not told its addresses."""
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalView:
    """All that the answer about a certificate's renewal is made of; no key, no chain."""

    certificate_id: str
    order_id: str
    account_id: str
    community: str
    upstream: str
    profile: str
    identifiers: tuple[Identifier, ...]
    fingerprint: str
    not_before: datetime
    not_after: datetime
    received_at: datetime
    revoked_at: datetime | None
    revocation_reason: int | None
    """Set once a revocation was asked for, before the CA has confirmed it."""
    window_start: datetime | None
    window_end: datetime | None
    explanation_url: str | None
    due_at: datetime | None
    retire_at: datetime | None
    upstream_account: str | None = None
    """Our account that ordered it, where that was kept."""
    pulled_at: datetime | None = None
    """Since when its client is told to renew at once, because of an incident."""
    pulled_url: str | None = None
    """Where that incident is explained to clients."""
    renew_at: float | None = None
    """Share of the lifetime that a rule set when it was ordered; None: none did."""


class RetirementStatus(StrEnum):
    """Where a certificate stands that is longer than its cap.

    WAITING for a successor; OVERDUE is one whose retirement date has passed without any; REPLACED
    has a successor in use and is revoked after the grace time; RETIRED was revoked, or has ended.
    """

    WAITING = "waiting"
    OVERDUE = "overdue"
    REPLACED = "replaced"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementRecord:
    """A certificate that policy accepted although it is longer than its cap."""

    certificate_id: str
    order_id: str
    account_id: str
    community: str
    upstream: str
    profile: str
    identifiers: tuple[Identifier, ...]
    received_at: datetime
    retire_at: datetime
    """When its successor has to be in use: the cap, counted from receipt."""
    grace_seconds: int
    """How long both are good once the successor is in use, in seconds."""
    revokes_unreplaced: bool
    """Whether it is revoked on its retirement date though nothing has replaced it."""
    status: RetirementStatus
    replaced_by: str | None = None
    replaced_at: datetime | None = None

    @property
    def grace(self) -> timedelta:
        """Return how long both are good."""
        return timedelta(seconds=self.grace_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalAnswer:
    """A CA's answer about one certificate."""

    info: RenewalInfo
    retry_at: datetime | None
    """When it wants to be asked again; None: it did not say, which is an error of its own."""


class RenewalThere(Protocol):
    """What a CA says about the renewal of certificates that it has issued."""

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:
        """Return the CA's answer, or None when it offers no renewal information at all.

        Raises:
            Refused: It knows no such certificate.
            Unreachable: It cannot answer now.
            Broken: What it answered is no renewal information.
        """
        ...


class RenewalStore(Protocol):
    """Renewal information as it is kept."""

    async def renewal_views(self, community: str, cert_id: str) -> Sequence[RenewalView]:
        """Return the released certificates of the community with this CertID; one, unless two
        CAs share a key identifier and a serial."""
        ...

    async def find_renewal(self, certificate_id: str) -> RenewalRecord | None: ...

    async def due_renewals(self, now: datetime, limit: int) -> Sequence[RenewalRecord]:
        """Return what the CAs are to be asked about, longest due first."""
        ...

    async def keep_renewals(
        self, records: Sequence[RenewalRecord], events: Sequence[Event]
    ) -> None:
        """Keep what came of asking, without fsync; a row whose ``due_at`` was taken away
        meanwhile stays without one."""
        ...

    async def adopted_certificates(
        self, community: str, cert_id: str
    ) -> Sequence[AdoptedCertificate]:
        """Return certificates of this CertID that came with an adopted account."""
        ...

    async def successor_of(self, account_id: str, cert_id: str) -> str | None:
        """Return the id of the account's order that replaces this certificate and is not
        invalid, or None."""
        ...


class RetirementStore(Protocol):
    """Certificates that are longer than their cap."""

    async def find_retirement(self, certificate_id: str) -> RetirementRecord | None: ...

    async def awaiting_successor(
        self, account_id: str, community: str, before: datetime
    ) -> Sequence[RetirementRecord]:
        """Return the account's WAITING and OVERDUE ones that were received before *before*."""
        ...

    async def change_retirement(
        self,
        record: RetirementRecord,
        *,
        expected: Sequence[RetirementStatus],
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep *record* in place of what is there; raises Conflict when that is not *expected*."""
        ...

    async def list_retirements(
        self, status: RetirementStatus | None, limit: int
    ) -> Sequence[RetirementRecord]:
        """Return them, the soonest retirement date first; None: all that are not RETIRED."""
        ...

    async def retirement_dates(self, certificate_ids: Sequence[str]) -> Mapping[str, datetime]:
        """Return the retirement date of each of these certificates that has one."""
        ...

    async def count_retirements(self) -> dict[str, int]:
        """Return how many there are, by status."""
        ...


class ChainStore(Protocol):
    """Other chains of the certificates that are kept."""

    async def find_with_chains(
        self, certificate_id: str
    ) -> tuple[CertificateRecord, Sequence[bytes]] | None:
        """Return the certificate, and the PEM of every other chain of it, in the order of their
        numbers from 1."""
        ...
