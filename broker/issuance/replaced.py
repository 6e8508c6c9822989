"""Whether a certificate at a node has been replaced: its successor was seen served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from broker.issuance.node_ports import DeliveryRecord, DeliveryStage, ManagedRecord
from broker.issuance.records import CertificateRecord

__all__ = ["ReplacedStore", "is_replaced"]

DELIVERIES_LOOKED_AT: Final = 50
"""How far back the last delivery that was seen is looked for; more than that in a row that failed
are a node that a person has to look at anyway."""


class ReplacedStore(Protocol):
    """What tells of successors."""

    async def find_managed(self, managed_id: str) -> ManagedRecord | None: ...
    async def deliveries_of(self, managed_id: str, limit: int) -> Sequence[DeliveryRecord]: ...
    async def open_delivery(self, managed_id: str) -> DeliveryRecord | None: ...
    async def find_delivery_by_certificate(self, certificate_id: str) -> DeliveryRecord | None: ...
    async def has_heir(self, certificate: CertificateRecord) -> bool: ...


async def is_replaced(store: ReplacedStore, managed_id: str, certificate_id: str) -> bool:
    """Return whether the node was seen to serve another certificate, and this one can neither be
    what it serves nor be on its way there."""
    managed = await store.find_managed(managed_id)
    if managed is None or managed.certificate_id in (None, certificate_id):
        return False
    brought = await store.find_delivery_by_certificate(certificate_id)
    if brought is not None and not brought.stage.is_end:
        return False
    for one in await store.deliveries_of(managed_id, DELIVERIES_LOOKED_AT):
        if one.stage is DeliveryStage.SEEN:
            return one.certificate_id == managed.certificate_id
    return False
