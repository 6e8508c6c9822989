"""Many deliveries at once, from ISSUED to PUSHED: one read, one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.managed_ports import Push, Releasable
from broker.issuance.node_ports import DeliveryRecord, DeliveryView
from broker.storage.deliveries import DELIVERIES
from broker.storage.managed import read_managed
from broker.storage.nodes import NODES
from broker.storage.outbox import queue
from broker.storage.part import Part
from broker.storage.rows import CERTIFICATES, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Pushes"]

_ISSUED: Final = DELIVERIES.select + " WHERE delivery_id = ? AND stage = 'issued'"
_NODE: Final = NODES.select + " WHERE node_id = ?"
_CERTIFICATE: Final = CERTIFICATES.select + " WHERE certificate_id = ?"
_CHAIN: Final = "SELECT chain_pem FROM certificates WHERE certificate_id = ?"
_CAP: Final = "SELECT cap_seconds FROM orders WHERE order_id = ?"
_PUSH: Final = " ".join(
    (
        "UPDATE deliveries SET stage = ?, rollout_group = ?, pushed_at = ?, note = ?",
        "WHERE delivery_id = ? AND stage = 'issued'",
    )
)


class Pushes(Part):
    """The port PushStore."""

    async def releasable(self, delivery_ids: Sequence[str]) -> Sequence[Releasable]:
        """Return those of these that are ISSUED and have their certificate, in the same order."""

        def work(snapshot: Snapshot) -> list[Releasable]:
            found = (snapshot.first(_ISSUED, one) for one in delivery_ids)
            read = (_releasable(snapshot, DELIVERIES.read(row)) for row in found if row)
            return [one for one in read if one is not None]

        return await self._database.read(work)

    async def push_deliveries(self, pushes: Sequence[Push]) -> Sequence[str]:
        """Keep them all in one transaction, and return the ids of those that were not ISSUED."""

        def work(transaction: Transaction) -> list[str]:
            pushed = [one for one in pushes if _push(transaction, one.delivery)]
            queue(transaction, [one.message for one in pushed])
            transaction.record(one.event for one in pushed)
            kept = {one.delivery.delivery_id for one in pushed}
            ids = [one.delivery.delivery_id for one in pushes]
            return [one for one in ids if one not in kept]

        return await self._database.write(work)


def _releasable(snapshot: Snapshot, delivery: DeliveryRecord) -> Releasable | None:
    managed = read_managed(snapshot, delivery.managed_id)
    node = snapshot.first(_NODE, delivery.node_id)
    row = snapshot.first(_CERTIFICATE, delivery.certificate_id)
    if managed is None or node is None or row is None:
        return None
    certificate = CERTIFICATES.read(row)
    before_pem = managed.served_pem
    if delivery.replaces is not None:
        chain = snapshot.first(_CHAIN, delivery.replaces)
        before_pem = None if chain is None else chain[0]
    cap = snapshot.first(_CAP, certificate.order_id)
    return Releasable(
        view=DeliveryView(delivery=delivery, managed=managed, node=NODES.read(node)),
        certificate=certificate,
        before_pem=before_pem,
        cap_seconds=0 if cap is None else cap[0],
    )


def _push(transaction: Transaction, delivery: DeliveryRecord) -> bool:
    """Return whether it was ISSUED, and is PUSHED now."""
    return bool(
        transaction.change(
            _PUSH,
            delivery.stage.value,
            delivery.rollout_group,
            None if delivery.pushed_at is None else time_of(delivery.pushed_at),
            delivery.note,
            delivery.delivery_id,
        )
    )
