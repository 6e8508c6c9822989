"""What a rollout reads and keeps, in memory, and views of deliveries to judge."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.issuance.events import Event
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryView,
    EnrolmentMethod,
    ManagedRecord,
    NodeRecord,
    NodeStatus,
)
from broker.issuance.rollout_ports import OpenDelivery, WaveRecord


class FakeRolloutStore:
    """``rollout_ports.RolloutStore``; a test writes deliveries into it."""

    def __init__(self) -> None:
        self.kept: dict[str, WaveRecord] = {}
        self.events: list[Event] = []
        self.deliveries: dict[str, OpenDelivery] = {}

    async def waves(self) -> Sequence[WaveRecord]:
        """Return every wave."""
        return list(self.kept.values())

    async def keep_wave(self, wave: WaveRecord, events: Sequence[Event]) -> None:
        """Keep it."""
        self.kept[wave.group_name] = wave
        self.events.extend(events)

    async def open_deliveries(self, stages: Sequence[DeliveryStage]) -> Sequence[OpenDelivery]:
        """Return those in these stages."""
        return [one for one in self.deliveries.values() if one.stage in stages]

    async def stages_of(self, delivery_ids: Sequence[str]) -> Sequence[OpenDelivery]:
        """Return these."""
        return [self.deliveries[one] for one in delivery_ids if one in self.deliveries]

    async def failed_since(self, moment: datetime) -> Sequence[OpenDelivery]:
        """Return what failed since."""
        failed = {DeliveryStage.FAILED, DeliveryStage.REFUSED, DeliveryStage.RESTORED}
        return [
            one
            for one in self.deliveries.values()
            if one.stage in failed and one.ended_at is not None and one.ended_at > moment
        ]

    def put(self, node: str, stage: DeliveryStage, at: datetime) -> None:
        """Have the one delivery of *node* be in *stage* since *at*."""
        is_past_issue = stage not in (DeliveryStage.ASKED, DeliveryStage.ORDERED)
        is_pushed = is_past_issue and stage is not DeliveryStage.ISSUED
        before = self.deliveries.get(node)
        self.deliveries[node] = OpenDelivery(
            delivery_id=node,
            node_id=node,
            node=node,
            stage=stage,
            begun_at=at if before is None else before.begun_at,
            issued_at=at if is_past_issue else None,
            pushed_at=at if is_pushed else None,
            ended_at=at if stage.is_end else None,
        )

    def view(self, node: str, at: datetime) -> DeliveryView:
        """Return the delivery of *node* as a workflow sees it."""
        found = self.deliveries[node]
        made = delivery_view(node, at)
        return replace(made, delivery=replace(made.delivery, stage=found.stage))


def delivery_view(node: str, at: datetime) -> DeliveryView:
    """Return a view of the delivery that is called like its node."""
    return DeliveryView(
        delivery=DeliveryRecord(
            delivery_id=node,
            managed_id=f"managed-{node}",
            node_id=node,
            community="default",
            rollout_group=None,
            generation=1,
            stage=DeliveryStage.ISSUED,
            reason="due",
            incident_id=None,
            replaces=None,
            order_id=None,
            certificate_id=None,
            note=None,
            begun_at=at,
        ),
        managed=ManagedRecord(
            managed_id=f"managed-{node}",
            node_id=node,
            name="web",
            community="default",
            identifiers=(),
            profile=None,
            key_kind="ec-p256",
            is_wanted=True,
            generation=1,
            certificate_id=None,
            not_after=None,
            csr_der=None,
            next_at=None,
            attempts=0,
            created_at=at,
        ),
        node=NodeRecord(
            node_id=node,
            name=node,
            community="default",
            status=NodeStatus.ACTIVE,
            account_id=f"account-{node}",
            method=EnrolmentMethod.TOKEN,
            names=(),
            profiles=(),
            owner="",
            contact="",
            spki_sha256="00",
            fingerprint="00",
            identity_not_after=at,
            enrolled_at=at,
        ),
    )
