"""The upstream half of an order: open, authorize, finalize, fetch, judge, keep.

Each upstream step is durable before the next.  No answer is no event: the order stays PROCESSING
and the job comes again.  Only a refusal, by the upstream or by the release gate, ends it.

What is promised after a crash anywhere: at most one finalize is ever accepted for one of our
orders, because an upstream order is taken by at most one of ours, a second upstream order is
opened only after the CA has said that the first will never issue, and finalize is sent only to
an order that the CA shows as READY.  A newOrder whose answer was lost is sought at the CA; what
cannot be found there is counted, and was never finalized.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, NoReturn

from broker.issuance.approval_hold import ApprovalHold
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher, Ending, Postponed
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.failover import Failover
from broker.issuance.freezes import Freezes
from broker.issuance.hold import Hold
from broker.issuance.opening import Held, Opening
from broker.issuance.ports import (
    Clock,
    OrderStore,
    Upstream,
    UpstreamOrder,
    Upstreams,
    UpstreamStore,
    WorkStore,
)
from broker.issuance.records import Job, JobKind, OrderRecord, WorkRecord, WorkStatus
from broker.issuance.release import Gate
from broker.issuance.settings import IssuanceSettings
from broker.issuance.young import Young
from broker.protocol.certificates import ChainError
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus

__all__ = ["Fulfilment"]

POLL_PAUSES: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
"""Seconds between polls of an upstream order that names no Retry-After; the last one repeats."""

CHAIN_ATTEMPTS: Final = 3
"""How often a download that is no certificate chain is asked for again before the order ends."""

ALTERNATE_ATTEMPTS: Final = 12
"""Runs in which other chains are waited for that cannot be reached: about two minutes, after
which the first chain is judged without them."""

CHAIN_PAUSE_SECONDS: Final = 1.0
"""Pause before such a download is repeated."""

HELD_WAIT: Final = timedelta(seconds=60)
"""How long an order waits for the one that uses the same order of a coalescing CA."""

LONGEST_HELD_PAUSE_SECONDS: Final = 60.0
"""Longest pause before the CA is asked again for an order that nobody else is using."""

LONGEST_POLL_PAUSE_SECONDS: Final = 300.0
"""Longest pause between runs that poll an order which stays in processing for hours."""

Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds; asyncio.sleep outside tests."""


class Fulfilment:
    """Handlers of the PREPARE and FULFIL jobs."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        works: WorkStore,
        upstream_store: UpstreamStore,
        upstreams: Upstreams,
        gate: Gate,
        closing: Closing,
        dispatcher: Dispatcher,
        clock: Clock,
        settings: IssuanceSettings,
        pause: Pause = asyncio.sleep,
        failover: Failover | None = None,
        young: Young | None = None,
        approvals: ApprovalHold | None = None,
        freezes: Freezes | None = None,
    ) -> None:
        self._approvals = approvals
        self._hold = Hold(upstream_store, clock, freezes)
        self._failover, self._young = failover, young
        self._orders, self._works = orders, works
        self._upstreams = upstreams
        self._gate = gate
        self._closing = closing
        self._dispatcher = dispatcher
        self._clock = clock
        self._settings = settings
        self._pause = pause
        self._opening = Opening(works, closing, clock)

    # -------------------------------------------------------------------------------- handlers

    async def prepare(self, job: Job) -> None:
        """Open the upstream order and answer its challenges, ahead of finalize."""
        work = await self._works.load_work(job.subject)
        if work is None or work.taken_by is not None:
            return
        if work.status not in (WorkStatus.INTENDED, WorkStatus.OPENED):
            return
        if work.created_at + self._settings.order_lifetime <= self._clock.now():
            # Whoever it was begun for is gone by now; the CA was away all the time.
            if work.is_sent:
                await self._closing.count_lost(work)
            await self._abandon(work)
            return
        await self._hold.of_work(work)
        upstream = self._upstreams.get(work.upstream, work.community)
        try:
            _, order = await self._opening.open(upstream, work)
        except (Refused, Held):
            # Nobody has asked yet.  The order that finalizes opens its own and hears the reason.
            await self._abandon(work)
            return
        try:
            if order.status is OrderStatus.PENDING:
                order = await upstream.authorize(order)
        except Refused:
            # The CA's order stands; whoever finalizes takes it, tries again and hears the reason.
            return
        if order.status is OrderStatus.INVALID:
            await self._abandon(work)
        self._opening.remember(work, order)

    async def fulfil(self, job: Job) -> Ending | None:
        """Carry an order from our finalize to its certificate."""
        order = await self._orders.load_order(job.subject)
        if order is None or order.status is not OrderStatus.PROCESSING:
            return None
        work = await self._works.work_of_order(order.order_id)
        if work is None:
            raise Broken(f"order {order.order_id} is processing without upstream work")
        await self._dispatcher.paused(JobKind.PREPARE, work.work_id)
        await self._hold.of_requester(order, work)
        if self._failover is not None and job.attempts > 0:
            await self._failover.leave_if_away(order.order_id)
        if await self._is_answered(order, work):
            return Ending.WRITTEN
        await self._hold.of_work(work)
        if self._approvals is not None and await self._approvals.has_ended(order, work):
            return Ending.WRITTEN
        upstream = self._upstreams.get(order.upstream, order.community)
        try:
            work, upstream_order = await self._reach_ready(upstream, order, work)
            if await self._is_answered(order, work, upstream_order.status):
                return Ending.WRITTEN
            work, upstream_order = await self._finalize(upstream, order, work, upstream_order)
            upstream_order = await self._poll(upstream, work, upstream_order, job.attempts)
            await self._fetch(upstream, order, work, upstream_order, job.attempts)
        except Held as held:
            await self._wait_for_holder(job, order, work, held)
        except Unreachable as error:
            if self._failover is not None and error.left_nothing:
                await self._failover.leave_if_away(order.order_id)
            raise
        except Refused as refusal:
            work = await self._works.work_of_order(order.order_id) or work
            await self._closing.refused_upstream(order, work, refusal.problem)
        # Whatever closed the order has dropped the job in the same transaction.
        return Ending.WRITTEN

    # -------------------------------------------------------------------------------- open

    async def _reach_ready(
        self, upstream: Upstream, order: OrderRecord, work: WorkRecord
    ) -> tuple[WorkRecord, UpstreamOrder]:
        work, upstream_order = await self._opening.open(upstream, work, order=order)
        if upstream_order.status is OrderStatus.PENDING:
            upstream_order = await upstream.authorize(upstream_order)
        if upstream_order.status is OrderStatus.INVALID and work.status is WorkStatus.OPENED:
            # It ended before we finalized it, by age perhaps: a new one may still do.
            await self._start_anew(order, work, upstream_order)
        return work, upstream_order

    async def _is_answered(
        self, order: OrderRecord, work: WorkRecord, shown: OrderStatus | None = None
    ) -> bool:
        return self._young is not None and await self._young.has_answered(order, work, shown)

    async def _wait_for_holder(
        self, job: Job, order: OrderRecord, work: WorkRecord, held: Held
    ) -> NoReturn:
        """Wait for another of ours that uses what the CA gave us: then it makes another."""
        if (
            self._young is not None
            and held.work is not None
            and (waiting := await self._young.waiting_for(order, held.order_id))
        ):
            await self._opening.exchange(order, work, held.work, waiting)
        await self._dispatcher.settled(job.kind, held.order_id, HELD_WAIT, aside=job.kind)
        pause = timedelta(seconds=_grown(job.attempts, LONGEST_HELD_PAUSE_SECONDS) - 1)
        at = self._clock.now() + pause
        raise Postponed(at, "another order was using the CA's order for these names") from held

    async def _start_anew(self, order: OrderRecord, work: WorkRecord, ended: UpstreamOrder) -> None:
        """Replace upstream work that ended before finalize, or let its refusal stand."""
        if self._is_refusal(order, work):
            raise Refused(ended.error or _ended("without a reason"))
        await self._works.change_work(
            work.work_id,
            expected=(WorkStatus.OPENED, WorkStatus.FINALIZING),
            status=WorkStatus.DEAD,
            replacement=self._closing.replacement(order, work),
            only_of=order.order_id,
        )
        raise Postponed(self._clock.now(), "upstream order ended before finalize, opening another")

    def _is_refusal(self, order: OrderRecord, work: WorkRecord) -> bool:
        """Return whether an upstream order that ended early ends ours too.

        One that was opened for this very finalize and turned invalid was refused by the CA; one
        that had been prepared earlier may just have grown too old.
        """
        return order.finalized_at is not None and work.created_at >= order.finalized_at

    # -------------------------------------------------------------------------------- finalize

    async def _finalize(
        self,
        upstream: Upstream,
        order: OrderRecord,
        work: WorkRecord,
        upstream_order: UpstreamOrder,
    ) -> tuple[WorkRecord, UpstreamOrder]:
        if order.csr_der is None:
            raise Broken(f"order {order.order_id} is processing without a CSR")
        if upstream_order.status is OrderStatus.PENDING:
            raise Unreachable(f"upstream {work.upstream!r} still shows its order as pending")
        if upstream_order.status is OrderStatus.READY and work.status is not WorkStatus.ACCEPTED:
            await self._hold.of_finalize(order, work)  # a CA can take minutes to be ready
            if self._approvals is not None:
                await self._approvals.verify_kept(order, work)
            is_first = work.status is WorkStatus.OPENED
            work = await self._mark(upstream, work, WorkStatus.FINALIZING)
            try:
                upstream_order = await upstream.finalize(upstream_order, order.csr_der)
            except Refused as refusal:
                upstream_order = await self._opening.read_refused(upstream, work, refusal)
                if is_first and _had_ended(refusal, upstream_order):
                    # It ended after it was seen to be ready, and before this finalize.
                    await self._start_anew(order, work, upstream_order)
            except (Unreachable, Broken) as error:
                if is_first and error.left_nothing:
                    await self._unmark(upstream, work)
                raise
        if upstream_order.status is not OrderStatus.INVALID:
            work = await self._mark(upstream, work, WorkStatus.ACCEPTED)
        return work, upstream_order

    async def _mark(self, upstream: Upstream, work: WorkRecord, status: WorkStatus) -> WorkRecord:
        """Note how far finalize got, without fsync: the CA is asked again after a power cut."""
        if upstream.is_local or work.status is status:
            return work
        await self._works.change_work(
            work.work_id,
            expected=(WorkStatus.OPENED, WorkStatus.FINALIZING, WorkStatus.ACCEPTED),
            status=status,
            only_of=work.taken_by,
            durable=False,
        )
        return replace(work, status=status)

    async def _unmark(self, upstream: Upstream, work: WorkRecord) -> None:
        """Note that no finalize has reached the CA: the order can still be given up for another,
        should our account there be lost."""
        if upstream.is_local:
            return
        await self._works.change_work(
            work.work_id,
            expected=(WorkStatus.FINALIZING,),
            status=WorkStatus.OPENED,
            durable=False,
        )

    async def _poll(
        self, upstream: Upstream, work: WorkRecord, order: UpstreamOrder, attempts: int
    ) -> UpstreamOrder:
        """Return the order once it is VALID; raises Refused when it turns INVALID.

        READY after an accepted finalize is a quirk that some CAs have; it is polled like
        PROCESSING and never finalized again.
        """
        deadline = self._clock.now() + self._settings.poll_deadline
        step = 0
        while order.status is not OrderStatus.VALID:
            if order.status is OrderStatus.INVALID:
                raise Refused(order.error or _ended("after it was finalized"))
            now = self._clock.now()
            named = (order.retry_at - now).total_seconds() if order.retry_at else 0.0
            wait = max(named, POLL_PAUSES[min(step, len(POLL_PAUSES) - 1)])
            if now + timedelta(seconds=wait) >= deadline:
                grown = _grown(attempts, LONGEST_POLL_PAUSE_SECONDS)
                at = now + timedelta(seconds=max(wait, grown))
                raise Postponed(at, f"upstream order is still {order.status}")
            await self._pause(wait)
            order = await self._opening.read(upstream, work)
            step += 1
        return order

    # -------------------------------------------------------------------------------- the end

    async def _fetch(
        self,
        upstream: Upstream,
        order: OrderRecord,
        work: WorkRecord,
        upstream_order: UpstreamOrder,
        attempts: int,
    ) -> None:
        fault = ""
        for attempt in range(CHAIN_ATTEMPTS):
            if attempt:
                await self._pause(CHAIN_PAUSE_SECONDS)
            pem = await self._download(upstream, work, upstream_order)
            alternates = await self._alternates(upstream, order, upstream_order, attempts)
            try:
                received = await self._gate.judge(order, pem, alternates)
            except ChainError as error:
                fault = str(error)
                continue
            if received.findings:
                await self._closing.withheld(order, work, received)
            else:
                await self._closing.issued(order, work, received, is_local=upstream.is_local)
            return
        await self._closing.unusable_chain(order, work, fault)

    async def _download(
        self, upstream: Upstream, work: WorkRecord, upstream_order: UpstreamOrder
    ) -> bytes:
        try:
            return await upstream.download(upstream_order)
        except Refused as refusal:
            # It was issued, and this order is the only one that will ever look for it.
            raise Broken(
                f"upstream {work.upstream!r} keeps back the certificate of a valid order: "
                f"{refusal.problem.detail}"
            ) from refusal

    async def _alternates(
        self, upstream: Upstream, order: OrderRecord, upstream_order: UpstreamOrder, attempts: int
    ) -> Sequence[bytes]:
        """Return the other chains; a CA that refuses or garbles them has none.

        Where something depends on them, one that cannot be reached is asked for again with all
        the rest, a bounded number of times: the chain that is served never changes once it is.
        """
        if upstream.is_local:
            return ()
        try:
            return await upstream.download_alternates(upstream_order)
        except Unreachable:
            if attempts < ALTERNATE_ATTEMPTS and self._gate.is_choosing(order):
                raise
        except (Refused, Broken):
            pass
        return ()

    async def _abandon(self, work: WorkRecord) -> None:
        try:
            await self._works.change_work(
                work.work_id,
                expected=(WorkStatus.INTENDED, WorkStatus.OPENED),
                status=WorkStatus.DEAD,
                only_untaken=True,
                durable=False,
            )
        except Conflict:
            return


def _ended(when: str) -> Problem:
    return Problem(ProblemType.SERVER_INTERNAL, f"the upstream order turned invalid {when}")


def _had_ended(refusal: Refused, seen: UpstreamOrder) -> bool:
    """Return whether an order that shows as *seen* was INVALID before its finalize was refused."""
    is_early = refusal.problem.type is ProblemType.ORDER_NOT_READY
    return is_early and seen.status is OrderStatus.INVALID


def _grown(attempts: int, longest_seconds: float) -> float:
    """Return seconds that double with each attempt, from one on."""
    return min(2.0 ** min(attempts, 16), longest_seconds)
