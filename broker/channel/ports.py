"""What the channel asks of the store, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.channel.connections import LiveConnections
from broker.issuance.joining import Joined
from broker.issuance.joining_ports import Asking, NodeWatch
from broker.issuance.node_ports import (
    ChallengeReports,
    EnrolmentRequest,
    EnrolmentStore,
    NodeRecord,
    NodeReports,
    NodeStore,
    Outbox,
)
from broker.issuance.node_refusals import NodeRefusals
from broker.issuance.ports import Clock, EventLog

__all__ = ["Admission", "BundleReports", "ChannelObserver", "ChannelRooms", "ChannelStore"]


class ChannelStore(NodeStore, NodeWatch, EnrolmentStore, Outbox, EventLog, Protocol):
    """What the channel reads and writes."""


class Admission(Protocol):
    """Lets nodes in; ``issuance.joining`` does."""

    async def enrol(self, asking: Asking) -> Joined | EnrolmentRequest: ...
    async def renew(self, node: NodeRecord, csr_der: bytes) -> Joined: ...


class BundleReports(Protocol):
    """What agents tell of bundles of anchors and revocation lists."""

    async def wanted(self, node: NodeRecord, bundles: Sequence[str]) -> None: ...
    async def installed(self, node_id: str, bundle: str, version: int) -> None: ...


class ChannelObserver(Protocol):
    """Counts what goes over the channel."""

    def sent(self, kind: str) -> None: ...
    def received(self, kind: str, outcome: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRooms:
    """What the channel works with."""

    store: ChannelStore
    clock: Clock
    connections: LiveConnections
    joining: Admission
    reports: NodeReports
    challenges: ChallengeReports
    bundles: BundleReports
    observer: ChannelObserver
    refusals: NodeRefusals
    is_held: Callable[[], bool] = lambda: False
    """Whether nothing may change, as on a restored broker."""
