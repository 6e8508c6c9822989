"""newOrder at the CA: sent by one task at a time, sought when its answer was lost, never shared.

A CA may hand the same pending order to everyone who asks for the same names (RFC 8555 §7.4
forbids it nowhere).  Each of its orders serves one of ours: what nobody has taken is taken over,
what somebody has is waited for.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NoReturn

from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.locks import NamedLocks
from broker.issuance.ports import Clock, Upstream, UpstreamOrder, UpstreamRequest, WorkStore
from broker.issuance.records import OrderRecord, WorkRecord, WorkStatus
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus

__all__ = ["Held", "Opening"]


SEEN_TIME: Final = timedelta(seconds=5)
"""How long an order that the CA showed as READY is believed to be so without asking again.

A client that waits for nobody finalizes within a second of its last challenge; no CA lets a ready
order go that soon.
"""

MAX_SEEN: Final = 4096
"""Most orders that are remembered so; one that is forgotten costs one more request."""


MAX_FAULTED: Final = 1024
"""Most works of which it is remembered that the CA had a fault with what they replace; one that is
forgotten costs one more request."""


class Held(Exception):
    """The CA handed out an upstream order that another record has.

    ``order_id`` is the order of ours to wait for; empty when nobody has taken that record.
    ``work`` is that record, if it would do for who was handed it and no finalize of it was
    accepted.
    """

    def __init__(self, order_id: str, work: WorkRecord | None = None) -> None:
        super().__init__(order_id)
        self.order_id = order_id
        self.work = work


class Opening:
    """Gets upstream work its order at the CA."""

    def __init__(self, works: WorkStore, closing: Closing, clock: Clock) -> None:
        self._works = works
        self._closing = closing
        self._clock = clock
        self._asking = NamedLocks()
        self._seen: dict[str, tuple[UpstreamOrder, datetime]] = {}
        self._faulted: dict[str, None] = {}

    def remember(self, work: WorkRecord, order: UpstreamOrder) -> None:
        """Keep what the CA showed just now of *work*, so that finalize need not ask again.

        Only an order that was READY is of use, once and for `SEEN_TIME`.
        """
        if order.status is not OrderStatus.READY:
            return
        if len(self._seen) >= MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[work.work_id] = order, self._clock.now()

    def _recall(self, work: WorkRecord) -> UpstreamOrder | None:
        """Return the order as the CA showed it moments ago, if nothing was done to it since."""
        order, at = self._seen.pop(work.work_id, (None, self._clock.now()))
        is_fresh = self._clock.now() - at < SEEN_TIME
        if order is None or not is_fresh or work.status is not WorkStatus.OPENED:
            return None
        return order if order.url == work.order_url else None

    async def open(
        self, upstream: Upstream, work: WorkRecord, *, order: OrderRecord | None = None
    ) -> tuple[WorkRecord, UpstreamOrder]:
        """Return the work as it is now with its order at the CA, opened if it has to be.

        *order* is the one of ours that is being fulfilled.  Without it nothing is taken over and
        nothing withdrawn, even if the work has been taken since it was read.

        Raises:
            Held: Another record has the order that the CA handed out.
            Postponed: The order has other work by now; read it again.
        """
        names = ",".join(str(one) for one in work.identifiers)
        async with self._asking.hold(f"{work.upstream}|{work.community}|{names}"):
            fresh = await self._works.load_work(work.work_id)
            is_elses = order is not None and fresh is not None and fresh.taken_by != order.order_id
            if fresh is None or is_elses or fresh.status is WorkStatus.DEAD:
                raise Postponed(self._clock.now(), "its upstream work was replaced meanwhile")
            if fresh.order_url is not None:
                return fresh, self._recall(fresh) or await self.read(upstream, fresh)
            return await self._open_new(upstream, fresh, order)

    async def read(self, upstream: Upstream, work: WorkRecord) -> UpstreamOrder:
        """Return the order at the CA as it is now.

        One that the CA has forgotten is as good as INVALID, if it was never finalized.

        Raises:
            Broken: The CA knows nothing of an order that it may have accepted a finalize for.
        """
        if work.order_url is None:
            raise Broken(f"work {work.work_id} has no upstream order to read")
        try:
            order = await upstream.read_order(work.order_url)
        except Refused as refusal:
            if work.status is WorkStatus.OPENED:
                return UpstreamOrder(
                    url=work.order_url,
                    status=OrderStatus.INVALID,
                    identifiers=work.identifiers,
                    error=refusal.problem,
                )
            raise Broken(
                f"upstream {work.upstream!r} no longer knows an order that it had accepted: "
                f"{refusal.problem.detail}"
            ) from refusal
        if set(order.identifiers) != set(work.identifiers):
            # Believing it would finalize, or revoke, what belongs to somebody else.
            raise Broken(f"upstream {work.upstream!r} shows an order that is for other names")
        return order

    async def read_refused(
        self, upstream: Upstream, work: WorkRecord, refusal: Refused
    ) -> UpstreamOrder:
        """Return the order if its finalize was accepted all the same; raises *refusal* if not.

        A CA may refuse the finalize of an order that an earlier one has moved on already.
        """
        seen = await self.read(upstream, work)
        if seen.status not in (OrderStatus.READY, OrderStatus.PENDING):
            return seen
        if refusal.problem.type is ProblemType.ORDER_NOT_READY and seen.status is OrderStatus.READY:
            # The two answers contradict each other, so neither is a refusal to issue.
            raise Unreachable(
                f"upstream {work.upstream!r} shows its order as ready and refuses to finalize it",
                retry_at=seen.retry_at,
            )
        raise refusal from None

    async def _open_new(
        self, upstream: Upstream, work: WorkRecord, order: OrderRecord | None
    ) -> tuple[WorkRecord, UpstreamOrder]:
        request = UpstreamRequest(
            reference=work.work_id,
            identifiers=work.identifiers,
            profile=work.upstream_profile,
            not_after=work.not_after,
            replaces=work.replaces,
        )
        found = None
        if work.is_sent:
            known = await self._works.known_urls(work.upstream, work.community)
            found = await upstream.seek_order(request, known)
            if found is None:
                await self._closing.count_lost(work)
        opened = found or await self._send(upstream, work, request)
        kept = await self._works.record_opened(
            work.work_id,
            opened.url,
            self._event(work, EventKind.UPSTREAM_ORDER_OPENED),
            durable=not upstream.is_local,
            account_url=opened.account_url,
        )
        if kept.work_id == work.work_id:
            return kept, opened
        # The answer has come, and it made nothing new: there is nothing left to be sought.
        await self._works.mark_sent(work.work_id, is_sent=False)
        await self._take_over(upstream, work, kept, opened, order)
        raise Postponed(self._clock.now(), "took over an upstream order that nobody had taken")

    async def _send(
        self, upstream: Upstream, work: WorkRecord, request: UpstreamRequest
    ) -> UpstreamOrder:
        if upstream.is_local:
            # Nothing of it can be lost: the same request always has the same order there.
            return await self._ask(upstream, work, request)
        await self._works.mark_sent(work.work_id, is_sent=True)
        try:
            return await self._ask(upstream, work, request)
        except Unreachable as error:
            if error.left_nothing:
                await self._works.mark_sent(work.work_id, is_sent=False)
            raise

    async def _ask(
        self, upstream: Upstream, work: WorkRecord, request: UpstreamRequest
    ) -> UpstreamOrder:
        """Send newOrder, without ``replaces`` where the CA refuses that alone, or chokes on it.

        A renewal may do without being marked as one; it may not wait until its certificate ends
        for a CA that answers 500 to a certificate which it does not find.
        """
        if work.work_id in self._faulted:
            del self._faulted[work.work_id]
            await self._drop_replaces(work, ProblemType.SERVER_INTERNAL.token)
            return await upstream.open_order(replace(request, replaces=None))
        try:
            return await upstream.open_order(request)
        except Unreachable as error:
            if error.is_fault and request.replaces is not None:
                if len(self._faulted) >= MAX_FAULTED:
                    del self._faulted[next(iter(self._faulted))]
                self._faulted[work.work_id] = None
            raise
        except Refused as refusal:
            if request.replaces is None or not _is_about_replaces(refusal.problem):
                raise
            await self._drop_replaces(work, refusal.problem.token)
        return await upstream.open_order(replace(request, replaces=None))

    async def _drop_replaces(self, work: WorkRecord, why: str) -> None:
        event = self._event(work, EventKind.REPLACES_DROPPED, work.taken_by)
        told = {"type": why, "replaces": work.replaces}
        await self._closing.note(replace(event, data={**event.data, **told}))

    async def _withdraw(
        self, upstream: Upstream, holder: WorkRecord, opened: UpstreamOrder
    ) -> NoReturn:
        """End an upstream order that nobody took and that the CA hands to everyone.

        It was asked for another end of validity than is wanted now, so it serves nobody here;
        should its own order come to finalize after all, it begins another.
        """
        # First at the CA: were the record dead before, the CA's order would look like nobody's.
        await upstream.withdraw(opened)
        with suppress(Conflict):
            await self._works.change_work(
                holder.work_id,
                expected=(WorkStatus.OPENED,),
                status=WorkStatus.DEAD,
                only_untaken=True,
                durable=False,
            )
        raise Postponed(self._clock.now(), "withdrew an upstream order that nobody had taken")

    async def _take_over(
        self,
        upstream: Upstream,
        work: WorkRecord,
        holder: WorkRecord,
        opened: UpstreamOrder,
        order: OrderRecord | None,
    ) -> None:
        """Give *order* the record *holder* in place of *work*, or raise Held."""
        is_open = opened.status in (OrderStatus.PENDING, OrderStatus.READY)
        if holder.status is WorkStatus.SPENT and is_open:
            raise Broken(f"upstream {work.upstream!r} handed out a finished order again")
        is_unfinalized = holder.status is WorkStatus.OPENED and is_open
        is_free = holder.status is WorkStatus.OPENED and holder.taken_by is None
        if order is None or not is_free:
            would_do = order is not None and (
                holder.work_key == work.work_key or _is_fitting(holder, work, order.not_after)
            )
            raise Held(holder.taken_by or "", holder if is_unfinalized and would_do else None)
        if not _is_fitting(holder, work, order.not_after):
            await self._withdraw(upstream, holder, opened)
        try:
            await self._works.adopt_work(
                order.order_id,
                work_id=holder.work_id,
                instead_of=work.work_id,
                event=self._event(holder, EventKind.UPSTREAM_ORDER_ADOPTED, order.order_id),
            )
        except Conflict as lost:
            raise Held(holder.taken_by or "") from lost

    async def exchange(
        self, order: OrderRecord, work: WorkRecord, held: WorkRecord, waiting: OrderRecord
    ) -> None:
        """Give *order* the record *held* of the order *waiting*, which begins another.

        Raises:
            Postponed: It has it now.
            Conflict: The other went on meanwhile.
        """
        await self._works.adopt_work(
            order.order_id,
            work_id=held.work_id,
            instead_of=work.work_id,
            event=self._event(held, EventKind.UPSTREAM_ORDER_ADOPTED, order.order_id),
            in_exchange=self._closing.replacement(waiting, held),
        )
        raise Postponed(self._clock.now(), "took over the upstream order of one that waits for it")

    def _event(self, work: WorkRecord, kind: EventKind, order_id: str | None = None) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            community=work.community,
            order_id=order_id or work.taken_by,
            upstream=work.upstream,
            data={"work_id": work.work_id},
        )


def _is_about_replaces(problem: Problem) -> bool:
    """Return whether a CA refused what is replaced rather than what is ordered.

    alreadyReplaced is the standard's word (RFC 9773 §5); of a certificate that it does not know,
    a CA says malformed and names the member.
    """
    if problem.type is ProblemType.ALREADY_REPLACED:
        return True
    return problem.type is ProblemType.MALFORMED and "replaces" in problem.detail.lower()


def _is_fitting(holder: WorkRecord, work: WorkRecord, named_end: datetime | None) -> bool:
    """Return whether *holder* asked the CA for what *work* would ask for.

    An earlier end than would be asked for costs lifetime; a later one, or none, would be a
    breach of the cap, and one that differs from the client's own a change of what was asked.
    """
    if holder.upstream_profile != work.upstream_profile:
        return False
    if holder.replaces not in (None, work.replaces):
        # It would mark somebody else's certificate as replaced by this one.
        return False
    if work.not_after is None or holder.not_after is None or named_end is not None:
        return holder.not_after == work.not_after
    return holder.not_after <= work.not_after
