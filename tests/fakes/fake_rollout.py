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

    async def ended(self, view: DeliveryView) -> Sequence[str]:
        """See the port."""
        self.ends.append((view.delivery.delivery_id, str(view.delivery.stage)))
        woken, self.woken = self.woken, ()
        return woken
