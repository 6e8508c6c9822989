"""What the workflows of deliveries work with, and the words in which they tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.freezes import Freezes
from broker.issuance.managed_ports import DeliveryRooms, NodeChallenges, NodeOrders, ReloadWindows
from broker.issuance.node_ports import (
    Connections,
    DeliveryRecord,
    DeliveryView,
    ManagedRecord,
    NodeMessage,
    NodeRecord,
    Outbox,
    RolloutGate,
)
from broker.issuance.planning import Planner
from broker.issuance.ports import Clock, Policies
from broker.issuance.records import Job, JobKind
from broker.issuance.retirements import Retirements
from broker.policy.document import OnNodes

__all__ = [
    "Workrooms",
    "deliver_job",
    "delivery_event",
    "managed_event",
    "message_about",
    "names_of",
]

MAX_TOLD_NAMES: Final = 100
"""Most names of one certificate that an event tells: more are in the order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workrooms:
    """All that a delivery passes through."""

    store: DeliveryRooms
    policies: Policies
    planner: Planner
    orders: NodeOrders
    gate: RolloutGate
    connections: Connections
    outbox: Outbox
    dispatcher: Dispatcher
    clock: Clock
    challenges: NodeChallenges | None = None
    """Has nodes answer challenges; None: their names have to be granted."""
    retirements: Retirements | None = None
    """Revokes what was longer than its cap once its successor is in use; None: nobody does."""
    windows: ReloadWindows | None = None
    """Knows when nodes may be reloaded; None: always."""
    approvals: ApprovalGate | None = None
    """Knows what people have approved; None: nothing that needs it passes."""
    freezes: Freezes | None = None
    """Knows what is frozen; None: nothing is."""

    def on_nodes(self, managed: ManagedRecord) -> OnNodes:
        """Return what policy says of renewing this certificate at its node."""
        profile = self.policies.current(managed.community).profile(managed.profile)
        return OnNodes() if profile is None else profile.on_nodes


def names_of(managed: ManagedRecord) -> list[str]:
    """Return its names and addresses as texts."""
    return [one.value for one in managed.identifiers]


def deliver_job(delivery_id: str, due_at: datetime) -> Job:
    """Return the job that carries a delivery on."""
    return Job(kind=JobKind.DELIVER, subject=delivery_id, due_at=due_at)


def message_about(managed: ManagedRecord, kind: str, body: Mapping[str, object]) -> NodeMessage:
    """Return a message about one certificate of a node.

    All of them have one subject: a newer word on a certificate takes the place of an older one
    that the node has not taken in.
    """
    return NodeMessage(
        node_id=managed.node_id,
        kind=kind,
        subject=f"certificate/{managed.name}",
        body={"certificate": managed.name, **body},
    )


def managed_event(
    kind: EventKind,
    managed: ManagedRecord,
    node: NodeRecord,
    at: datetime,
    *,
    actor: Actor = SYSTEM,
    **data: object,
) -> Event:
    """Return an event about a certificate at a node."""
    return Event(
        kind=kind,
        at=at,
        actor=actor,
        community=managed.community,
        account_id=node.account_id,
        data={
            "node": node.name,
            "node_id": node.node_id,
            "certificate": managed.name,
            "managed": managed.managed_id,
            "names": names_of(managed)[:MAX_TOLD_NAMES],
            **data,
        },
    )


def delivery_event(
    kind: EventKind,
    view: DeliveryView,
    delivery: DeliveryRecord,
    at: datetime,
    *,
    actor: Actor = SYSTEM,
    **data: object,
) -> Event:
    """Return an event about *delivery*, which is the view's own as it is from now on."""
    return Event(
        kind=kind,
        at=at,
        actor=actor,
        community=delivery.community,
        account_id=view.node.account_id,
        order_id=delivery.order_id,
        data={
            "delivery": delivery.delivery_id,
            "stage": str(delivery.stage),
            "node": view.node.name,
            "node_id": delivery.node_id,
            "certificate": view.managed.name,
            "generation": delivery.generation,
            "certificate_id": delivery.certificate_id,
            **data,
        },
    )
