"""Downstream orders: create, read, finalize, hand over (RFC 8555 §7.4).

The claim of a finalize is a compare-and-set in the store: of many callers one wins, and all of
them are answered with the one order.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from datetime import datetime

from broker.issuance.accounts import new_id
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.finalizing import Finalizing
from broker.issuance.planning import Planner, decision_facts
from broker.issuance.ports import (
    AccountStore,
    Attached,
    CertificateStore,
    Clock,
    EventLog,
    KeyInspector,
    OrderClosing,
    OrderStore,
    Policies,
)
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    ChallengeRecord,
    JobKind,
    OrderRecord,
    Proof,
)
from broker.issuance.refusals import Refusals
from broker.issuance.settings import IssuanceSettings
from broker.policy.decisions import (
    CapPlan,
    NewOrderDecision,
    Requirement,
)
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewOrder
from broker.protocol.resources import (
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.protocol.transitions import (
    AuthorizationEvent,
    ChallengeEvent,
    OrderEvent,
    advance_authorization,
    advance_challenge,
    advance_order,
)

__all__ = ["Orders"]


class Orders:
    """The order workflow as a client sees it."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        accounts: AccountStore,
        certificates: CertificateStore,
        log: EventLog,
        planner: Planner,
        policies: Policies,
        inspector: KeyInspector,
        dispatcher: Dispatcher,
        clock: Clock,
        settings: IssuanceSettings,
    ) -> None:
        self._orders = orders
        self._certificates = certificates
        self._log = log
        self._planner = planner
        self._refusals = Refusals(log, clock)
        self._finalizing = Finalizing(
            orders=orders,
            accounts=accounts,
            refusals=self._refusals,
            planner=planner,
            policies=policies,
            inspector=inspector,
            clock=clock,
        )
        self._dispatcher = dispatcher
        self._clock = clock
        self._settings = settings

    # ------------------------------------------------------------------------------- newOrder

    async def create(self, account: AccountRecord, request: NewOrder) -> OrderRecord:
        """Return a new order, or raise the Problem that policy found."""
        facts = await self._planner.facts(
            account,
            identifiers=request.identifiers,
            profile=request.profile,
            not_before=request.not_before,
            not_after=request.not_after,
        )
        decision = self._planner.decide(facts)
        plan = decision.plan
        if decision.is_refused or plan is None:
            await self._refusals.record(account, decision, resource="new-order")
            raise decision.problem()
        order = self._new_order(account, request, decision, plan, facts.at)
        authorizations = [
            _new_authorization(order, identifier, decision.requirements[identifier])
            for identifier in request.identifiers
        ]
        order = replace(
            order, authorization_ids=tuple(one.authorization_id for one in authorizations)
        )
        attached = self._attached(order, EventKind.ORDER_CREATED)
        work = None
        if all(one.status is AuthorizationStatus.VALID for one in authorizations):
            order = replace(order, status=advance_order(order.status, OrderEvent.AUTHORIZED))
            work = self._planner.plan_work(order, plan)
            attached = replace(attached, work=work.attached().work, jobs=work.attached().jobs)
        await self._orders.create_order(order, authorizations, attached)
        if work is not None and work.is_prepared:
            self._dispatcher.kick(work.job())
        return order

    def _new_order(
        self,
        account: AccountRecord,
        request: NewOrder,
        decision: NewOrderDecision,
        plan: CapPlan,
        at: datetime,
    ) -> OrderRecord:
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
            decision=decision_facts(decision, plan, at),
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

    async def certificate(self, account: AccountRecord, certificate_id: str) -> bytes:
        """Return the PEM chain of a released certificate of the account's own."""
        found = await self._certificates.find_certificate(certificate_id)
        if found is None or not found.is_released or found.account_id != account.account_id:
            raise Problem(ProblemType.MALFORMED, "no such certificate here", status=404)
        return found.chain_pem

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

    async def finalize(self, account: AccountRecord, order_id: str, csr_der: bytes) -> OrderRecord:
        """Accept the CSR and return the order, VALID already when the upstream was fast.

        The same CSR again gets the order as it stands; another CSR after the first is refused.

        Raises:
            Problem: orderNotReady, badCSR, badPublicKey, rejectedIdentifier…; the order stays
                READY, so that the client may try with a better CSR.
        """
        order = await self.read(account, order_id)
        csr_sha256 = hashlib.sha256(csr_der).hexdigest()
        if order.csr_sha256 is None:
            order = await self._claim(account, order, csr_der, csr_sha256)
        if order.csr_sha256 != csr_sha256:
            raise Problem(
                ProblemType.ORDER_NOT_READY, "this order was finalized with another CSR already"
            )
        if order.status is OrderStatus.PROCESSING:
            await self._dispatcher.settled(JobKind.FULFIL, order_id, self._settings.finalize_wait)
            order = await self._reload(order_id)
        return order

    async def _claim(
        self, account: AccountRecord, order: OrderRecord, csr_der: bytes, csr_sha256: str
    ) -> OrderRecord:
        """Return the order once it is claimed, for this CSR or for that of somebody faster."""
        if order.status is not OrderStatus.READY:
            raise _not_ready(order)
        try:
            claimed, job = await self._finalizing.claim(account, order, csr_der, csr_sha256)
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


def _new_authorization(
    order: OrderRecord, identifier: Identifier, need: Requirement
) -> AuthorizationRecord:
    """Return a pending authorization, or a valid one where policy trusts the requester."""
    authorization = AuthorizationRecord(
        authorization_id=new_id(),
        order_id=order.order_id,
        account_id=order.account_id,
        community=order.community,
        identifier=identifier.base,
        is_wildcard=identifier.is_wildcard,
        status=AuthorizationStatus.PENDING,
        expires_at=order.expires_at,
        proof=None,
        challenges=tuple(_new_challenge(kind) for kind in need.challenges),
    )
    if need.granted_by is None:
        return authorization
    return replace(
        authorization,
        status=advance_authorization(authorization.status, AuthorizationEvent.CHALLENGE_VALID),
        proof=Proof.POLICY,
        challenges=tuple(_settled(one, order.created_at) for one in authorization.challenges),
    )


def _new_challenge(kind: ChallengeType) -> ChallengeRecord:
    return ChallengeRecord(
        challenge_id=new_id(),
        type=kind,
        token=secrets.token_urlsafe(32),
        status=ChallengeStatus.PENDING,
    )


def _settled(challenge: ChallengeRecord, at: datetime) -> ChallengeRecord:
    responded = advance_challenge(challenge.status, ChallengeEvent.RESPONDED)
    return replace(
        challenge,
        status=advance_challenge(responded, ChallengeEvent.VALIDATED),
        validated_at=at,
    )


def _not_ready(order: OrderRecord) -> Problem:
    return Problem(
        ProblemType.ORDER_NOT_READY,
        f"order is {order.status}; finalize wants it ready",
    )
