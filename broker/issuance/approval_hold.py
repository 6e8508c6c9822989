"""Orders that were finalized and not yet sent to their CA, while their approval is taken back.

A CA can be away for hours.  What it has not been asked to issue by then is not asked for any more
once the approval is withdrawn, and waits while it is suspended.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_ports import ApprovalStatus, ApprovalStore
from broker.issuance.approval_resting import approvals_of_order
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Postponed
from broker.issuance.ports import Clock
from broker.issuance.records import OrderRecord, WorkRecord, WorkStatus

__all__ = ["ApprovalHold"]

HELD_PAUSE: Final = timedelta(seconds=30)
"""How often an order looks whether its suspended approval was resumed."""

_NOT_SENT: Final = (WorkStatus.INTENDED, WorkStatus.OPENED)

_TAKEN_BACK: Final = (ApprovalStatus.WITHDRAWN, ApprovalStatus.SUSPENDED)


class ApprovalHold:
    """Looks at approvals once more before a CA is told to issue."""

    def __init__(
        self, store: ApprovalStore, gate: ApprovalGate, closing: Closing, clock: Clock
    ) -> None:
        self._store = store
        self._closing = closing
        self._gate = gate
        self._clock = clock

    async def verify_kept(self, order: OrderRecord, work: WorkRecord) -> None:
        """Return if no approval was taken back since the CA was last told anything.

        Asked right before a finalize is sent, be it the first or once more.  An order whose CA may
        have heard one is not ended here: should a certificate come of it after all, it is fetched.

        Raises:
            Postponed: One was; `has_ended` sees to it at the next look, if no CA was told.
        """
        for approval_id in approvals_of_order(order).all:
            record = await self._store.find_approval(approval_id)
            if record is None or record.status in _TAKEN_BACK:
                pause = timedelta() if work.status in _NOT_SENT else HELD_PAUSE
                at = self._clock.now() + pause
                raise Postponed(at, f"approval {approval_id} was taken back")

    async def has_ended(self, order: OrderRecord, work: WorkRecord) -> bool:
        """End the order if its approval was withdrawn before its CA was asked; return whether.

        An approval that ended or fell due meanwhile stood when the order was finalized, and that
        is enough.

        Raises:
            Postponed: An approval is suspended.
        """
        if work.status not in _NOT_SENT:
            return False
        for approval_id in approvals_of_order(order).all:
            record = await self._store.find_approval(approval_id)
            if record is None:
                raise LookupError(f"approval {approval_id} vanished from the store")
            if record.status is ApprovalStatus.WITHDRAWN:
                await self._closing.refused_here(order, work, self._gate.told(record))
                return True
            if record.status is ApprovalStatus.SUSPENDED:
                at = self._clock.now() + HELD_PAUSE
                raise Postponed(at, f"approval {approval_id} is suspended")
        return False
