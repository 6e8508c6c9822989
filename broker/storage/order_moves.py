"""Orders that go to another CA: the old work is dead in the transaction that begins the new."""

from __future__ import annotations

from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.quota_ports import OrderMove
from broker.issuance.records import JobKind, WorkStatus
from broker.storage.attached import IS_RECOVERED, delete_job, insert_work
from broker.storage.buckets import take
from broker.storage.part import Part
from broker.storage.rows import json_of
from broker.storage.transaction import Transaction

__all__ = ["OrdersMoved"]

# After a backup it may have been finalized all the same.
_LEAVE: Final = " ".join(
    (
        "UPDATE work SET status = 'dead' WHERE work_id = ? AND taken_by = ? AND status = ?",
        "AND NOT EXISTS",
        IS_RECOVERED,
    )
)


class OrdersMoved(Part):
    """The port OrderMoves."""

    async def move_order(self, move: OrderMove) -> None:
        """Give up the work of a processing order and begin other work; see the port."""
        await self._database.write(lambda transaction: _move(transaction, move))


def _move(transaction: Transaction, move: OrderMove) -> None:
    order, left = move.order, move.left
    if left.status not in (WorkStatus.INTENDED, WorkStatus.OPENED):
        raise Conflict(f"work {left.work_id} may have been finalized")
    if not transaction.change(_LEAVE, left.work_id, order.order_id, left.status.value):
        raise Conflict(f"work {left.work_id} is {left.status} no more, or of a store restored")
    delete_job(transaction, JobKind.PREPARE, left.work_id)
    moved = transaction.change(
        "UPDATE orders SET upstream = ?, upstream_profile = ?, cap_seconds = ?, ask_not_after = ?,"
        " decision = ?, replaces_upstream = ?"
        " WHERE order_id = ? AND status = 'processing' AND upstream = ?",
        order.upstream,
        order.upstream_profile,
        order.cap_seconds,
        int(order.ask_not_after),
        json_of(dict(order.decision)),
        order.replaces_upstream,
        order.order_id,
        left.upstream,
    )
    if not moved:
        raise Conflict(f"order {order.order_id} went on meanwhile")
    insert_work(transaction, move.work)
    if move.taking is not None:
        take(transaction, move.taking)
    transaction.record((move.event,))
