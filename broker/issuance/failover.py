"""An order goes to the next CA of its profile, where the first is down or refuses for its own
reasons; never where it refuses for ours.

Two certificates for one order are what must not come of it.  An order is moved only while no
finalize of it can have reached the CA that it leaves: its work there is INTENDED, which is on the
disk before newOrder is sent, or it is OPENED and was finalized by its client in this very process
(`broker.issuance.witness`).  FINALIZING is written without fsync, so after a power cut OPENED alone
proves nothing.  The work is DEAD in the transaction that begins another, and nothing finalizes dead
work.

Policy is asked again, with the CAs that are left: a cap, a profile, and whether a name may reach
a CA that logs publicly, are judged for the new one as they were for the old.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.caa import CaaWatch
from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.planning import Planner, decided_retirement, decision_facts
from broker.issuance.ports import AccountStore, Clock, OrderStore, WorkStore
from broker.issuance.quota_ports import OrderMove, OrderMoves
from broker.issuance.quotas import Quotas, with_upstream
from broker.issuance.records import AccountRecord, OrderRecord, WorkRecord, WorkStatus
from broker.issuance.requesting import decided_origin
from broker.issuance.witness import Witness
from broker.policy.decisions import CapPlan, NewOrderDecision
from broker.protocol.problems import Problem
from broker.protocol.resources import OrderStatus

__all__ = ["Failover"]

OF_THE_CA: Final = frozenset({"cap", "passed_over", "retirement", "retires_after"})
"""What a decision may say of one CA alone; the rest is said anew of the next."""


class Failover:
    """Moves orders whose CA is away."""

    def __init__(
        self,
        *,
        moves: OrderMoves,
        orders: OrderStore,
        works: WorkStore,
        accounts: AccountStore,
        planner: Planner,
        quotas: Quotas | None,
        caa: CaaWatch | None,
        clock: Clock,
        witness: Witness,
    ) -> None:
        self._moves = moves
        self._orders = orders
        self._works = works
        self._accounts = accounts
        self._planner = planner
        self._quotas = quotas
        self._caa = caa
        self._clock = clock
        self._witness = witness

    async def leave_if_away(self, order_id: str) -> None:
        """Begin the order anew at another CA, if its own is away and that can do no harm.

        Raises:
            Postponed: It is elsewhere now; run it again.
        """
        order = await self._orders.load_order(order_id)
        work = await self._works.work_of_order(order_id)
        is_open = order is not None and order.status is OrderStatus.PROCESSING
        if order is None or work is None or not is_open:
            return
        if await self.has_moved(order, work):
            raise Postponed(self._clock.now(), "goes to another CA: its own is away")

    async def has_moved(self, order: OrderRecord, work: WorkRecord) -> bool:
        """Move *order* to another CA if its own is away and that can do no harm; return whether
        it was moved."""
        if not self._planner.is_begun_early(order):
            # Of an order of the built-in CA nobody writes down how far it got there.
            return False
        if not self._witness.is_unfinalized(order, work):
            return False
        account = await self._accounts.find_account(order.account_id)
        found = None if account is None else await self._plan(account, order, work)
        if account is None or found is None:
            return False
        decision, plan = found
        if await self._is_kept_out(account, order, plan):
            return False
        move = self._move(order, work, decision, plan)
        if self._quotas is not None:
            taking = await self._quotas.moved(account, move.order, decision.quotas)
            move = replace(move, taking=taking)
        try:
            await self._moves.move_order(move)
        except Conflict:
            # It went on meanwhile, or the other CA's limits leave no room: it waits where it is.
            return False
        return True

    async def _plan(
        self, account: AccountRecord, order: OrderRecord, work: WorkRecord
    ) -> tuple[NewOrderDecision, CapPlan] | None:
        try:
            facts = await self._planner.facts(
                account,
                identifiers=order.identifiers,
                profile=order.profile,
                not_before=order.not_before,
                not_after=order.not_after,
                origin=decided_origin(order.decision),
            )
        except Problem:
            return None
        if work.order_url is not None:
            facts = await self._planner.also_away(facts, work.order_url)
        is_ready = any(one.name == order.upstream for one in facts.upstreams)
        pair = (order.upstream, order.upstream_profile)
        stopped = {**facts.away, **facts.frozen}
        if is_ready and order.upstream not in stopped and pair not in facts.suspended:
            return None
        decision = self._planner.decide(facts)
        plan = decision.plan
        if decision.is_refused or plan is None or plan.upstream in facts.away:
            return None
        if plan.upstream == order.upstream or not _is_as_strict(order, plan):
            return None
        return decision, plan

    async def _is_kept_out(self, account: AccountRecord, order: OrderRecord, plan: CapPlan) -> bool:
        """Return whether CAA keeps the new CA out, where policy heeds that."""
        if self._caa is None:
            return False
        return bool((await self._caa.answer(account, order, plan.upstream)).findings)

    def _move(
        self, order: OrderRecord, work: WorkRecord, decision: NewOrderDecision, plan: CapPlan
    ) -> OrderMove:
        now = self._clock.now()
        changed = replace(
            with_upstream(order, plan.upstream, plan.upstream_profile),
            decision={**_carried(order), **decision_facts(decision, plan, now)},
            cap_seconds=int(plan.cap.total_seconds()),
            ask_not_after=plan.ask_not_after,
        )
        planned = self._planner.plan_work(changed, plan, taken_by=order.order_id)
        return OrderMove(
            order=changed,
            left=work,
            work=planned.work,
            taking=None,
            event=self._event(order, work, plan, now),
        )

    def _event(self, order: OrderRecord, work: WorkRecord, plan: CapPlan, at: datetime) -> Event:
        return Event(
            kind=EventKind.ORDER_MOVED,
            at=at,
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=plan.upstream,
            data={
                "from": order.upstream,
                "to": plan.upstream,
                "work_id": work.work_id,
                "left": "intended" if work.status is WorkStatus.INTENDED else "opened",
                "identifiers": [str(one) for one in order.identifiers],
            },
        )


def _carried(order: OrderRecord) -> dict[str, object]:
    """Return what the order's decision says of the requester, and nothing of the CA it leaves."""
    return {key: value for key, value in order.decision.items() if key not in OF_THE_CA}


def _is_as_strict(order: OrderRecord, plan: CapPlan) -> bool:
    """Return whether *plan* gives no more lifetime than what the order was finalized under."""
    if plan.cap > timedelta(seconds=order.cap_seconds):
        return False
    return plan.retirement is None or decided_retirement(order.decision) is not None
