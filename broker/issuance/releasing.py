"""From issued to pushed: compared with what it replaces, held where something was lost, admitted
by its rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, deliver_job, delivery_event, message_about
from broker.issuance.delivery_stages import DeliveryEvent, advance_delivery
from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, EventKind
from broker.issuance.managed_ports import Push
from broker.issuance.node_ports import (
    DeliveryStage,
    DeliveryView,
    NodeMessage,
    NodeStatus,
)
from broker.issuance.records import CertificateRecord
from broker.policy.comparison import Lost, compare_renewed
from broker.policy.form import Loss
from broker.protocol.certificates import ChainError, parse_chain
from broker.protocol.problems import Problem, ProblemType

__all__ = ["JUDGED_AGAIN", "Releasing"]

JUDGED_AGAIN: Final = timedelta(minutes=1)
"""How often a delivery that may not be pushed is judged again where nobody wakes it before."""

log = structlog.get_logger(__name__)


class Releasing:
    """Carries deliveries that are ISSUED on, and does what people decide of them."""

    def __init__(self, rooms: Workrooms, ends: DeliveryEnds) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._ends = ends

    async def go_on(self, view: DeliveryView) -> None:
        """Hold it, or push it as soon as its rollout lets it go.

        Raises:
            Postponed: It may not be pushed yet.
        """
        certificate = await self.certificate(view)
        why = self.spent(certificate)
        if why is not None:
            await self._ends.fail(view, DeliveryEvent.SPENT, why)
            return
        lost = self.lost(view, certificate, await self._before(view))
        if lost:
            await self._hold(view, lost)
            return
        now = self._rooms.clock.now()
        if view.node.status is NodeStatus.DRAINED:
            raise Postponed(now + JUDGED_AGAIN, f"node '{view.node.name}' is drained")
        verdict = await self._rooms.gate.judge(view, now)
        if verdict.may_go:
            await self._push(view, certificate, verdict.group)
            return
        why = verdict.why or "its rollout does not let it go yet"
        if (view.delivery.note, view.delivery.rollout_group) != (why, verdict.group):
            noted = replace(view.delivery, note=why, rollout_group=verdict.group)
            await self._store.change_delivery(noted, expected=(DeliveryStage.ISSUED,), events=())
        raise Postponed(verdict.retry_at or now + JUDGED_AGAIN, why)

    async def certificate(self, view: DeliveryView) -> CertificateRecord:
        """Return the certificate that the delivery brings."""
        certificate_id = view.delivery.certificate_id
        found = None
        if certificate_id is not None:
            found = await self._store.find_certificate(certificate_id)
        if found is None:
            raise LookupError(f"delivery {view.delivery.delivery_id} has no certificate")
        return found

    def spent(self, certificate: CertificateRecord) -> str | None:
        """Return why nobody should be brought this certificate any more, or None."""
        if certificate.revoked_at is not None or certificate.revocation_reason is not None:
            return "its certificate was revoked on the way"
        if certificate.not_after <= self._rooms.clock.now():
            return f"its certificate ended on the way, at {certificate.not_after:%Y-%m-%dT%H:%M}Z"
        return None

    # ------------------------------------------------------------------------------ by people

    async def release(self, delivery_id: str, actor: Actor) -> DeliveryView:
        """Let a held delivery go on although something was lost.

        Raises:
            Problem: There is none that is held.
        """
        view = await self._held(delivery_id)
        now = self._rooms.clock.now()
        released = replace(
            view.delivery,
            stage=advance_delivery(view.delivery.stage, DeliveryEvent.RELEASED),
            released_at=now,
            note=None,
        )
        event = delivery_event(
            EventKind.DELIVERY_RELEASED, view, released, now, actor=actor, why=view.delivery.note
        )
        job = deliver_job(delivery_id, now)
        try:
            await self._store.change_delivery(
                released, expected=(DeliveryStage.HELD,), events=(event,), jobs=(job,)
            )
        except Conflict:
            return await self.release(delivery_id, actor)
        self._rooms.dispatcher.kick(job)
        return replace(view, delivery=released)

    async def withdraw(self, delivery_id: str, actor: Actor) -> DeliveryView:
        """Take a delivery back that has not ended; what is served stays.

        Raises:
            Problem: There is none, or it has ended.
        """
        view = await self._store.find_delivery(delivery_id)
        if view is None:
            raise Problem(ProblemType.MALFORMED, f"there is no delivery '{delivery_id}'")
        if view.delivery.stage.is_end:
            raise Problem(
                ProblemType.MALFORMED, f"delivery '{delivery_id}' is {view.delivery.stage} already"
            )
        why = f"withdrawn by {actor.name}" + (f": {actor.reason}" if actor.reason else "")
        return await self._ends.withdraw_open(delivery_id, why, actor=actor) or view

    async def _held(self, delivery_id: str) -> DeliveryView:
        view = await self._store.find_delivery(delivery_id)
        if view is None:
            raise Problem(ProblemType.MALFORMED, f"there is no delivery '{delivery_id}'")
        if view.delivery.stage is not DeliveryStage.HELD:
            raise Problem(
                ProblemType.MALFORMED,
                f"delivery '{delivery_id}' is {view.delivery.stage}, only held ones are released",
            )
        return view

    # ---------------------------------------------------------------------------- the two ways

    async def _before(self, view: DeliveryView) -> bytes | None:
        """Return the chain that it takes the place of, None where there is none."""
        if view.delivery.replaces is None or view.delivery.released_at is not None:
            return view.managed.served_pem
        found = await self._store.find_certificate(view.delivery.replaces)
        return None if found is None else found.chain_pem

    def lost(
        self, view: DeliveryView, after: CertificateRecord, before_pem: bytes | None
    ) -> Sequence[Lost]:
        """Return what the certificate has less than the one before it, that nobody released."""
        if before_pem is None or view.delivery.released_at is not None:
            return ()
        hold = self._rooms.on_nodes(view.managed).hold
        try:
            return compare_renewed(parse_chain(before_pem), parse_chain(after.chain_pem), hold)
        except ChainError as error:
            return (Lost(Loss.ANCHORS, f"it cannot be compared: {error}"),)

    async def _hold(self, view: DeliveryView, lost: Sequence[Lost]) -> None:
        now = self._rooms.clock.now()
        note = "; ".join(one.sentence for one in lost)
        held = replace(
            view.delivery,
            stage=advance_delivery(view.delivery.stage, DeliveryEvent.LOST),
            note=note,
        )
        event = delivery_event(
            EventKind.DELIVERY_HELD,
            view,
            held,
            now,
            lost=[str(one.kind) for one in lost],
            why=note,
        )
        await self._store.change_delivery(held, expected=(DeliveryStage.ISSUED,), events=(event,))
        log.error(
            "delivery held",
            delivery=held.delivery_id,
            node=view.node.name,
            certificate=view.managed.name,
            reason=note,
        )

    async def _push(
        self, view: DeliveryView, certificate: CertificateRecord, group: str | None
    ) -> None:
        order = await self._store.load_order(certificate.order_id)
        push = self.pushed(view, certificate, 0 if order is None else order.cap_seconds, group)
        await self._store.change_delivery(
            push.delivery,
            expected=(DeliveryStage.ISSUED,),
            events=(push.event,),
            messages=(push.message,),
        )
        self._rooms.connections.wake(view.node.node_id)

    def pushed(
        self,
        view: DeliveryView,
        certificate: CertificateRecord,
        cap_seconds: int,
        group: str | None,
        *,
        tell_within: int = 0,
    ) -> Push:
        """Return the delivery as it is once it is pushed, and what goes with that.

        The node may take *tell_within* seconds to tell how it went, where it went well.
        """
        now = self._rooms.clock.now()
        delivery = replace(
            view.delivery,
            stage=advance_delivery(view.delivery.stage, DeliveryEvent.ADMITTED),
            rollout_group=group,
            pushed_at=now,
            note=None,
        )
        event = delivery_event(
            EventKind.DELIVERY_MOVED, view, delivery, now, fingerprint=certificate.fingerprint
        )
        message = self._message(view, certificate, cap_seconds)
        if tell_within:
            message = replace(message, body={**message.body, "tell_within": tell_within})
        return Push(delivery=delivery, message=message, event=event)

    async def message(self, view: DeliveryView) -> NodeMessage:
        """Return what the node is sent; it may be sent again."""
        certificate = await self.certificate(view)
        order = await self._store.load_order(certificate.order_id)
        return self._message(view, certificate, 0 if order is None else order.cap_seconds)

    def _message(
        self, view: DeliveryView, certificate: CertificateRecord, cap_seconds: int
    ) -> NodeMessage:
        lifetime = int((certificate.not_after - certificate.not_before).total_seconds()) + 1
        keep = self._rooms.on_nodes(view.managed).keep_previous_key
        return message_about(
            view.managed,
            "certificate",
            {
                "delivery": view.delivery.delivery_id,
                "generation": view.delivery.generation,
                "chain_pem": certificate.chain_pem.decode("ascii", "replace"),
                "spki_sha256": certificate.spki_sha256,
                # Counted from receipt it is within the cap; its own beginning lies a little before.
                "longest_seconds": max(cap_seconds, lifetime),
                "keep_previous_seconds": int(keep.total_seconds()),
            },
        )
