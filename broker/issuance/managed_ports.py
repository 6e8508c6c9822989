"""What is asked about certificates at nodes beside ``node_ports``: lists, counts, and the rooms
that a delivery passes through.

Under the rules of ``ports``.  What other workflows offer to this one is a small port each, so that
it can be tried without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryStore,
    DeliveryView,
    ManagedRecord,
    ManagedStore,
    NodeMessage,
    NodeRecord,
    NodeStore,
    Unmanaged,
)
from broker.issuance.ports import (
    AccountStore,
    CertificateStore,
    EventLog,
    JobStore,
    OrderStore,
)
from broker.issuance.records import AccountRecord, CertificateRecord, OrderRecord
from broker.issuance.renewal_ports import RenewalStore
from broker.protocol.requests import NewOrder

__all__ = [
    "DeliveryLists",
    "DeliveryRooms",
    "ManagedLists",
    "NodeChallenges",
    "NodeOrders",
    "Push",
    "PushStore",
    "Releasable",
    "ReloadWindows",
    "RenewalLook",
    "RenewalLooks",
]


class ManagedLists(Protocol):
    """Certificates at nodes, as people and a new start look for them."""

    async def managed_named(self, text: str, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are called *text* or are for that name or address."""
        ...

    async def managed_overdue(self, now: datetime, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are due or have been due without success, longest first."""
        ...

    async def managed_stranded(self, limit: int) -> Sequence[ManagedRecord]:
        """Return those that are wanted, have no time and no open delivery: nothing would ever look
        at them again."""
        ...

    async def managed_behind(self, limit: int) -> Sequence[ManagedRecord]:
        """Return those that would be looked at later than their CA's window ends."""
        ...

    async def count_managed(self, now: datetime) -> Mapping[str, int]:
        """Return how many are ``due`` and how many are ``overdue``."""
        ...


class DeliveryLists(Protocol):
    """Deliveries, as people and gauges look for them."""

    async def open_delivery(self, managed_id: str) -> DeliveryRecord | None:
        """Return the delivery of a certificate that has not ended, if there is one."""
        ...

    async def open_deliveries_of(self, node_id: str) -> Sequence[DeliveryRecord]:
        """Return all of a node that have not ended."""
        ...

    async def find_delivery_by_certificate(self, certificate_id: str) -> DeliveryRecord | None: ...

    async def count_deliveries(self) -> Mapping[DeliveryStage, int]:
        """Return how many there are in each stage that is no end."""
        ...

    async def oldest_push(self) -> datetime | None:
        """Return when the oldest was pushed that has not ended; None: there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasable:
    """A delivery that is ISSUED, with all that is looked at before it is pushed."""

    view: DeliveryView
    certificate: CertificateRecord
    before_pem: bytes | None
    """The chain that it takes the place of; None: there is none, or it is not known."""
    cap_seconds: int
    """The validity cap of its order, in seconds; 0 where the order is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A delivery as it is once it is pushed, and what goes with that."""

    delivery: DeliveryRecord
    message: NodeMessage
    event: Event


class PushStore(Protocol):
    """Many deliveries at once, from ISSUED to PUSHED."""

    async def releasable(self, delivery_ids: Sequence[str]) -> Sequence[Releasable]:
        """Return those of these that are ISSUED and have their certificate, in the same order."""
        ...

    async def push_deliveries(self, pushes: Sequence[Push]) -> Sequence[str]:
        """Keep them all in one transaction, and return the ids of those that were not ISSUED any
        more: these are left as they are, and nothing is queued for them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalLook:
    """When it is looked whether a certificate of a client was renewed."""

    certificate_id: str
    look_at: datetime
    should_by: datetime | None = None
    """When it should have been renewed at the latest, once that was worked out."""
    told_at: datetime | None = None
    """When it was told that it was not."""


class RenewalLooks(Protocol):
    """Certificates that clients have to renew by themselves."""

    async def due_looks(self, now: datetime, limit: int) -> Sequence[RenewalLook]:
        """Return what is to be looked at, longest due first; costs what is due."""
        ...

    async def keep_looks(
        self,
        looks: Sequence[RenewalLook],
        *,
        dropped: Sequence[str],
        events: Sequence[Event],
    ) -> None:
        """Keep *looks* in place of what is there, and forget those that are *dropped*."""
        ...

    async def hurry_look(self, certificate_id: str, at: datetime) -> None:
        """Look at *at*, if that is sooner than planned."""
        ...

    async def has_heir(self, certificate: CertificateRecord) -> bool:
        """Return whether its account has a younger released certificate for the same names."""
        ...

    async def unrenewed(self, limit: int) -> Sequence[Unmanaged]:
        """Return those that were told of, in the order in which they should have been renewed."""
        ...

    async def count_unrenewed(self) -> int: ...


class NodeOrders(Protocol):
    """The journey of every order, as far as a node's orders take it."""

    async def create(
        self, account: AccountRecord, request: NewOrder, *, order_id: str | None = None
    ) -> OrderRecord: ...

    async def finalize(
        self, account: AccountRecord, order_id: str, csr_der: bytes
    ) -> OrderRecord: ...


class NodeChallenges(Protocol):
    """Has a node answer the challenges of its order."""

    async def prove(self, node: NodeRecord, account: AccountRecord, order: OrderRecord) -> None:
        """Have every open authorization of *order* answered; again does no harm.

        Raises:
            Unreachable: The node cannot be asked now.
            Problem: It cannot be proved so.
        """
        ...


class ReloadWindows(Protocol):
    """When nodes may be reloaded."""

    def pulled_forward(self, node: str, moment: datetime, *, now: datetime, seed: str) -> datetime:
        """Return *moment*, or an earlier one at which the node may be reloaded; never later."""
        ...


class DeliveryRooms(
    ManagedStore,
    ManagedLists,
    DeliveryStore,
    DeliveryLists,
    PushStore,
    RenewalLooks,
    NodeStore,
    AccountStore,
    OrderStore,
    CertificateStore,
    RenewalStore,
    JobStore,
    EventLog,
    Protocol,
):
    """The store as the workflows of deliveries see it; each takes the narrow ports of it."""
