"""Deliveries: certificates on their way to nodes, each change with its messages and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.delivery_stages import OPEN, DeliveryEvent, advance_delivery
from broker.issuance.errors import Broken, Conflict
from broker.issuance.events import Event
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryView,
    ManagedRecord,
    NodeMessage,
)
from broker.issuance.records import Job, JobKind
from broker.storage.attached import refuse, upsert_jobs
from broker.storage.managed import keep_csr, put_delivered, read_managed
from broker.storage.nodes import NODES
from broker.storage.outbox import queue
from broker.storage.part import Part
from broker.storage.rows import RowCodec, json_of, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["DELIVERIES", "Deliveries"]

DELIVERIES: Final = RowCodec("deliveries", DeliveryRecord)

MAX_OPEN_OF_NODE: Final = 20_000
"""Most open deliveries of one node that are read at once: one for each certificate it can have."""

_KEPT: Final = frozenset({"delivery_id", "managed_id", "node_id", "generation", "begun_at"})
_CHANGED: Final = tuple(name for name in DELIVERIES.columns if name not in _KEPT)
_CHANGE: Final = " ".join(
    (
        "UPDATE deliveries SET",
        ", ".join(f"{name} = ?" for name in _CHANGED),
        "WHERE delivery_id = ?",
    )
)
_BY_ID: Final = DELIVERIES.select + " WHERE delivery_id = ?"
_BY_ORDER: Final = DELIVERIES.select + " WHERE order_id = ?"
_OPEN: Final = (
    DELIVERIES.select + " INDEXED BY deliveries_open WHERE managed_id = ? AND ended_at IS NULL"
)
_OPEN_OF_NODE: Final = " ".join(
    (
        DELIVERIES.select,
        "WHERE managed_id IN (SELECT managed_id FROM managed WHERE node_id = ?)",
        "AND ended_at IS NULL LIMIT ?",
    )
)
_OF_MANAGED: Final = DELIVERIES.select + " WHERE managed_id = ? ORDER BY generation DESC LIMIT ?"
_OF_CERTIFICATE: Final = " ".join(
    (
        DELIVERIES.select,
        "WHERE order_id = (SELECT order_id FROM certificates WHERE certificate_id = ?)",
    )
)
_NODE: Final = NODES.select + " WHERE node_id = ?"
_FORGETTABLE: Final = " ".join(
    (
        "d.ended_at < ?1",
        # The newest that has ended tells people and incidents what came of it last.
        "AND EXISTS (SELECT 1 FROM deliveries n WHERE n.managed_id = d.managed_id",
        "AND n.generation > d.generation AND n.ended_at IS NOT NULL)",
        "AND NOT EXISTS (SELECT 1 FROM managed m WHERE m.managed_id = d.managed_id",
        "AND m.certificate_id = d.certificate_id)",
        "AND NOT EXISTS (SELECT 1 FROM certificates c",
        "WHERE c.certificate_id = d.certificate_id AND c.not_after >= ?1)",
        "AND NOT EXISTS (SELECT 1 FROM incidents i",
        "WHERE i.incident_id = d.incident_id AND i.ended_at IS NULL)",
        # Its rollout has not heard of its end yet.
        "AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'deliver'",
        "AND j.subject = d.delivery_id)",
    )
)
_TO_FORGET: Final = " ".join(
    (
        "SELECT d.delivery_id FROM deliveries d INDEXED BY deliveries_ended",
        "WHERE d.ended_at IS NOT NULL AND",
        _FORGETTABLE,
        "ORDER BY d.ended_at, d.delivery_id LIMIT ?2",
    )
)
_FORGET: Final = " ".join(
    (
        "DELETE FROM deliveries AS d",
        "WHERE d.delivery_id IN (SELECT value FROM json_each(?2)) AND",
        _FORGETTABLE,
    )
)


class Deliveries(Part):
    """The ports DeliveryStore and DeliveryLists."""

    async def begin_delivery(
        self,
        delivery: DeliveryRecord,
        managed: ManagedRecord,
        *,
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
        messages: Sequence[NodeMessage] = (),
    ) -> None:
        """Keep a new delivery; an open one of the same certificate is superseded; see the port."""

        def work(transaction: Transaction) -> None:
            found = read_managed(transaction, managed.managed_id)
            kept = 0 if found is None else found.generation
            if managed.generation != kept + 1 or delivery.generation != managed.generation:
                raise Conflict(
                    f"certificate {managed.managed_id} is at generation {kept},"
                    f" expected {managed.generation - 1}"
                )
            put_delivered(transaction, managed)
            superseded = _supersede(transaction, delivery)
            transaction.change(DELIVERIES.insert, *DELIVERIES.values(delivery))
            upsert_jobs(transaction, (*superseded, *jobs))
            queue(transaction, messages)
            transaction.record(events)

        await self._database.write(work)

    async def change_delivery(
        self,
        delivery: DeliveryRecord,
        *,
        expected: Sequence[DeliveryStage],
        events: Sequence[Event],
        managed: ManagedRecord | None = None,
        jobs: Sequence[Job] = (),
        messages: Sequence[NodeMessage] = (),
    ) -> None:
        """Keep *delivery* in place of what is there; raises Conflict when it is not *expected*."""

        def work(transaction: Transaction) -> None:
            found = transaction.first(
                "SELECT stage FROM deliveries WHERE delivery_id = ?", delivery.delivery_id
            )
            if found is None or found[0] not in expected:
                raise refuse(f"delivery {delivery.delivery_id}", found, tuple(expected))
            _put(transaction, delivery)
            if managed is not None:
                put_delivered(transaction, managed)
                if DeliveryStage.ASKED in expected:
                    keep_csr(transaction, managed)
            upsert_jobs(transaction, jobs)
            queue(transaction, messages)
            transaction.record(events)

        await self._database.write(work)

    async def find_delivery(self, delivery_id: str) -> DeliveryView | None:
        """Return the delivery with its certificate and node, or None."""
        return await self._database.read(lambda snapshot: _view(snapshot, _BY_ID, delivery_id))

    async def find_delivery_by_order(self, order_id: str) -> DeliveryView | None:
        """Return the delivery that an order belongs to, or None."""
        return await self._database.read(lambda snapshot: _view(snapshot, _BY_ORDER, order_id))

    async def deliveries_in(
        self, stages: Sequence[DeliveryStage], *, group: str | None, limit: int
    ) -> Sequence[DeliveryView]:
        """Return the deliveries in these stages, oldest first; None: of every group."""
        words = [stage.value for stage in stages]
        places = ", ".join("?" * len(words))
        where = f"WHERE stage IN ({places})" + ("" if group is None else " AND rollout_group = ?")
        statement = f"{DELIVERIES.select} {where} ORDER BY begun_at, delivery_id LIMIT ?"
        given = [*words, *([] if group is None else [group]), limit]

        def work(snapshot: Snapshot) -> list[DeliveryView]:
            return [
                _viewed(snapshot, DELIVERIES.read(row)) for row in snapshot.all(statement, *given)
            ]

        return await self._database.scan(work)

    async def deliveries_of(self, managed_id: str, limit: int) -> Sequence[DeliveryRecord]:
        """Return the newest deliveries of one certificate, newest first."""
        return await self._database.read(
            lambda snapshot: DELIVERIES.read_all(snapshot.all(_OF_MANAGED, managed_id, limit))
        )

    async def open_delivery(self, managed_id: str) -> DeliveryRecord | None:
        """Return the delivery of a certificate that has not ended, if there is one."""
        return await self._one(_OPEN, managed_id)

    async def open_deliveries_of(self, node_id: str) -> Sequence[DeliveryRecord]:
        """Return all of a node that have not ended."""
        return await self._database.scan(
            lambda snapshot: DELIVERIES.read_all(
                snapshot.all(_OPEN_OF_NODE, node_id, MAX_OPEN_OF_NODE)
            )
        )

    async def find_delivery_by_certificate(self, certificate_id: str) -> DeliveryRecord | None:
        """Return the delivery that brought a certificate, or None."""
        return await self._one(_OF_CERTIFICATE, certificate_id)

    async def count_deliveries(self) -> Mapping[DeliveryStage, int]:
        """Return how many there are in each stage that is no end."""

        def work(snapshot: Snapshot) -> dict[DeliveryStage, int]:
            counts = {}
            for stage in OPEN:
                row = snapshot.first(
                    "SELECT count(*) FROM deliveries INDEXED BY deliveries_by_stage"
                    " WHERE stage = ?",
                    stage.value,
                )
                counts[stage] = 0 if row is None else row[0]
            return counts

        return await self._database.scan(work)

    async def oldest_push(self) -> datetime | None:
        """Return when the oldest was pushed that has not ended; None: there is none."""

        def work(snapshot: Snapshot) -> datetime | None:
            row = snapshot.first(
                "SELECT min(pushed_at) FROM deliveries INDEXED BY deliveries_open"
                " WHERE ended_at IS NULL"
            )
            return None if row is None or row[0] is None else moment_of(row[0])

        return await self._database.scan(work)

    async def forget_deliveries(self, before: datetime, limit: int) -> int:
        """Forget what ended before that and nobody asks about; see ``issuance.forgetting``.

        They are looked for beside the writer, and what they are is seen to again in the
        transaction that forgets them.
        """
        at = time_of(before)

        def look(snapshot: Snapshot) -> list[str]:
            return [found for (found,) in snapshot.all(_TO_FORGET, at, limit)]

        ids = await self._database.scan(look)
        if not ids:
            return 0
        words = json_of(ids)
        return await self._database.write(
            lambda transaction: transaction.change(_FORGET, at, words), durable=False
        )

    async def _one(self, statement: str, parameter: str) -> DeliveryRecord | None:
        def work(snapshot: Snapshot) -> DeliveryRecord | None:
            row = snapshot.first(statement, parameter)
            return None if row is None else DELIVERIES.read(row)

        return await self._database.read(work)


def _supersede(transaction: Transaction, by: DeliveryRecord) -> list[Job]:
    """End the open delivery of the same certificate; return the job that tells of its end."""
    row = transaction.first(_OPEN, by.managed_id)
    if row is None:
        return []
    found = DELIVERIES.read(row)
    ended = replace(
        found,
        stage=advance_delivery(found.stage, DeliveryEvent.SUPERSEDED),
        ended_at=by.begun_at,
        note=f"superseded by delivery {by.delivery_id}",
    )
    _put(transaction, ended)
    return [Job(kind=JobKind.DELIVER, subject=found.delivery_id, due_at=by.begun_at)]


def _put(transaction: Transaction, delivery: DeliveryRecord) -> None:
    row = dict(zip(DELIVERIES.columns, DELIVERIES.values(delivery), strict=True))
    transaction.change(_CHANGE, *(row[name] for name in _CHANGED), delivery.delivery_id)


def _view(snapshot: Snapshot, statement: str, parameter: str) -> DeliveryView | None:
    row = snapshot.first(statement, parameter)
    return None if row is None else _viewed(snapshot, DELIVERIES.read(row))


def _viewed(snapshot: Snapshot, delivery: DeliveryRecord) -> DeliveryView:
    managed = read_managed(snapshot, delivery.managed_id)
    node = snapshot.first(_NODE, delivery.node_id)
    if managed is None or node is None:
        raise Broken(f"store has delivery {delivery.delivery_id} without its node")
    return DeliveryView(delivery=delivery, managed=managed, node=NODES.read(node))
