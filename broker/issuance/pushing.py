"""Many deliveries at once: a wave that is freed is pushed in batches, not one job after the other.

A batch is read, judged in one pass and written in one transaction; its nodes are woken after it.
Between two batches everybody else has a turn, and a halt is seen.  The jobs of the deliveries stay
as they are: what cannot go along goes the way of its job, and so does everything after a crash, so
that a batch is never more than a shorter way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import structlog

from broker.issuance.delivery_rooms import Workrooms, deliver_job
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.managed_ports import Push, Releasable
from broker.issuance.node_ports import NodeStatus
from broker.issuance.releasing import Releasing

__all__ = ["BATCH", "Pushing"]

BATCH: Final = 1000
"""Most deliveries that are pushed in one transaction: alone it takes some 200 ms, of which the
event loop is held for 20, and a receipt that comes meanwhile waits for it."""

TOLD_PER_SECOND: Final = 400
"""How many nodes of a wave shall tell in a second how it went: each takes a connection and a
transaction, some 3 ms of a processor, which those need first to whom nothing was pushed yet.  Of
2,000 the last saw its certificate served after 1.3 s rather than 2.9 to 3.6."""

LONGEST_TELLING: Final = 20
"""Longest time that nodes of a wave are given to tell, in seconds: after thirty they count as not
seen where certificates live shortly, after a minute as failed where a group says so."""

LEAST: Final = 2
"""Fewest deliveries that make a batch."""

log = structlog.get_logger(__name__)


class Pushing:
    """Pushes what was let go together."""

    def __init__(self, rooms: Workrooms, releasing: Releasing) -> None:
        self._rooms = rooms
        self._releasing = releasing
        self.batch = BATCH
        """Most deliveries of one transaction."""
        self.told_per_second: float = TOLD_PER_SECOND
        """How many nodes of a wave shall tell in a second how it went."""
        self._called: dict[str, None] = {}
        """Deliveries that are to be pushed, in their order."""
        self._is_stirred = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether batches are under way: it is asked who else may go when they are done."""
        return self._task is not None

    def has(self, delivery_id: str) -> bool:
        """Return whether a delivery is about to be pushed with others."""
        return delivery_id in self._called

    def begin(self, delivery_ids: Sequence[str]) -> None:
        """Push these as far as they may be; one alone goes the way of its job."""
        if len(delivery_ids) < LEAST and not self.is_busy:
            self._kick(delivery_ids)
            return
        self._called.update(dict.fromkeys(delivery_ids))
        self._start()

    def look_again(self) -> None:
        """Ask who may go once the batches that are under way are done."""
        self._is_stirred = True
        self._start()

    async def stop(self) -> None:
        """End; what was not pushed is found by its job at the next start."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ------------------------------------------------------------------------------- in batches

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        wave = 0
        try:
            while self._called or self._is_stirred:
                if not self._called:
                    wave, self._is_stirred = 0, False
                    self._called.update(dict.fromkeys(await self._freed()))
                wave = max(wave, len(self._called))
                batch = list(islice(self._called, self.batch))
                left = await self._tried(batch, wave)
                for delivery_id in batch:
                    self._called.pop(delivery_id, None)
                self._kick(left)
                await asyncio.sleep(0)
        finally:
            self._task = None
            left, self._called = list(self._called), {}
            self._kick(left)

    async def _freed(self) -> Sequence[str]:
        try:
            return await self._rooms.gate.freed()
        except (Unreachable, Broken) as error:
            # They are judged again by their jobs, two minutes later at the most.
            log.warning("not known who may go", reason=error.reason)
            return ()

    async def _tried(self, batch: Sequence[str], wave: int) -> Sequence[str]:
        """Push what may be, and return the others."""
        try:
            pushed = await self._push(batch, wave)
        except (Unreachable, Broken, Conflict) as error:
            log.warning("not pushed together", deliveries=len(batch), reason=error.reason)
            return batch
        return [one for one in batch if one not in pushed]

    async def _push(self, batch: Sequence[str], wave: int) -> set[str]:
        """Push what may be of a batch out of so many, and return the ids of what was pushed."""
        store, gate, now = self._rooms.store, self._rooms.gate, self._rooms.clock.now()
        found = [one for one in await store.releasable(batch) if self._is_plain(one)]
        verdicts = await gate.judge_all([one.view for one in found], now)
        tell_within = self._tell_within(wave, found)
        pushes: list[Push] = [
            self._releasing.pushed(
                one.view, one.certificate, one.cap_seconds, verdict.group, tell_within=tell_within
            )
            for one, verdict in zip(found, verdicts, strict=True)
            if verdict.may_go
        ]
        if not pushes:
            return set()
        late = set(await store.push_deliveries(pushes))
        for push in pushes:
            if push.delivery.delivery_id not in late:
                self._rooms.connections.wake(push.delivery.node_id)
        return {one.delivery.delivery_id for one in pushes} - late

    def _tell_within(self, wave: int, found: Sequence[Releasable]) -> int:
        """Return how many seconds the nodes of a wave of so many deliveries, of which some were
        *found*, may take to tell: a node with many tells of them together."""
        nodes = {one.view.node.node_id for one in found}
        share = len(nodes) / max(len(found), 1)
        return min(int(wave * share / self.told_per_second), LONGEST_TELLING)

    def _is_plain(self, one: Releasable) -> bool:
        """Return whether nothing but its rollout may keep it; all else is its job's matter."""
        return (
            one.view.node.status is NodeStatus.ACTIVE
            and self._releasing.spent(one.certificate) is None
            and not self._releasing.lost(one.view, one.certificate, one.before_pem)
        )

    def _kick(self, delivery_ids: Iterable[str]) -> None:
        now = self._rooms.clock.now()
        for delivery_id in delivery_ids:
            self._rooms.dispatcher.kick(deliver_job(delivery_id, now))
