"""Downstream orders: create, read, finalize, hand over (RFC 8555 §7.4).

The claim of a finalize is a compare-and-set in the store: of many callers one wins, and all of
them are answered with the one order.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from broker.issuance.accounts import new_id
from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_passing import passed
from broker.issuance.approval_resting import resting_on
from broker.issuance.caa import CaaWatch
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import AlreadyReplaced, Conflict, OverLimit
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.finalizing import Finalizing
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.making import Ground, authorization_of_order
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.planning import Planner, decision_facts
from broker.issuance.ports import (
    AccountOrders,
    AccountStore,
    Attached,
    Clock,
    EventLog,
    KeyInspector,
    OrderClosing,
    OrderStore,
    Policies,
)
from broker.issuance.preauthorizations import PreAuthorizations
from broker.issuance.quota_ports import Taking
from broker.issuance.quotas import Quotas
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    JobKind,
    OrderRecord,
)
from broker.issuance.refusals import Refusals
from broker.issuance.rule_warnings import warning_events
from broker.issuance.settings import IssuanceSettings
from broker.issuance.spending import Spent, make_within
from broker.issuance.succession import Succession, already_replaced
from broker.issuance.terms import check_current
from broker.issuance.witness import Witness
from broker.policy.decisions import CapPlan, NewOrderDecision, NewOrderFacts
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewOrder
from broker.protocol.resources import (
    AuthorizationStatus,
    OrderStatus,
)
from broker.protocol.transitions import OrderEvent, advance_order

__all__ = ["Orders"]

ORDERS_A_PAGE: Final = 100
"""Orders in one page of an account's list: URLs of 10 KiB, which no client finds too long."""


class Orders:
    """The order workflow as a client sees it."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        owned: AccountOrders,
        accounts: AccountStore,
        log: EventLog,
        planner: Planner,
        policies: Policies,
        inspector: KeyInspector,
        dispatcher: Dispatcher,
        succession: Succession,
        clock: Clock,
        settings: IssuanceSettings,
        caa: CaaWatch | None = None,
        quotas: Quotas | None = None,
        approvals: ApprovalGate | None = None,
        freezes: Freezes | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._orders = orders
        self._freezes = freezes
        self._approvals = approvals
        self._quotas = quotas
        self._succession = succession
        self._log = log
        self._planner = planner
        self.refusals = Refusals(log, clock)
        self._owned = owned
        self._ahead = PreAuthorizations(
            owned=owned, planner=planner, refusals=self.refusals, clock=clock, settings=settings,
            freezes=freezes,
        )  # fmt: skip
        self._finalizing = Finalizing(
            orders=orders,
            accounts=accounts,
            refusals=self.refusals,
            planner=planner,
            policies=policies,
            inspector=inspector,
            clock=clock,
            caa=caa,
            approvals=approvals, quotas=quotas, freezes=freezes, witness=witness,
        )  # fmt: skip
        self._dispatcher = dispatcher
        self._clock = clock
        self._settings = settings

    # ------------------------------------------------------------------------------- newOrder

    async def create(
        self,
        account: AccountRecord,
        request: NewOrder,
        *,
        order_id: str | None = None,
        origin: Origin = NOWHERE,
    ) -> OrderRecord:
        """Return a new order, or raise the Problem that policy found.

        A workflow of ours that may have to find its order again names *order_id* beforehand.
        """
        check_current(self._settings.communities[account.community], account)
        await verify_unfrozen(self._freezes, account, "new-order")
        facts = await self._planner.facts(
            account,
            identifiers=request.identifiers,
            profile=request.profile,
            not_before=request.not_before,
            not_after=request.not_after,
            origin=origin,
        )
        make = functools.partial(self._make, account, request, order_id)
        return await make_within(self._planner, self._quotas, account, facts, make)

    async def _make(
        self, account: AccountRecord, request: NewOrder, order_id: str | None, facts: NewOrderFacts
    ) -> OrderRecord:
        decision = self._planner.decide(facts)
        plan = decision.plan
        if decision.is_refused or plan is None:
            await self.refusals.record(account, decision, resource="new-order", facts=facts)
            raise decision.problem()
        approvals = await passed(self._approvals, account, decision, facts, self._planner)
        order = self._new_order(account, request, decision, plan, facts)
        decided = resting_on(order.decision, approvals)
        order = replace(order, order_id=order_id or order.order_id, decision=decided)
        order = await self._succeeding(account, order, request.replaces)
        grounds = await self._ahead.grounds(account, decision.requirements, facts.at)
        if self._quotas is None:
            return await self._begin_either(order, decision, plan, grounds)
        taking = await self._quotas.taking(account, order, decision.quotas)
        try:
            return await self._begin_either(order, decision, plan, grounds, taking)
        except OverLimit as over:
            raise Spent(order, over) from over

    async def _begin_either(
        self,
        order: OrderRecord,
        decision: NewOrderDecision,
        plan: CapPlan,
        grounds: Mapping[Identifier, Ground],
        taking: Taking | None = None,
    ) -> OrderRecord:
        try:
            return await self._begin(order, decision, plan, grounds, taking)
        except OverLimit:
            raise
        except Conflict:
            # What the account had proved ahead ended meanwhile: it proves the names anew.
            return await self._begin(order, decision, plan, {}, taking)

    async def _succeeding(
        self, account: AccountRecord, order: OrderRecord, cert_id: str | None
    ) -> OrderRecord:
        """Return *order* with what it replaces."""
        predecessor = await self._succession.find(account, cert_id, order.identifiers)
        if predecessor.holder is not None:
            holder = await self._expired_if_due(await self._reload(predecessor.holder))
            if holder.status is not OrderStatus.INVALID:
                raise already_replaced(cert_id)
        return replace(order, replaces=predecessor.cert_id, replaces_upstream=predecessor.upstream)

    async def _begin(
        self,
        order: OrderRecord,
        decision: NewOrderDecision,
        plan: CapPlan,
        grounds: Mapping[Identifier, Ground],
        taking: Taking | None = None,
    ) -> OrderRecord:
        """Keep the order with its authorizations, and begin its upstream half if it is ready."""
        ends = [ground.authorization.expires_at for ground in grounds.values()]
        order = replace(order, expires_at=min((order.expires_at, *ends)))
        authorizations = [
            authorization_of_order(
                order, identifier, decision.requirements[identifier], grounds.get(identifier)
            )
            for identifier in order.identifiers
        ]
        order = replace(
            order, authorization_ids=tuple(one.authorization_id for one in authorizations)
        )
        decided: dict[str, object] = {"decision": dict(order.decision)}
        attached = self._attached(order, EventKind.ORDER_CREATED, data=decided)
        warned = warning_events(
            order,
            decision.warnings,
            resource="new-order",
            policy_sha256=decision.policy_sha256,
            at=order.created_at,
        )
        attached = replace(attached, taking=taking, events=(*attached.events, *warned))
        work = None
        if all(one.status is AuthorizationStatus.VALID for one in authorizations):
            order = replace(order, status=advance_order(order.status, OrderEvent.AUTHORIZED))
            work = await self._planner.plan_early(order, plan)
            attached = replace(attached, work=work.attached().work, jobs=work.attached().jobs)
        try:
            await self._orders.create_order(order, authorizations, attached)
        except AlreadyReplaced as lost:
            raise already_replaced(order.replaces) from lost
        if work is not None and work.is_prepared:
            self._dispatcher.kick(work.job())
        return order

    def _new_order(
        self,
        account: AccountRecord,
        request: NewOrder,
        decision: NewOrderDecision,
        plan: CapPlan,
        facts: NewOrderFacts,
    ) -> OrderRecord:
        at = facts.at
        return OrderRecord(
            order_id=new_id(),
            account_id=account.account_id,
            community=account.community,
            status=OrderStatus.PENDING,
            identifiers=request.identifiers,
            authorization_ids=(),
            profile=decision.profile or "",
            is_profile_asked=request.profile is not None,
            not_before=request.not_before,
            not_after=request.not_after,
            created_at=at,
            expires_at=at + self._settings.order_lifetime,
            decision=decision_facts(decision, plan, at, facts),
            upstream=plan.upstream,
            upstream_profile=plan.upstream_profile,
            cap_seconds=int(plan.cap.total_seconds()),
            ask_not_after=plan.ask_not_after,
        )

    # ----------------------------------------------------------------------------------- read

    async def read(self, account: AccountRecord, order_id: str) -> OrderRecord:
        """Return the account's own order; one of another account does not exist for it."""
        order = await self._orders.load_order(order_id)
        if order is None or order.account_id != account.account_id:
            raise Problem(ProblemType.MALFORMED, "no such order here", status=404)
        return await self._expired_if_due(order)

    async def pre_authorize(
        self, account: AccountRecord, identifier: Identifier, *, origin: Origin = NOWHERE
    ) -> AuthorizationRecord:
        """Return an authorization ahead of any order, or raise the Problem that policy found."""
        return await self._ahead.create(account, identifier, origin=origin)

    async def list(
        self, account: AccountRecord, after: str | None
    ) -> tuple[Sequence[str], str | None]:
        """Return ids of the account's living orders, newest first, and where the next page begins.

        Raises:
            Problem: malformed, when *after* is no place in this list.
        """
        found = await self._owned.orders_of_account(
            account.account_id, at=self._clock.now(), after=after, limit=ORDERS_A_PAGE + 1
        )
        if found is None:
            raise Problem(ProblemType.MALFORMED, "no such page of the orders list", status=404)
        page = found[:ORDERS_A_PAGE]
        return page, page[-1] if len(found) > ORDERS_A_PAGE else None

    async def expire_due(self) -> int:
        """Close pending and ready orders whose time has passed; returns how many."""
        due = await self._log.expired_orders(self._clock.now(), limit=500)
        for order in due:
            await self._expired_if_due(order)
        return len(due)

    async def _expired_if_due(self, order: OrderRecord) -> OrderRecord:
        is_open = order.status in (OrderStatus.PENDING, OrderStatus.READY)
        if not is_open or order.expires_at > self._clock.now():
            return order
        problem = Problem(
            ProblemType.MALFORMED, f"order expired at {order.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        )
        closing = OrderClosing(
            order_id=order.order_id,
            expected=order.status,
            status=advance_order(order.status, OrderEvent.EXPIRED),
            error=problem.to_json(),
            attached=self._attached(order, EventKind.ORDER_EXPIRED),
        )
        try:
            return await self._orders.close_order(closing)
        except Conflict:
            return await self._reload(order.order_id)

    # ------------------------------------------------------------------------------- finalize

    async def finalize(
        self, account: AccountRecord, order_id: str, csr_der: bytes, *, origin: Origin = NOWHERE
    ) -> OrderRecord:
        """Accept the CSR and return the order, VALID already when the upstream was fast.

        The same CSR again gets the order as it stands; another CSR after the first is refused.

        Raises:
            Problem: orderNotReady, badCSR, badPublicKey, rejectedIdentifier…; the order stays
                READY, so that the client may try with a better CSR.
        """
        order = await self.read(account, order_id)
        csr_sha256 = hashlib.sha256(csr_der).hexdigest()
        if order.csr_sha256 is None:
            order = await self._claim(account, order, csr_der, origin)
        if order.csr_sha256 != csr_sha256:
            raise Problem(
                ProblemType.ORDER_NOT_READY, "this order was finalized with another CSR already"
            )
        if order.status is OrderStatus.PROCESSING:
            await self._dispatcher.settled(JobKind.FULFIL, order_id, self._settings.finalize_wait)
            order = await self._reload(order_id)
        return order

    async def _claim(
        self, account: AccountRecord, order: OrderRecord, csr_der: bytes, origin: Origin
    ) -> OrderRecord:
        """Return the order once it is claimed, for this CSR or for that of somebody faster."""
        if order.status is not OrderStatus.READY:
            raise _not_ready(order)
        try:
            claimed, job = await self._finalizing.claim(account, order, csr_der, origin)
        except Conflict:
            found = await self._reload(order.order_id)
            if found.csr_sha256 is None:
                # Nobody finalized it: it has expired, or an authorization was given up.
                raise _not_ready(found) from None
            return found
        self._dispatcher.kick(job)
        return claimed

    # -------------------------------------------------------------------------------- helpers

    async def _reload(self, order_id: str) -> OrderRecord:
        order = await self._orders.load_order(order_id)
        if order is None:
            raise LookupError(f"order {order_id} vanished from the store")
        return order

    def _attached(
        self, order: OrderRecord, kind: EventKind, *, data: dict[str, object] | None = None
    ) -> Attached:
        event = Event(
            kind=kind,
            at=self._clock.now(),
            actor=Actor(f"account:{order.account_id}"),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data={"identifiers": [str(one) for one in order.identifiers], **(data or {})},
        )
        return Attached(events=(event,))


def _not_ready(order: OrderRecord) -> Problem:
    return Problem(
        ProblemType.ORDER_NOT_READY,
        f"order is {order.status}; finalize wants it ready",
    )
