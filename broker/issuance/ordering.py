"""A delivery's order: made under the node's own account, by the same journey as every order.

The order's id follows from the delivery's, so that a process that dies between making the one and
keeping it in the other finds it again.  One delivery has one order, ever.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, delivery_event, message_about
from broker.issuance.delivery_stages import DeliveryEvent, advance_delivery
from broker.issuance.dispatcher import Postponed
from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryRecord, DeliveryStage, DeliveryView, NodeStatus
from broker.issuance.records import AccountRecord, JobKind, OrderRecord
from broker.protocol.certificates import ChainError, cert_id, parse_chain
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewOrder
from broker.protocol.resources import AccountStatus, OrderStatus

__all__ = ["Ordering", "order_id_of"]

ORDER_LOOK: Final = timedelta(seconds=30)
"""How often an order that is under way is looked at: its end is told at once, and this is for what
was told while nobody listened."""

PROOF_LOOK: Final = timedelta(seconds=10)
"""How often an order whose names are being proved at the node is looked at."""

LIMIT_PAUSE: Final = timedelta(minutes=1)
"""Pause after a limit that named no time."""

MAX_REASON_CHARS: Final = 300
"""Most characters of a reason that a node is told; a CA's own words may have a thousand."""

AGAIN: Final = ", try again in "
"""What a limit's sentence ends in differs each time that it is asked; the reason is the same."""


def order_id_of(delivery_id: str) -> str:
    """Return the id of the delivery's order: in the form of all others, and the same each time."""
    return hashlib.sha256(f"order of delivery {delivery_id}".encode()).hexdigest()[:32]


class Ordering:
    """Carries deliveries that are ORDERED on."""

    def __init__(self, rooms: Workrooms, ends: DeliveryEnds) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._ends = ends

    async def go_on(self, view: DeliveryView) -> None:
        """Order, prove, finalize, or see what has become of it.

        Raises:
            Postponed: It is under way.
            Unreachable, Broken: As the order's journey has it.
        """
        account = await self._store.find_account(view.node.account_id)
        if account is None or account.status is not AccountStatus.VALID:
            await self._fail(view, f"account of node '{view.node.name}' is closed")
            return
        try:
            order = await self._order(view, account)
            if order is not None:
                await self._follow(view, account, order)
        except Problem as problem:
            if problem.type is ProblemType.RATE_LIMITED:
                pause = problem.retry_after or LIMIT_PAUSE
                await self._tell_wait(view, problem.detail)
                raise Postponed(self._rooms.clock.now() + pause, problem.detail) from problem
            await self._fail(view, problem.detail)

    async def _order(self, view: DeliveryView, account: AccountRecord) -> OrderRecord | None:
        """Return the delivery's order, made now if there is none; None once it was kept, for
        the next turn to go on with."""
        if view.delivery.order_id is not None:
            kept_order = await self._store.load_order(view.delivery.order_id)
            if kept_order is None:
                raise LookupError(f"order {view.delivery.order_id} vanished from the store")
            return kept_order
        order_id = order_id_of(view.delivery.delivery_id)
        order = await self._store.load_order(order_id)
        if order is None:
            if view.node.status is NodeStatus.DRAINED:
                pause = self._rooms.clock.now() + LIMIT_PAUSE
                raise Postponed(pause, f"node '{view.node.name}' is drained")
            order = await self._create(view, account, order_id)
        kept = replace(view.delivery, order_id=order.order_id)
        await self._keep(view, kept)
        return None

    async def _create(
        self, view: DeliveryView, account: AccountRecord, order_id: str
    ) -> OrderRecord:
        managed = view.managed
        request = NewOrder(
            identifiers=managed.identifiers,
            profile=managed.profile,
            replaces=await self._replaces(view),
        )
        try:
            return await self._rooms.orders.create(account, request, order_id=order_id)
        except Problem as problem:
            if request.replaces is None or problem.type not in (
                ProblemType.ALREADY_REPLACED,
                ProblemType.MALFORMED,
            ):
                raise
            # An attempt before had a certificate that never came to be served, or none of its
            # names is left: then nothing is told to be replaced.
            bare = replace(request, replaces=None)
            return await self._rooms.orders.create(account, bare, order_id=order_id)

    async def _replaces(self, view: DeliveryView) -> str | None:
        """Return the CertID of what is served now (RFC 9773 §5)."""
        if view.delivery.replaces is not None:
            found = await self._store.find_certificate(view.delivery.replaces)
            return None if found is None else found.cert_id
        if view.managed.served_pem is not None:
            with contextlib.suppress(ChainError):
                return cert_id(parse_chain(view.managed.served_pem).leaf)
        return None

    async def _follow(self, view: DeliveryView, account: AccountRecord, order: OrderRecord) -> None:
        if order.status is OrderStatus.PENDING:
            await self._prove(view, account, order)
        if order.status is OrderStatus.READY:
            csr_der = view.managed.csr_der
            if csr_der is None:
                raise LookupError(f"delivery {view.delivery.delivery_id} was ordered without a CSR")
            order = await self._rooms.orders.finalize(account, order.order_id, csr_der)
        if order.status is OrderStatus.VALID:
            await self._issued(view, order)
        elif order.status is OrderStatus.INVALID:
            why = str((order.error or {}).get("detail", "without a reason"))
            await self._fail(view, f"order failed: {why}")
        else:
            job = await self._store.find_job(JobKind.FULFIL, order.order_id)
            if job is not None and job.note:
                await self._tell_wait(view, f"its order waits: {job.note}")
            due_at = self._rooms.clock.now() + ORDER_LOOK
            raise Postponed(due_at, f"its order is {order.status}")

    async def _tell_wait(self, view: DeliveryView, why: str) -> None:
        """Tell the node why its certificate has not come yet, once for each reason."""
        why = why[:MAX_REASON_CHARS]  # as it is kept, or a longer one would be new each time
        told = (view.delivery.note or "").partition(AGAIN)[0]
        if told == why.partition(AGAIN)[0]:
            return
        await self._store.change_delivery(
            replace(view.delivery, note=why),
            expected=(DeliveryStage.ORDERED,),
            events=(),
            messages=(message_about(view.managed, "waits", {"reason": why}),),
        )
        self._rooms.connections.wake(view.node.node_id)

    async def _prove(self, view: DeliveryView, account: AccountRecord, order: OrderRecord) -> None:
        offered = self._rooms.on_nodes(view.managed).challenges
        if self._rooms.challenges is None or not offered:
            raise Problem(
                ProblemType.UNAUTHORIZED,
                "its names have to be proved, and the policy has no challenges under 'on_nodes'",
            )
        await self._rooms.challenges.prove(view.node, account, order)
        found = await self._store.load_order(order.order_id)
        if found is not None and found.status is OrderStatus.PENDING:
            due_at = self._rooms.clock.now() + PROOF_LOOK
            raise Postponed(due_at, "its names are being proved at the node")
        raise Postponed(self._rooms.clock.now(), "its names were looked at")

    async def _issued(self, view: DeliveryView, order: OrderRecord) -> None:
        moved = replace(
            view.delivery,
            stage=advance_delivery(view.delivery.stage, DeliveryEvent.ISSUED),
            certificate_id=order.certificate_id,
            issued_at=self._rooms.clock.now(),
            note=None,
        )
        await self._keep(view, moved)

    async def _keep(self, view: DeliveryView, moved: DeliveryRecord) -> None:
        event = delivery_event(EventKind.DELIVERY_MOVED, view, moved, self._rooms.clock.now())
        await self._store.change_delivery(moved, expected=(DeliveryStage.ORDERED,), events=(event,))

    async def _fail(self, view: DeliveryView, why: str) -> None:
        await self._ends.fail(view, DeliveryEvent.ORDER_FAILED, why)
