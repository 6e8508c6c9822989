"""Upstream orders: each belongs to one of ours at most, each URL to one living record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import WorkRecord, WorkStatus
from broker.storage.attached import insert_work, refuse
from broker.storage.part import Part
from broker.storage.rows import WORK
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Work"]

_BY_ID: Final = WORK.select + " WHERE work_id = ?"
_BY_URL: Final = WORK.select + " WHERE order_url = ? AND status <> 'dead'"
_OF_ORDER: Final = WORK.select + " WHERE taken_by = ? AND status <> 'dead'"


class Work(Part):
    """The port WorkStore."""

    async def load_work(self, work_id: str) -> WorkRecord | None:
        """Return the work record, or None."""

        def work(snapshot: Snapshot) -> WorkRecord | None:
            row = snapshot.first(_BY_ID, work_id)
            return None if row is None else WORK.read(row)

        return await self._database.read(work)

    async def work_of_order(self, order_id: str) -> WorkRecord | None:
        """Return the living work that the order took, or None."""

        def work(snapshot: Snapshot) -> WorkRecord | None:
            row = snapshot.first(_OF_ORDER, order_id)
            return None if row is None else WORK.read(row)

        return await self._database.read(work)

    async def mark_sent(self, work_id: str, *, is_sent: bool) -> None:
        """Note, without fsync, that newOrder is about to be sent, or that it left nothing.

        Raises:
            Conflict: The record is unknown.
        """

        def work(transaction: Transaction) -> None:
            changed = transaction.change(
                "UPDATE work SET is_sent = ? WHERE work_id = ?", int(is_sent), work_id
            )
            if not changed:
                raise Conflict(f"work {work_id} is unknown")

        await self._database.write(work, durable=False)

    async def record_opened(
        self,
        work_id: str,
        order_url: str,
        event: Event,
        *,
        durable: bool,
        account_url: str | None = None,
    ) -> WorkRecord:
        """Keep the upstream's URL, or return the living record that holds it already.

        Raises:
            Conflict: The record is not INTENDED any more, and does not hold this URL; or the
                account that opened the order has been replaced.
        """
        return await self._database.write(
            lambda transaction: _open(transaction, work_id, order_url, account_url, event),
            durable=durable,
        )

    async def adopt_work(
        self,
        order_id: str,
        *,
        work_id: str,
        instead_of: str,
        event: Event,
        in_exchange: WorkRecord | None = None,
    ) -> WorkRecord:
        """Give the order *work_id* in place of *instead_of*; see the port."""

        def work(transaction: Transaction) -> WorkRecord:
            held = _work(transaction, instead_of)
            if held.taken_by != order_id:
                raise Conflict(f"work {instead_of} does not belong to order {order_id}")
            found = _work(transaction, work_id)
            if found.taken_by != (None if in_exchange is None else in_exchange.taken_by):
                raise Conflict(f"work {work_id} is taken by order {found.taken_by}")
            if found.status is WorkStatus.DEAD:
                raise Conflict(f"work {work_id} is dead")
            if in_exchange is not None and found.status is not WorkStatus.OPENED:
                raise Conflict(f"work {work_id} is {found.status}, its order gives it up no more")
            _move(transaction, instead_of, WorkStatus.DEAD)
            transaction.change("UPDATE work SET taken_by = ? WHERE work_id = ?", order_id, work_id)
            if in_exchange is not None:
                insert_work(transaction, in_exchange)
            transaction.record((event,))
            return replace(found, taken_by=order_id)

        return await self._database.write(work)

    async def change_work(
        self,
        work_id: str,
        *,
        expected: Collection[WorkStatus],
        status: WorkStatus,
        replacement: WorkRecord | None = None,
        events: Sequence[Event] = (),
        only_untaken: bool = False,
        only_of: str | None = None,
        durable: bool = True,
    ) -> None:
        """Move a work record on by compare-and-set, keeping *replacement* with it."""

        def work(transaction: Transaction) -> None:
            found = _work(transaction, work_id)
            if found.status not in expected:
                raise refuse(f"work {work_id}", (found.status.value,), expected)
            is_elses = only_of is not None and found.taken_by != only_of
            if is_elses or (only_untaken and found.taken_by is not None):
                raise Conflict(f"work {work_id} is taken by order {found.taken_by}")
            _move(transaction, work_id, status)
            if replacement is not None:
                insert_work(transaction, replacement)
            transaction.record(events)

        await self._database.write(work, durable=durable)

    async def known_urls(self, upstream: str, community: str) -> frozenset[str]:
        """Return every upstream order URL that any record of this account holds."""

        def work(snapshot: Snapshot) -> frozenset[str]:
            rows = snapshot.all(
                "SELECT order_url FROM work"
                " WHERE upstream = ? AND community = ? AND order_url IS NOT NULL",
                upstream,
                community,
            )
            return frozenset(url for (url,) in rows)

        return await self._database.scan(work)


def _work(transaction: Transaction, work_id: str) -> WorkRecord:
    row = transaction.first(_BY_ID, work_id)
    if row is None:
        raise Conflict(f"work {work_id} is unknown")
    return WORK.read(row)


def _move(transaction: Transaction, work_id: str, status: WorkStatus) -> None:
    transaction.change("UPDATE work SET status = ? WHERE work_id = ?", status.value, work_id)


def _open(
    transaction: Transaction,
    work_id: str,
    order_url: str,
    account_url: str | None,
    event: Event,
) -> WorkRecord:
    holder = transaction.first(_BY_URL, order_url)
    if holder is not None:
        return WORK.read(holder)
    found = _work(transaction, work_id)
    if found.status is not WorkStatus.INTENDED:
        raise refuse(f"work {work_id}", (found.status.value,), WorkStatus.INTENDED)
    # Its answer is kept now, so nothing is left in flight that might have to be sought.
    if account_url is not None and _is_replaced(transaction, found, account_url):
        raise Conflict(f"account {account_url} was replaced before its order {order_url} was kept")
    opened = replace(
        found,
        status=WorkStatus.OPENED,
        order_url=order_url,
        is_sent=False,
        account_url=account_url,
    )
    transaction.change(
        "UPDATE work SET status = ?, order_url = ?, is_sent = 0, account_url = ? WHERE work_id = ?",
        opened.status.value,
        order_url,
        account_url,
        work_id,
    )
    transaction.record((event,))
    return opened


def _is_replaced(transaction: Transaction, work: WorkRecord, account_url: str) -> bool:
    """Return whether our account there is another one by now."""
    found = transaction.first(
        "SELECT account_url FROM upstream_accounts WHERE upstream = ? AND community = ?",
        work.upstream,
        work.community,
    )
    return found is not None and found[0] != account_url
