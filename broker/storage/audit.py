"""The audit chain as its readers want it, its checkpoints, and how far each sink has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from broker.issuance.audit_chain import GENESIS, ChainedRecord, canonical
from broker.issuance.audit_ports import CheckpointRecord, SinkPosition
from broker.storage.part import Part
from broker.storage.rows import moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Audits"]

# Each record with the digest of its predecessor, which the record names where it is exported.
_RECORD: Final = (
    "SELECT e.seq, e.kind, e.at, e.actor, e.reason, e.community, e.account_id, e.order_id,"
    " e.upstream, e.data, e.digest, p.digest FROM events AS e"
    " LEFT JOIN events AS p ON p.seq = e.seq - 1"
)
_PAGE: Final = _RECORD + " WHERE e.seq > ? ORDER BY e.seq LIMIT ?"
_OF_ORDER: Final = _RECORD + " WHERE e.order_id = ? ORDER BY e.seq LIMIT ?"
_LAST: Final = "SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1"
_CHECKPOINT: Final = "SELECT number, seq, at, key_id, jws, vault_request FROM audit_checkpoints"

MAX_OF_ORDER: Final = 10_000
"""Most records of one order that are returned; one that goes well has about ten."""


class Audits(Part):
    """The ports AuditStore and AuditTrail."""

    async def audit_records(self, *, after: int, limit: int) -> Sequence[ChainedRecord]:
        """Return records past number *after*, oldest first, each with its predecessor's digest."""
        return await self._database.scan(
            lambda snapshot: [_record(row) for row in snapshot.all(_PAGE, after, limit)]
        )

    async def last_audit_record(self) -> tuple[int, bytes] | None:
        """Return number and digest of the newest record; None where the chain is empty."""

        def work(snapshot: Snapshot) -> tuple[int, bytes] | None:
            row = snapshot.first(_LAST)
            return None if row is None else (row[0], row[1] or GENESIS)

        return await self._database.read(work)

    async def add_checkpoint(self, checkpoint: CheckpointRecord) -> None:
        """Keep a checkpoint, without fsync."""
        await self._database.write(
            lambda transaction: transaction.change(
                "INSERT INTO audit_checkpoints (number, seq, at, key_id, jws, vault_request)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                checkpoint.number,
                checkpoint.seq,
                time_of(checkpoint.at),
                checkpoint.key_id,
                checkpoint.jws,
                checkpoint.vault_request,
            ),
            durable=False,
        )

    async def thin_checkpoints(self, before: datetime) -> None:
        """Keep one of sixty checkpoints from before *before*, of those that every sink has."""
        await self._database.write(
            lambda transaction: transaction.change(
                "DELETE FROM audit_checkpoints WHERE at < ? AND number % 60 <> 0 AND number <="
                " (SELECT coalesce(min(checkpoint), 9223372036854775807) FROM audit_sinks)",
                time_of(before),
            ),
            durable=False,
        )

    async def checkpoints(self, *, after: int, limit: int) -> Sequence[CheckpointRecord]:
        """Return checkpoints past number *after*, oldest first."""

        def work(snapshot: Snapshot) -> list[CheckpointRecord]:
            rows = snapshot.all(
                _CHECKPOINT + " WHERE number > ? ORDER BY number LIMIT ?", after, limit
            )
            return [_checkpoint(row) for row in rows]

        return await self._database.scan(work)

    async def last_checkpoint(self) -> CheckpointRecord | None:
        """Return the newest checkpoint."""
        return await self._first_checkpoint(" ORDER BY number DESC LIMIT 1")

    async def first_checkpoint_from(self, seq: int) -> CheckpointRecord | None:
        """Return the first checkpoint that covers record *seq*; None where there is none yet."""
        return await self._first_checkpoint(" WHERE seq >= ? ORDER BY seq LIMIT 1", seq)

    async def sink_positions(self) -> Sequence[SinkPosition]:
        """Return how far every sink has come that ever took anything."""

        def work(snapshot: Snapshot) -> list[SinkPosition]:
            rows = snapshot.all("SELECT name, seq, checkpoint, at FROM audit_sinks ORDER BY name")
            return [
                SinkPosition(name=name, seq=seq, checkpoint=checkpoint, at=moment_of(at))
                for name, seq, checkpoint, at in rows
            ]

        return await self._database.read(work)

    async def save_sink_position(self, position: SinkPosition) -> None:
        """Keep how far a sink has come, without fsync."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "INSERT INTO audit_sinks (name, seq, checkpoint, at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET"
                " seq = excluded.seq, checkpoint = excluded.checkpoint, at = excluded.at",
                position.name,
                position.seq,
                position.checkpoint,
                0 if position.at is None else time_of(position.at),
            )

        await self._database.write(work, durable=False)

    # ------------------------------------------------------------------------- by their subject

    async def records_of_order(self, order_id: str) -> Sequence[ChainedRecord]:
        """Return the records of an order, oldest first."""
        return await self._database.scan(
            lambda snapshot: [
                _record(row) for row in snapshot.all(_OF_ORDER, order_id, MAX_OF_ORDER)
            ]
        )

    async def records_mentioning(self, words: Sequence[str], limit: int) -> Sequence[ChainedRecord]:
        """Return records whose data holds one of *words* as a text of its own, newest last.

        It reads the whole table, on the lane for long reads: 10⁶ records take about a second.
        """
        if not words:
            return []
        places = " OR ".join("instr(e.data, ?)" for _ in words)
        statement = f"{_RECORD} WHERE {places} ORDER BY e.seq DESC LIMIT ?"

        def work(snapshot: Snapshot) -> list[ChainedRecord]:
            rows = snapshot.all(statement, *(canonical(word) for word in words), limit)
            return [_record(row) for row in reversed(rows)]

        return await self._database.scan(work)

    async def records_of_account(self, account_id: str, limit: int) -> Sequence[ChainedRecord]:
        """Return the records about an account that are about none of its orders, oldest first."""
        statement = _RECORD + (
            " WHERE e.account_id = ? AND e.order_id IS NULL AND e.kind <> 'request-refused'"
            " ORDER BY e.seq LIMIT ?"
        )
        return await self._database.scan(
            lambda snapshot: [_record(row) for row in snapshot.all(statement, account_id, limit)]
        )

    async def certificates_with_serial(self, serial: str) -> Sequence[str]:
        """Return the ids of the certificates with this serial number, in lower case hex."""

        def work(snapshot: Snapshot) -> list[str]:
            rows = snapshot.all("SELECT certificate_id FROM certificates WHERE serial = ?", serial)
            return [found for (found,) in rows]

        return await self._database.scan(work)

    async def write_along(self) -> None:
        """Commit, without fsync, what waits to be taken along by some commit."""
        await self._database.write(lambda _: None, durable=False)

    async def _first_checkpoint(self, rest: str, *values: object) -> CheckpointRecord | None:
        def work(snapshot: Snapshot) -> CheckpointRecord | None:
            row = snapshot.first(_CHECKPOINT + rest, *values)
            return None if row is None else _checkpoint(row)

        return await self._database.read(work)


def _record(row: tuple[Any, ...]) -> ChainedRecord:
    seq, *columns, digest, previous = row
    return ChainedRecord(
        seq=seq,
        columns=tuple(columns),
        digest=digest,
        previous=previous,
    )


def _checkpoint(row: tuple[Any, ...]) -> CheckpointRecord:
    number, seq, at, key_id, jws, vault_request = row
    return CheckpointRecord(
        number=number,
        seq=seq,
        at=moment_of(at),
        key_id=key_id,
        jws=jws,
        vault_request=vault_request,
    )
