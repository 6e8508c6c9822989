"""What nodes tell of a certificate that was pushed to them: checked, installed, reloaded, seen.

Receipts come twice, late, in another order, or not at all.  One that tells of what is known is no
news; one that leaps over others takes their place; and who tells of another certificate than was
sent, or of another node's delivery, is told so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.asking import Asking
from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, delivery_event
from broker.issuance.delivery_stages import (
    AT_NODE,
    DeliveryEvent,
    advance_delivery,
    event_of_receipt,
    is_news,
)
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryView,
    NodeRecord,
    Receipt,
)
from broker.issuance.releasing import Releasing
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["Receipts"]

MAX_NOTE_CHARS: Final = 500
"""Longest note of a node that is kept, in characters."""

_TIMES: Final = {
    DeliveryStage.CHECKED: "checked_at",
    DeliveryStage.INSTALLED: "installed_at",
    DeliveryStage.RELOADED: "reloaded_at",
    DeliveryStage.SEEN: "ended_at",
}
"""Where the time of each stage is kept, by our clock: a node's may be wrong by days."""

_ENDS: Final = frozenset({DeliveryEvent.REFUSED, DeliveryEvent.FAILED, DeliveryEvent.RESTORED})


class Receipts:
    """Takes receipts."""

    def __init__(
        self, rooms: Workrooms, asking: Asking, releasing: Releasing, ends: DeliveryEnds
    ) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._asking = asking
        self._releasing = releasing
        self._ends = ends

    async def receipted(self, node: NodeRecord, receipts: Sequence[Receipt]) -> None:
        """Take *receipts* of one delivery as they were told one after the other.

        Those that say nothing new change nothing; all that do are kept in one transaction, an end
        that is none of success in one of its own.

        Raises:
            Problem: One of them is no receipt for what was sent to this node; those before it may
                have been kept.
        """
        for receipt in receipts:
            if event_of_receipt(receipt.stage) is None:
                raise Problem(ProblemType.MALFORMED, f"no node reaches the stage '{receipt.stage}'")
        while True:
            view = await self._asking.find(node, receipts[0].delivery_id)
            if any(one.generation != view.delivery.generation for one in receipts):
                raise Problem(ProblemType.MALFORMED, "the receipt is for another generation")
            try:
                await self._take(view, receipts)
            except Conflict:
                continue  # others were taken meanwhile: see whether these are news still
            return

    async def _take(self, view: DeliveryView, receipts: Sequence[Receipt]) -> None:
        moved, events, certificate = view.delivery, list[Event](), None
        for receipt in receipts:
            event = event_of_receipt(receipt.stage)
            if event is None or not is_news(moved.stage, receipt.stage):
                continue
            if moved.stage not in AT_NODE:
                raise Problem(ProblemType.MALFORMED, "nothing of this delivery was sent yet")
            note = printable(receipt.note, MAX_NOTE_CHARS) if receipt.note else None
            if event in _ENDS:
                await self._keep(view, moved, events)
                why = f"{receipt.stage} by the node" + (f": {note}" if note else "")
                await self._ends.fail(replace(view, delivery=moved), event, why)
                return
            certificate = certificate or await self._releasing.certificate(view)
            if receipt.fingerprint.lower() != certificate.fingerprint:
                raise Problem(ProblemType.MALFORMED, "the receipt is for another certificate")
            now = self._rooms.clock.now()
            moved = _reached(moved, event, now, note)
            if moved.stage is DeliveryStage.SEEN:
                await self._ends.seen(view, moved, certificate, earlier=events)
                return
            at_node = receipt.at.isoformat()
            events.append(
                delivery_event(EventKind.DELIVERY_MOVED, view, moved, now, at_node=at_node)
            )
        await self._keep(view, moved, events)

    async def _keep(
        self, view: DeliveryView, moved: DeliveryRecord, events: Sequence[Event]
    ) -> None:
        if events:
            await self._store.change_delivery(moved, expected=(view.delivery.stage,), events=events)


def _reached(
    delivery: DeliveryRecord, event: DeliveryEvent, now: datetime, note: str | None
) -> DeliveryRecord:
    stage = advance_delivery(delivery.stage, event)
    times = {_TIMES[stage]: now}
    return replace(delivery, stage=stage, note=note, **times)  # type: ignore[arg-type]
