"""Renewals at nodes and the watch over clients, put together over the adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.app.delivery_metrics import DeliveryMetrics
from broker.issuance.deliveries import Deliveries
from broker.issuance.delivery_rooms import Workrooms
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.managed_ports import NodeChallenges, ReloadWindows
from broker.issuance.node_ports import Connections, RolloutGate
from broker.issuance.ports import Clock
from broker.issuance.records import Job, JobKind
from broker.issuance.unrenewed import UnrenewedWatch
from broker.storage.sqlite import SqliteStore

if TYPE_CHECKING:
    from broker.app.outside import Outside
    from broker.app.workshop import Workshop

__all__ = ["ClientWatch", "leave_deliveries", "make_client_watch", "make_deliveries"]

LEFT_FOR: Final = timedelta(days=1)
"""How often it is noted that a delivery waits for nodes to be served again."""


class ClientWatch:
    """Looks whether clients renew by themselves."""

    def __init__(self, unrenewed: UnrenewedWatch) -> None:
        self._unrenewed = unrenewed
        self._moved: set[str] = set()

    def on_events(self, events: Sequence[Event]) -> None:
        """Note which certificates a CA wants renewed earlier."""
        for event in events:
            if event.kind is EventKind.RENEWAL_MOVED_EARLIER:
                self._moved.add(str(event.data.get("certificate_id")))

    async def run(self) -> None:
        """Look at what is due."""
        while self._moved:
            await self._unrenewed.hurry(self._moved.pop())
        await self._unrenewed.run()


def make_client_watch(outside: Outside) -> ClientWatch:
    """Put the watch over clients together, with the figures of all renewals."""
    store, clock, telemetry = outside.store, outside.clock, outside.telemetry
    metrics = DeliveryMetrics(telemetry.registry)
    follow_commits(store, metrics.on_events)

    async def show() -> None:
        with suppress(Unreachable, Broken):
            metrics.show(
                await store.count_deliveries(),
                await store.count_managed(clock.now()),
                oldest=await store.oldest_push(),
                unrenewed=await store.count_unrenewed(),
            )

    telemetry.before_render.append(show)
    watch = ClientWatch(UnrenewedWatch(store, outside.policies, clock))
    follow_commits(store, watch.on_events)
    return watch


def make_deliveries(
    made: Workshop,
    *,
    connections: Connections,
    gate: RolloutGate,
    windows: ReloadWindows | None,
    challenges: NodeChallenges | None,
) -> Deliveries:
    """Put the workflow of deliveries together, and have the dispatcher know who does its jobs."""
    outside = made.outside
    deliveries = Deliveries(
        Workrooms(
            store=outside.store,
            policies=outside.policies,
            planner=made.planner,
            orders=made.orders,
            gate=gate,
            connections=connections,
            outbox=outside.store,
            dispatcher=made.dispatcher,
            clock=outside.clock,
            challenges=challenges,
            retirements=made.renewing.retirements,
            windows=windows,
            approvals=made.approvals.gate,
            freezes=made.freezes,
        )
    )
    made.dispatcher.on(JobKind.DELIVER, deliveries.advance)
    follow_commits(outside.store, deliveries.on_events)
    return deliveries


def leave_deliveries(dispatcher: Dispatcher, clock: Clock) -> None:
    """Have deliveries lie where they are: this configuration has no nodes, the next one may."""

    async def leave(job: Job) -> None:
        raise Postponed(clock.now() + LEFT_FOR, f"{job.subject} waits: no nodes are served")

    dispatcher.on(JobKind.DELIVER, leave)


def follow_commits(store: SqliteStore, hook: Callable[[Sequence[Event]], None]) -> None:
    """Tell *hook* of what the store commits, beside whoever is told already."""
    first = store.on_committed

    def tell(events: Sequence[Event]) -> None:
        if first is not None:
            first(events)
        hook(events)

    store.on_committed = tell
