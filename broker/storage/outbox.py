"""Messages that wait for nodes: queued in the transaction of what they tell of, dropped when the
node has acknowledged them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from broker.issuance.node_ports import NodeMessage, QueuedMessage
from broker.storage.part import Part
from broker.storage.rows import RowCodec, json_of
from broker.storage.transaction import Transaction

__all__ = ["Outboxes", "queue"]

QUEUED: Final = RowCodec("node_messages", QueuedMessage)

MESSAGE_ID_BYTES: Final = 16
"""Length of a message's id, in random bytes."""

MAX_SEQ: Final = 2**53
"""Highest number that is believed of a node, in messages; a thousand a second reach it in 285,000
years, and SQLite can still count on from it."""

_NEXT: Final = (
    "INSERT INTO node_sequences (node_id, last_seq) VALUES (?, 1)"
    " ON CONFLICT (node_id) DO UPDATE SET last_seq = last_seq + 1 RETURNING last_seq"
)
_WAITING: Final = QUEUED.select + " WHERE node_id = ? AND seq > ? ORDER BY seq LIMIT ?"


class Outboxes(Part):
    """The port Outbox."""

    async def queue_messages(self, messages: Sequence[NodeMessage]) -> None:
        """Queue messages that tell of no change."""
        await self._database.write(lambda transaction: queue(transaction, messages))

    async def queued_messages(
        self, node_id: str, after: int, limit: int
    ) -> Sequence[QueuedMessage]:
        """Return what waits, oldest first, past the sequence number *after*."""
        return await self._database.read(
            lambda snapshot: QUEUED.read_all(snapshot.all(_WAITING, node_id, after, limit))
        )

    async def acknowledge(self, node_id: str, seq: int) -> None:
        """Drop what was queued up to *seq*, and keep how far the node has come."""

        taken = min(seq, MAX_SEQ)

        def work(transaction: Transaction) -> None:
            if not _catch_up(transaction, node_id, taken):
                transaction.change(
                    "DELETE FROM node_messages WHERE node_id = ? AND seq <= ?", node_id, taken
                )
            transaction.change(
                "UPDATE nodes SET acknowledged = ? WHERE node_id = ? AND acknowledged < ?",
                taken,
                node_id,
                taken,
            )

        await self._database.write(work, durable=False)


def _catch_up(transaction: Transaction, node_id: str, seq: int) -> bool:
    """Go on behind *seq* where a node has taken in more than was ever queued here.

    The store is from before then: it was restored from a backup.  What waits now is none of what
    the node has taken in, so it gets new numbers instead of being dropped.
    """
    last = transaction.first("SELECT last_seq FROM node_sequences WHERE node_id = ?", node_id)
    if seq <= (0 if last is None else last[0]):
        return False
    transaction.change("UPDATE node_messages SET seq = seq + ? WHERE node_id = ?", seq, node_id)
    transaction.change(
        "INSERT INTO node_sequences (node_id, last_seq) VALUES (?1, ?2)"
        " ON CONFLICT (node_id) DO UPDATE SET last_seq = last_seq + ?2",
        node_id,
        seq,
    )
    return True


def queue(transaction: Transaction, messages: Sequence[NodeMessage]) -> None:
    """Queue *messages*, each in place of an older one of the same node and subject."""
    for message in messages:
        seq = transaction.first(_NEXT, message.node_id)
        if seq is None:
            raise LookupError(f"node {message.node_id} got no sequence number")
        transaction.change(
            "DELETE FROM node_messages WHERE node_id = ? AND subject = ?",
            message.node_id,
            message.subject,
        )
        transaction.change(
            "INSERT INTO node_messages (node_id, seq, message_id, kind, subject, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            message.node_id,
            seq[0],
            secrets.token_urlsafe(MESSAGE_ID_BYTES),
            message.kind,
            message.subject,
            json_of(dict(message.body)),
        )
