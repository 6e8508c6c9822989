"""What a reconciliation speaks of and asks: lists of CAs, what was found, what is lost.

Values, comparisons and two ports; ``reconciliation`` does the looking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from broker.issuance.events import Event
from broker.issuance.ports import UpstreamOrder
from broker.issuance.records import RestorationRecord, WorkRecord
from broker.protocol.certificates import Chain, parse_chain
from broker.protocol.csr import parse_csr
from broker.protocol.encoding import format_timestamp

__all__ = [
    "Loss",
    "OrderListing",
    "Report",
    "RestorationStore",
    "UpstreamLedger",
    "UpstreamReport",
    "is_answer_to",
    "key_of_csr",
    "parse_leaf",
]

MAX_SHOWN: Final = 100
"""Most orders that a report names one by one; their number is always told."""


@dataclass(frozen=True, slots=True)
class OrderListing:
    """What a CA lists of our account's orders (RFC 8555 §7.1.2.1)."""

    urls: Sequence[str]
    is_whole: bool
    """Whether the list was read to its end."""


class RestorationStore(Protocol):
    """What a restored store remembers."""

    async def open_restoration(self) -> RestorationRecord | None:
        """Return the restoration that has not been reconciled, or None."""
        ...

    async def save_report(self, restoration_id: str, report: dict[str, object]) -> None: ...

    async def end_restoration(self, restoration_id: str, at: datetime, event: Event) -> None: ...

    async def living_work(self) -> Sequence[WorkRecord]:
        """Return every upstream order that is neither spent nor dead nor recovered."""
        ...

    async def recover_work(
        self, work_id: str, *, order_url: str, spki_sha256: str, fingerprint: str, event: Event
    ) -> None:
        """Keep that the order at *order_url* has a certificate for that key; raises Conflict."""
        ...

    async def repoint_work(self, work_id: str, *, order_url: str, event: Event) -> None:
        """Give the taken record the order at *order_url*; raises Conflict."""
        ...


class UpstreamLedger(Protocol):
    """What the CAs know of us."""

    async def accounts(self) -> Sequence[tuple[str, str]]:
        """Return the (upstream, community) pairs that have an account or should have one."""
        ...

    async def check(self, upstream: str, community: str) -> Sequence[str]:
        """Return a sentence for each thing that stands between us and the CA."""
        ...

    async def list_orders(self, upstream: str, community: str) -> OrderListing | None:
        """Return what the CA lists, None where it offers no list."""
        ...


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that could not be looked at, so that a person has to accept it."""

    upstream: str
    """The name by which it is accepted."""
    community: str
    sentence: str

    def to_json(self) -> dict[str, object]:
        """Return it for the report."""
        return {"upstream": self.upstream, "community": self.community, "what": self.sentence}


@dataclass(slots=True, kw_only=True)
class UpstreamReport:
    """What was found at one upstream for one community."""

    upstream: str
    community: str
    listed: int | None = None
    """Orders that the CA lists; None where it offers no list."""
    known: int = 0
    """Orders that our records know and that were read again."""
    going_on: list[str] = field(default_factory=list)
    """Orders of ours that are processing and go on."""
    recovered: list[dict[str, object]] = field(default_factory=list)
    """Certificates that were issued after the backup for orders that the store knows."""
    unknown: list[dict[str, object]] = field(default_factory=list)
    """Orders that the CA lists and the store does not know."""
    losses: list[Loss] = field(default_factory=list)

    def lose(self, sentence: str) -> None:
        """Note a loss."""
        self.losses.append(Loss(self.upstream, self.community, sentence))

    def to_json(self) -> dict[str, object]:
        """Return it for the report."""
        return {
            "upstream": self.upstream,
            "community": self.community,
            "listed": self.listed,
            "known": self.known,
            "going_on": self.going_on[:MAX_SHOWN],
            "recovered": self.recovered[:MAX_SHOWN],
            "unknown_count": len(self.unknown),
            "unknown": self.unknown[:MAX_SHOWN],
            "losses": [loss.sentence for loss in self.losses],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one attempt found."""

    at: datetime
    upstreams: tuple[UpstreamReport, ...]
    notes: tuple[str, ...]
    """What nobody can know, whoever is asked."""
    accepted: frozenset[str]
    """Upstreams whose losses a person has accepted."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Return every loss, accepted or not."""
        return tuple(loss for one in self.upstreams for loss in one.losses)

    @property
    def in_the_way(self) -> tuple[Loss, ...]:
        """Return the losses that nobody has accepted."""
        return tuple(loss for loss in self.losses if loss.upstream not in self.accepted)

    def to_json(self) -> dict[str, object]:
        """Return the report as it is kept and shown."""
        return {
            "at": format_timestamp(self.at),
            "reconciled": not self.in_the_way,
            "in_the_way": [loss.to_json() for loss in self.in_the_way],
            "accepted": sorted(self.accepted),
            "upstreams": [one.to_json() for one in self.upstreams],
            "cannot_be_known": list(self.notes),
        }


def is_answer_to(order: UpstreamOrder, work: WorkRecord) -> bool:
    """Return whether *order* shows exactly what *work* asks for."""
    end = work.not_after
    asked = (
        frozenset(work.identifiers),
        work.upstream_profile,
        end.replace(microsecond=0) if end is not None else None,
    )
    return asked == (frozenset(order.identifiers), order.profile, order.not_after)


def key_of_csr(csr_der: bytes | None) -> str | None:
    """Return the SHA-256 of a CSR's public key."""
    return None if csr_der is None else parse_csr(csr_der).spki_sha256


def parse_leaf(pem: bytes) -> tuple[Chain, str]:
    """Return a chain and the SHA-256 of its leaf's public key.

    Raises:
        ChainError: It is no certificate chain.
    """
    chain = parse_chain(pem)
    return chain, hashlib.sha256(chain.leaf.spki_der).hexdigest()
