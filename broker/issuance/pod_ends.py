"""Nodes of pods that are gone: they end by themselves, and are forgotten when nothing is left of
them.

A host that is away comes back; a pod comes back as another one.  So a node that is bound to a pod
ends once its identity has, and with it its account.  Orders, certificates and events stay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from broker.issuance.errors import Conflict
from broker.issuance.events import Actor
from broker.issuance.node_ports import NodeRecord
from broker.issuance.ports import Clock

__all__ = ["PodEnds", "PodNodes"]

GRACE: Final = timedelta(hours=1)
"""How long after its identity has ended a pod may still come back by that identity's key: as long
as a broker or an API server may be away, with pods that run on."""

REMEMBERED: Final = timedelta(days=1)
"""How long a node that ended is remembered, and after the end of its last certificate: for whoever
asks what a pod of last night had."""

LOOK_EVERY: Final = timedelta(minutes=1)
"""How often it is looked for pods that ended; one index is read."""

BATCH: Final = 100
"""Most nodes that end in one turn: each is two writes.  With a turn a minute that is a million a
week."""

FORGOTTEN_AT_ONCE: Final = 500
"""Most nodes that are forgotten in one transaction: others wait for it meanwhile."""

log = structlog.get_logger("penstock")


class PodNodes(Protocol):
    """Nodes that are bound to pods."""

    async def ended_pods(self, before: datetime, limit: int) -> Sequence[NodeRecord]:
        """Return nodes of pods whose identity ended before that, unless they are revoked and
        their accounts closed."""
        ...

    async def forget_pods(self, before: datetime, limit: int) -> int:
        """Forget the first *limit* revoked nodes of pods whose accounts are closed and whose
        identity, and everything that was delivered to them, ended before that; return how many
        they were."""
        ...


class PodEnds:
    """Ends nodes of pods, and forgets them."""

    def __init__(
        self,
        store: PodNodes,
        clock: Clock,
        *,
        end: Callable[[NodeRecord, Actor], Awaitable[object]],
    ) -> None:
        """*end* makes a node a stranger whose identities have ended already."""
        self._store = store
        self._clock = clock
        self._end = end
        # While the broker was away their identities may all have ended: first let them come back.
        self._look_at = clock.now() + GRACE

    async def take_turn(self) -> None:
        """End and forget a part of what there is, if it is time to look."""
        now = self._clock.now()
        if now < self._look_at:
            return
        ended = await self._store.ended_pods(now - GRACE, BATCH)
        for node in ended:
            try:
                await self._end(node, Actor("system", "its pod's identity has ended"))
            except Conflict:
                continue  # somebody was faster
        forgotten = await self._store.forget_pods(now - REMEMBERED, FORGOTTEN_AT_ONCE)
        self._look_at = now + LOOK_EVERY
        if ended or forgotten:
            log.info("nodes of pods ended", ended=len(ended), forgotten=forgotten)
