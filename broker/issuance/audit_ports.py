"""What the audit asks of the world: records, checkpoints, and how far each sink has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.issuance.audit_chain import ChainedRecord

__all__ = [
    "AuditStore",
    "AuditTrail",
    "CheckpointRecord",
    "CheckpointStore",
    "SinkPosition",
    "SinkStore",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A signed statement of how far the chain had come, as it is kept."""

    number: int
    """One more than its predecessor's."""
    seq: int
    """The last record that it covers."""
    at: datetime
    key_id: str
    jws: str
    """The statement and its signature (RFC 7515 §7.1)."""
    vault_request: str | None = None
    """Vault's id of the request that signed it, where a key in Vault did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkPosition:
    """How far a sink has come: everything up to here was taken from us."""

    name: str
    seq: int = 0
    checkpoint: int = 0
    """Number of the last checkpoint."""
    at: datetime | None = None


class CheckpointStore(Protocol):
    """How far the chain has come, and what was signed of it."""

    async def last_audit_record(self) -> tuple[int, bytes] | None:
        """Return number and digest of the newest record; None where the chain is empty."""
        ...

    async def last_checkpoint(self) -> CheckpointRecord | None:
        """Return the newest checkpoint."""
        ...

    async def add_checkpoint(self, checkpoint: CheckpointRecord) -> None:
        """Keep a checkpoint; it need not outlive a power cut, for the next one covers more."""
        ...

    async def thin_checkpoints(self, before: datetime) -> None:
        """Keep one of sixty checkpoints from before *before*, of those that every sink has."""
        ...


class SinkStore(Protocol):
    """What sinks are sent, and how far each has come."""

    async def audit_records(self, *, after: int, limit: int) -> Sequence[ChainedRecord]:
        """Return records past number *after*, oldest first, each with its predecessor's digest."""
        ...

    async def checkpoints(self, *, after: int, limit: int) -> Sequence[CheckpointRecord]:
        """Return checkpoints past number *after*, oldest first."""
        ...

    async def sink_positions(self) -> Sequence[SinkPosition]:
        """Return how far every sink has come that ever took anything."""
        ...

    async def save_sink_position(self, position: SinkPosition) -> None:
        """Keep how far a sink has come; lost with a power cut it is sent some records again."""
        ...


class AuditStore(CheckpointStore, SinkStore, Protocol):
    """The chain with all that stands beside it."""


class AuditTrail(Protocol):
    """Records by what they are about."""

    async def records_of_order(self, order_id: str) -> Sequence[ChainedRecord]:
        """Return the records of an order, oldest first."""
        ...

    async def records_mentioning(self, words: Sequence[str], limit: int) -> Sequence[ChainedRecord]:
        """Return records whose data holds one of *words* as a text of its own, newest last."""
        ...

    async def records_of_account(self, account_id: str, limit: int) -> Sequence[ChainedRecord]:
        """Return the records about an account that are about none of its orders, oldest first."""
        ...

    async def first_checkpoint_from(self, seq: int) -> CheckpointRecord | None:
        """Return the first checkpoint that covers record *seq*; None where there is none yet."""
        ...

    async def certificates_with_serial(self, serial: str) -> Sequence[str]:
        """Return the ids of the certificates with this serial number, in lower case hex."""
        ...
