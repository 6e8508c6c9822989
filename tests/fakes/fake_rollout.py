"""A rollout that lets everything go, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.issuance.node_ports import DeliveryView, Verdict


class FakeRollout:
    """``node_ports.RolloutGate``, remembering whom it was asked about and whose end it heard of."""

    def __init__(self) -> None:
        self.verdict = Verdict(may_go=True)
        self.judged: list[str] = []
        self.ends: list[tuple[str, str]] = []
        """(delivery, stage) of each end that was told."""
        self.woken: tuple[str, ...] = ()
        """Whom the next end wakes."""

    async def judge(self, view: DeliveryView, now: datetime) -> Verdict:
        """See the port."""
        self.judged.append(view.delivery.delivery_id)
        return self.verdict

    async def judge_all(self, views: Sequence[DeliveryView], now: datetime) -> Sequence[Verdict]:
        """See the port."""
        return [await self.judge(view, now) for view in views]

    async def ended(self, view: DeliveryView, *, is_asked: bool = True) -> Sequence[str]:
        """See the port."""
        self.ends.append((view.delivery.delivery_id, str(view.delivery.stage)))
        return await self.freed() if is_asked else ()

    async def freed(self) -> Sequence[str]:
        """See the port."""
        woken, self.woken = self.woken, ()
        return woken
