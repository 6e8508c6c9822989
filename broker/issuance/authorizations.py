"""Downstream authorizations: prove control, one challenge at a time (RFC 8555 §7.5).

A response moves the challenge to PROCESSING and queues it; ``validation`` goes and looks;
``protocol.challenges.judge_challenge`` gives the verdict; the transition tables carry it to the
authorization and the order.  Success here is never taken from upstream, nor given to it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

from broker.issuance.dispatcher import Dispatcher, Ending, Postponed
from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.looks import (
    AuthorizationReading,
    find_challenge,
    look_subject,
    with_challenge,
)
from broker.issuance.planning import Planner, WorkPlan
from broker.issuance.ports import (
    AccountStore,
    AccountUrl,
    Attached,
    ChallengeChange,
    Clock,
    OrderStore,
    Question,
    Validator,
)
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    ChallengeRecord,
    Job,
    JobKind,
    OrderRecord,
    Proof,
)
from broker.issuance.requesting import decided_origin
from broker.issuance.settings import IssuanceSettings
from broker.protocol.challenges import Observation, judge_challenge
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import (
    AccountStatus,
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

__all__ = ["Authorizations"]

PASSING_FAULTS = frozenset({"dns", "connection", "timeout"})
"""Kinds of failure that a second look may not meet: the client may just have been slow."""


class Authorizations:
    """The authorization workflow."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        accounts: AccountStore,
        planner: Planner,
        validator: Validator,
        dispatcher: Dispatcher,
        clock: Clock,
        settings: IssuanceSettings,
        account_url: AccountUrl | None = None,
        freezes: Freezes | None = None,
    ) -> None:
        self._orders, self._freezes = orders, freezes
        self._accounts = accounts
        self._planner = planner
        self._validator = validator
        self._account_url = account_url
        self._dispatcher = dispatcher
        self._clock = clock
        self._settings = settings
        self._reading = AuthorizationReading(orders, dispatcher, clock)

    async def read(self, account: AccountRecord, authorization_id: str) -> AuthorizationRecord:
        """Return the account's own authorization, having waited a moment for a look at it."""
        return await self._reading.read(account, authorization_id)

    async def respond(
        self, account: AccountRecord, authorization_id: str, challenge_id: str
    ) -> AuthorizationRecord:
        """Take the client's word that the answer is in place, and queue the look.

        A challenge that has been responded to is answered as it stands: many responses lead to
        one validation and one final state.  While it waits for another look after one that
        failed, that look is taken at once (RFC 8555 §8.2); it counts like any other.
        """
        authorization = await self._reading.load(account, authorization_id)
        challenge = find_challenge(authorization, challenge_id)
        if challenge is None:
            raise Problem(ProblemType.MALFORMED, "no such challenge here", status=404)
        is_open = authorization.status is AuthorizationStatus.PENDING
        if is_open and challenge.status is ChallengeStatus.PROCESSING:
            self._dispatcher.hurry(JobKind.VALIDATE, look_subject(authorization, challenge))
        if not is_open or challenge.status is not ChallengeStatus.PENDING:
            return authorization
        await verify_unfrozen(self._freezes, account, "challenge")
        subject = look_subject(authorization, challenge)
        job = Job(kind=JobKind.VALIDATE, subject=subject, due_at=self._clock.now())
        changed = replace(
            challenge, status=advance_challenge(challenge.status, ChallengeEvent.RESPONDED)
        )
        change = ChallengeChange(
            authorization_id=authorization_id,
            challenge=changed,
            expected=challenge.status,
            authorization_status=authorization.status,
            authorization_expected=authorization.status,
            attached=Attached(
                events=(self._event(EventKind.CHALLENGE_RESPONDED, authorization, challenge),),
                jobs=(job,),
            ),
        )
        try:
            await self._orders.change_challenge(change, durable=False)
        except Conflict:
            return await self._reading.load(account, authorization_id)
        self._dispatcher.kick(job)
        return with_challenge(authorization, changed)

    async def deactivate(
        self, account: AccountRecord, authorization_id: str
    ) -> AuthorizationRecord:
        """Give up an authorization (RFC 8555 §7.5.2); its unfinished order ends with it."""
        found = await self._reading.load(account, authorization_id)
        if found.status not in (AuthorizationStatus.PENDING, AuthorizationStatus.VALID):
            return found
        status = advance_authorization(found.status, AuthorizationEvent.DEACTIVATED)
        problem = Problem(ProblemType.UNAUTHORIZED, "an authorization of it was deactivated")
        order_status = advance_order(OrderStatus.PENDING, OrderEvent.AUTHORIZATION_FAILED)
        try:
            await self._orders.change_authorization(
                authorization_id,
                expected=found.status,
                status=status,
                order_expected=(OrderStatus.PENDING, OrderStatus.READY),
                order_status=order_status,
                order_error=problem.to_json(),
                events=(self._event(EventKind.AUTHORIZATION_DEACTIVATED, found, None),),
            )
        except Conflict:
            # It has become valid or invalid meanwhile; what was asked for still is.
            return await self.deactivate(account, authorization_id)
        return replace(found, status=status)

    # ------------------------------------------------------------------------------- validation

    async def validate(self, job: Job) -> Ending | None:
        """Go and look, judge, and carry the verdict on: the handler of VALIDATE jobs."""
        authorization_id, _, challenge_id = job.subject.partition("/")
        authorization = await self._orders.load_authorization(authorization_id)
        challenge = authorization and find_challenge(authorization, challenge_id)
        if authorization is None or not challenge:
            return None
        is_open = authorization.status is AuthorizationStatus.PENDING
        if not is_open or challenge.status is not ChallengeStatus.PROCESSING:
            # Another challenge of it has decided already, or this one has.
            return None
        order = await self._order_of(authorization)
        account = await self._accounts.find_account(authorization.account_id)
        if account is None:
            return None
        ends_at = authorization.expires_at if order is None else order.expires_at
        if account.status is not AccountStatus.VALID or ends_at <= self._clock.now():
            ended = Problem(ProblemType.UNAUTHORIZED, "its order or account has ended meanwhile")
            await self._carry_invalid(authorization, challenge, ended)
            return None
        observation = await self._look(authorization, challenge, account)
        verdict = judge_challenge(
            challenge.type,
            token=challenge.token,
            thumbprint=account.thumbprint,
            observation=observation,
        )
        if verdict.problem is None:
            return await self._carry_valid(order, authorization, challenge)
        pause = self._pause_before_retry(job, observation)
        if pause is None:
            await self._carry_invalid(authorization, challenge, verdict.problem)
            return None
        await self._show_failure(authorization, challenge, verdict.problem)
        raise Postponed(self._clock.now() + pause, verdict.problem.detail)

    async def _look(
        self, authorization: AuthorizationRecord, challenge: ChallengeRecord, account: AccountRecord
    ) -> Observation:
        """Return what is seen of the answer that the account's key of this moment would give."""
        return await self._validator.observe(
            Question(
                community=authorization.community,
                type=challenge.type,
                identifier=authorization.identifier,
                token=challenge.token,
                thumbprint=account.thumbprint,
                account_url=None if self._account_url is None else self._account_url(account),
            )
        )

    async def _order_of(self, authorization: AuthorizationRecord) -> OrderRecord | None:
        """Return the order of an authorization; None for one that was made ahead of any."""
        if authorization.order_id is None:
            return None
        order = await self._orders.load_order(authorization.order_id)
        if order is None:
            raise LookupError(f"order {authorization.order_id} vanished from the store")
        return order

    def _pause_before_retry(self, job: Job, observation: Observation) -> timedelta | None:
        """Return when to look again after a fault that may pass; None when that is over."""
        failure = observation.failure
        pauses = self._settings.validation_retries
        if failure is None or failure.kind not in PASSING_FAULTS or job.attempts >= len(pauses):
            return None
        return pauses[job.attempts]

    async def _show_failure(
        self,
        authorization: AuthorizationRecord,
        challenge: ChallengeRecord,
        problem: Problem,
    ) -> None:
        """Keep why the look failed, while the challenge stays PROCESSING (RFC 8555 §8.2)."""
        status = advance_challenge(challenge.status, ChallengeEvent.LOOK_FAILED)
        change = ChallengeChange(
            authorization_id=authorization.authorization_id,
            challenge=replace(challenge, status=status, error=problem.to_json()),
            expected=challenge.status,
            authorization_status=authorization.status,
            authorization_expected=authorization.status,
        )
        with contextlib.suppress(Conflict):  # the authorization was given up meanwhile
            await self._orders.change_challenge(change, durable=False)

    async def _carry_valid(
        self,
        order: OrderRecord | None,
        authorization: AuthorizationRecord,
        challenge: ChallengeRecord,
    ) -> Ending | None:
        work = await self._plan(order) if order is not None else None
        now = self._clock.now()
        change = ChallengeChange(
            authorization_id=authorization.authorization_id,
            challenge=replace(
                challenge,
                status=advance_challenge(challenge.status, ChallengeEvent.VALIDATED),
                validated_at=now,
                error=None,
            ),
            expected=challenge.status,
            authorization_status=advance_authorization(
                authorization.status, AuthorizationEvent.CHALLENGE_VALID
            ),
            authorization_expected=authorization.status,
            authorization_proof=Proof.CHALLENGE,
            when_all_valid=(
                advance_order(OrderStatus.PENDING, OrderEvent.AUTHORIZED) if order else None
            ),
            attached=Attached(
                events=(self._event(EventKind.CHALLENGE_VALID, authorization, challenge),),
                done=((JobKind.VALIDATE, look_subject(authorization, challenge)),),
            ),
            attached_when_ready=self._when_ready(order, work, now) if order else Attached(),
        )
        try:
            is_ready = await self._orders.change_challenge(change, durable=False)
        except Conflict:
            return None
        if is_ready and work is not None and work.is_prepared:
            self._dispatcher.kick(work.job())
        return Ending.WRITTEN

    def _when_ready(self, order: OrderRecord, work: WorkPlan | None, now: datetime) -> Attached:
        attached = work.attached() if work is not None else Attached()
        event = Event(
            kind=EventKind.ORDER_READY,
            at=now,
            actor=SYSTEM,
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
        )
        return replace(attached, events=(event,))

    async def _plan(self, order: OrderRecord) -> WorkPlan | None:
        """Return the upstream work to begin early, judged afresh; None when policy says no by now.

        Nothing is refused here: finalize judges again, and tells the client.
        """
        if not self._planner.is_begun_early(order):
            return None
        account = await self._accounts.find_account(order.account_id)
        if account is None:
            return None
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
        plan = self._planner.decide(self._planner.settled(facts, order)).plan
        return None if plan is None else await self._planner.plan_early(order, plan)

    async def _carry_invalid(
        self,
        authorization: AuthorizationRecord,
        challenge: ChallengeRecord,
        problem: Problem,
    ) -> None:
        told = Problem(
            ProblemType.UNAUTHORIZED,
            f"authorization of {authorization.identifier} failed: {problem.detail}",
            subproblems=[
                Problem(
                    problem.type or ProblemType.UNAUTHORIZED,
                    problem.detail,
                    identifier=authorization.identifier,
                )
            ],
        )
        change = ChallengeChange(
            authorization_id=authorization.authorization_id,
            challenge=replace(
                challenge,
                status=advance_challenge(challenge.status, ChallengeEvent.FAILED),
                error=problem.to_json(),
            ),
            expected=challenge.status,
            authorization_status=advance_authorization(
                authorization.status, AuthorizationEvent.CHALLENGE_INVALID
            ),
            authorization_expected=authorization.status,
            when_failed=advance_order(OrderStatus.PENDING, OrderEvent.AUTHORIZATION_FAILED),
            order_error=told.to_json(),
            attached=Attached(
                events=(
                    self._event(
                        EventKind.CHALLENGE_INVALID, authorization, challenge, problem=problem
                    ),
                ),
                done=((JobKind.VALIDATE, look_subject(authorization, challenge)),),
            ),
        )
        try:
            await self._orders.change_challenge(change, durable=True)
        except Conflict:
            return

    def _event(
        self,
        kind: EventKind,
        authorization: AuthorizationRecord,
        challenge: ChallengeRecord | None,
        *,
        problem: Problem | None = None,
    ) -> Event:
        data: dict[str, object] = {"identifier": str(authorization.identifier)}
        if challenge is not None:
            data["challenge"] = str(challenge.type)
        if problem is not None:
            data["problem"] = problem.token
            data["detail"] = problem.detail
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=Actor(f"account:{authorization.account_id}"),
            community=authorization.community,
            account_id=authorization.account_id,
            order_id=authorization.order_id,
            data=data,
        )
