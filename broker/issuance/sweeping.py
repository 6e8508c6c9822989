"""The sweep: what is due is looked at, and begun where it has to be.

It reads one index of times, so it costs what is due and not what there is.  A look decides anew,
from what is known then: a window that has moved later is waited for, a node that is drained is
left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from broker.issuance.asking import Asking
from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, managed_event, message_about
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import ManagedRecord, NodeRecord, NodeStatus
from broker.issuance.renewal_times import DRAINED_PAUSE, RenewalTimes
from broker.protocol.certificates import ChainError, parse_certificate, parse_chain
from broker.protocol.problems import Problem, ProblemType

__all__ = ["BATCH", "Sweep"]

BATCH: Final = 200
"""Most certificates that one sweep begins: with a sweep each five seconds 2,400 a minute, which is
more than CAs take and less than keeps the loop from others for a second."""

AT_ONCE: Final = 32
"""Looks of one sweep that are under way at a time; their writes share commits."""

LATER: Final = timedelta(minutes=1)
"""Pause after a look that could not be taken, or a limit that named no time."""

log = structlog.get_logger(__name__)


class Sweep:
    """Looks at certificates whose time has come."""

    def __init__(
        self, rooms: Workrooms, asking: Asking, ends: DeliveryEnds, times: RenewalTimes
    ) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._asking = asking
        self._ends = ends
        self._times = times
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._is_running = False

    async def run(self) -> int:
        """Look at what is due, up to a batch; returns how many were."""
        if self._is_running:
            return 0
        self._is_running = True
        try:
            due = await self._store.due_managed(self._rooms.clock.now(), BATCH)
            await self.look_at(due)
        finally:
            self._is_running = False
        return len(due)

    async def look_at(self, due: Sequence[ManagedRecord]) -> None:
        """Look at these, several at a time."""
        await asyncio.gather(*(self._guarded(managed) for managed in due))

    async def catch_up(self) -> int:
        """Move to their time those that a CA wants earlier than they are planned for: what it
        said may have been kept by a process that died before it moved them."""
        behind = await self._store.managed_behind(BATCH)
        for managed in behind:
            await self.plan_again(managed)
        # Whatever has come between a delivery's end and the plan of the next: nobody is forgotten.
        stranded = await self._store.managed_stranded(BATCH)
        for managed in stranded:
            log.warning("planned nothing, looked at now", certificate=managed.name)
            await self._keep(managed, replace(managed, next_at=self._rooms.clock.now()))
        return len(behind) + len(stranded)

    async def plan_again(self, managed: ManagedRecord) -> None:
        """Look at a certificate earlier, if it is to be renewed earlier than was planned."""
        node = await self._store.find_node(managed.node_id)
        if node is None or managed.next_at is None:
            return
        planned = await self._times.planned(managed, node)
        if planned.next_at is not None and planned.next_at < managed.next_at:
            await self._keep(managed, planned)

    async def reason_for(self, managed: ManagedRecord, node: NodeRecord) -> str | None:
        """Return why a certificate has to be had now; None: it has not."""
        moment = await self._times.moment(managed, node)
        if moment is None:
            return "new"
        if await self._differs(managed):
            return "changed"
        if moment > self._rooms.clock.now():
            return None
        return "revoked" if await self._is_revoked(managed) else "due"

    # ------------------------------------------------------------------------------- one look

    async def _guarded(self, managed: ManagedRecord) -> None:
        async with self._slots:
            try:
                await self._look(managed)
            except (Unreachable, Broken, Conflict) as error:
                log.warning("look put off", certificate=managed.name, reason=error.reason)
                await self._keep(managed, replace(managed, next_at=self._rooms.clock.now() + LATER))

    async def _look(self, managed: ManagedRecord) -> None:
        node = await self._store.find_node(managed.node_id)
        if node is None or not managed.is_wanted or node.status is NodeStatus.REVOKED:
            await self._keep(managed, replace(managed, next_at=None))
            return
        if node.status is NodeStatus.DRAINED:
            later = self._rooms.clock.now() + DRAINED_PAUSE
            await self._keep(managed, replace(managed, next_at=later))
            return
        if await self._store.open_delivery(managed.managed_id) is not None:
            # Its end plans the next look.
            await self._keep(managed, replace(managed, next_at=None))
            return
        reason = await self.reason_for(managed, node)
        if reason is None:
            planned = await self._times.planned(replace(managed, due_since=None), node)
            await self._keep(managed, planned)
            return
        try:
            await self._asking.begin(managed.managed_id, reason=reason)
        except Problem as problem:
            await self.refused(managed, node, problem)

    async def refused(self, managed: ManagedRecord, node: NodeRecord, problem: Problem) -> None:
        """Note that policy does not let the node have it, and try again after a pause."""
        now = self._rooms.clock.now()
        since = managed.due_since or now
        if problem.type is ProblemType.RATE_LIMITED:
            later = now + (problem.retry_after or LATER)
            put_off = replace(managed, next_at=later, due_since=since, fault=problem.detail)
            await self._keep(managed, put_off)
            return
        is_news = managed.fault != problem.detail
        changed = replace(
            managed, attempts=managed.attempts + 1, fault=problem.detail, due_since=since
        )
        changed = await self._ends.retried(changed, node)
        changed, events = self._ends.late(changed, node)
        if is_news:
            log.warning(
                "renewal refused", node=node.name, certificate=managed.name, reason=problem.detail
            )
            event = managed_event(
                EventKind.MANAGED_REFUSED, changed, node, now,
                problem=problem.token, why=problem.detail,
            )  # fmt: skip
            events = [event, *events]
        if not await self._keep(managed, changed, events):
            return
        if is_news:
            told = message_about(changed, "refused", {"reason": problem.detail[:300]})
            await self._rooms.outbox.queue_messages([told])
            self._rooms.connections.wake(node.node_id)

    async def _keep(
        self, before: ManagedRecord, after: ManagedRecord, events: Sequence[Event] = ()
    ) -> bool:
        """Keep a change of what was read; where it has changed meanwhile, that stands, and whoever
        changed it has planned the next look."""
        try:
            await self._store.keep_managed([after], events, before=[before])
        except Conflict:
            return False
        return True

    async def _differs(self, managed: ManagedRecord) -> bool:
        """Return whether the node wants something else than what it has."""
        wanted = set(managed.identifiers)
        if managed.certificate_id is None:
            if managed.served_pem is None:
                return False
            try:
                return not wanted <= parse_chain(managed.served_pem).leaf.identifiers
            except ChainError:
                return False
        found = await self._store.find_certificate(managed.certificate_id)
        if found is None or set(found.identifiers) != wanted:
            return True
        if parse_certificate(found.leaf_der).key_kind != managed.key_kind:
            return True
        order = await self._store.load_order(found.order_id)
        profile = self._rooms.policies.current(managed.community).profile(managed.profile)
        return order is None or (profile is not None and order.profile != profile.name)

    async def _is_revoked(self, managed: ManagedRecord) -> bool:
        if managed.certificate_id is None:
            return False
        found = await self._store.find_certificate(managed.certificate_id)
        return found is not None and (
            found.revoked_at is not None or found.revocation_reason is not None
        )
