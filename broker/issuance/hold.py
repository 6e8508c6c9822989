"""Orders that wait because somebody stopped something: a suspended upstream, or a freeze.

What a CA was told to issue already is fetched all the same, so that the certificate is known here
and can be revoked.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.issuance.dispatcher import Postponed
from broker.issuance.freeze_ports import FreezeRecord
from broker.issuance.freezes import FROZEN_WORDS, Freezes
from broker.issuance.ports import Clock, UpstreamStore
from broker.issuance.records import OrderRecord, WorkRecord, WorkStatus

__all__ = ["Hold"]

SUSPENDED_PAUSE: Final = timedelta(seconds=30)
"""How often a job looks whether its suspended upstream has been resumed."""

FROZEN_PAUSE: Final = timedelta(seconds=5)
"""How often a job looks whether a freeze was lifted by another process; one that is lifted here is
heard of at once."""

_NOT_SENT: Final = (WorkStatus.INTENDED, WorkStatus.OPENED)


class Hold:
    """Looks whether an order may go on."""

    def __init__(self, upstreams: UpstreamStore, clock: Clock, freezes: Freezes | None) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._freezes = freezes

    async def of_requester(self, order: OrderRecord, work: WorkRecord) -> None:
        """Raise Postponed while whoever asked for *order* is frozen and no CA was told to issue."""
        if work.status in _NOT_SENT:
            await self._of_account(order)

    async def of_work(self, work: WorkRecord) -> None:
        """Raise Postponed while the upstream is suspended, or it or the community is frozen."""
        await self._of_suspension(work)
        if work.status in _NOT_SENT:
            await self._of_place(work)

    async def of_finalize(self, order: OrderRecord, work: WorkRecord) -> None:
        """Raise Postponed where somebody stopped it since its order was begun at the CA.

        Also where a finalize was sent before: the CA shows that it did not come, and to send it
        once more is to tell the CA to issue.
        """
        await self._of_suspension(work)
        await self._of_account(order)
        await self._of_place(work)

    async def _of_account(self, order: OrderRecord) -> None:
        if self._freezes is not None:
            self._wait_for(await self._freezes.of_account_id(order.account_id))

    async def _of_place(self, work: WorkRecord) -> None:
        if self._freezes is not None:
            self._wait_for(await self._freezes.of_upstream(work.upstream))
            self._wait_for(await self._freezes.of_community(work.community))

    async def _of_suspension(self, work: WorkRecord) -> None:
        for pair in await self._upstreams.suspensions():
            if (pair.upstream, pair.upstream_profile) == (work.upstream, work.upstream_profile):
                at = self._clock.now() + SUSPENDED_PAUSE
                raise Postponed(at, f"upstream {work.upstream!r} is suspended: {pair.rule}")

    def _wait_for(self, found: FreezeRecord | None) -> None:
        if found is not None:
            raise Postponed(self._clock.now() + FROZEN_PAUSE, f"{found} {FROZEN_WORDS}")
