"""The same CSR again: its account gets the certificate that it has, while that one is young.

A client that lost the answer, or begins anew in a loop, asks for what exists already.  Issuing it
once more would cost the CA's limits and bring nobody anything: the key is the same.  No private
key is kept for this; who sends the CSR has it.

How young is young says policy, by profile.  A certificate that is revoked, replaced, to be renewed
now or too long for the cap of today is never handed out again, nor one that was asked for under
another policy: its CA or its usages may not be allowed any more.

Of several orders at once the one that was claimed first is issued, and the others wait for it; not
for ever, and hardly at all where they would go to another CA than the one that keeps it waiting.
Waiting can be wrong for nobody whose finalize was not sent.  A certificate is given only to who
has none under way: its work is as it was left in this process, or the CA shows it as READY.

Whatever kept them all waiting, an outage, a freeze or a broker that was off, ends for them at one
moment, when the time of each may be over.  So who would go on looks again once its CA answers it,
and leaves those that are ahead their turn.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.ports import CertificateStore, Clock, OrderStore, Policies, WorkStore
from broker.issuance.quota_ports import YoungStore
from broker.issuance.records import (
    CertificateRecord,
    JobKind,
    OrderRecord,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.renewal_ports import RenewalStore
from broker.issuance.witness import Witness
from broker.protocol.resources import OrderStatus

__all__ = ["Young"]

YOUNG_SHARE: Final = 10
"""A certificate is young for a tenth of its lifetime at the most, whatever policy says: whoever
gets it again would lose more of it."""

SIBLING_WAIT: Final = timedelta(seconds=60)
"""How long an order waits at a time for an earlier one with the same CSR."""

WAIT_ELSEWHERE: Final = timedelta(seconds=120)
"""How long an order waits for one that is with another CA: twice what a CA that answers may take to
validate.  One that is gone may be so for days, with a finalize that it has heard."""

WAIT_THERE: Final = timedelta(days=1)
"""How long an order waits for one that is with its own CA; by then somebody was told that it
stands still.  For whom that CA has not even opened an order it begins anew once the first is seen
to have got on there: until then nobody would fare better."""

TURN: Final = timedelta(minutes=20)
"""How long the first has with a CA that answers, though the others' time is over: twice the longest
pause after which an order comes again by itself."""

LONGEST_LOOK: Final = timedelta(minutes=2)
"""Most that counts of the time between two answers of a CA, which may have been away between them:
twice the pause between two looks."""

MAX_GOT_ON: Final = 1024
"""Most orders of which it is remembered since when their CA was seen to work on them; who waits for
one that is forgotten counts anew, and so it is after a restart."""

SIBLING_PAUSE: Final = timedelta(seconds=5)
"""Pause before that one is looked at again."""


class Young:
    """Answers orders with certificates that are there."""

    def __init__(
        self,
        *,
        store: YoungStore,
        orders: OrderStore,
        works: WorkStore,
        certificates: CertificateStore,
        renewals: RenewalStore,
        policies: Policies,
        closing: Closing,
        dispatcher: Dispatcher,
        clock: Clock,
        witness: Witness,
    ) -> None:
        self._store = store
        self._orders = orders
        self._works = works
        self._certificates = certificates
        self._renewals = renewals
        self._policies = policies
        self._closing = closing
        self._dispatcher = dispatcher
        self._clock = clock
        self._witness = witness
        self._got_on: dict[str, datetime] = {}
        self._turns: dict[str, tuple[timedelta, datetime]] = {}

    async def has_answered(
        self, order: OrderRecord, work: WorkRecord, shown: OrderStatus | None = None
    ) -> bool:
        """Answer *order* with a young certificate for the same CSR; return whether there was one.

        *shown* is how the CA shows its order now: while that is READY it has accepted no finalize.
        Before it is known, one that an earlier process has claimed does no more than wait.  Once it
        is, an earlier order still has its turn, and what came of it meanwhile is the answer.

        Raises:
            Postponed: An earlier order of the account with this CSR is under way.
        """
        within = self._within(order)
        if within is None or work.status not in (WorkStatus.INTENDED, WorkStatus.OPENED):
            return False
        is_unfinalized = self._witness.is_unfinalized(order, work)
        if shown is not None and shown is not OrderStatus.READY:
            return False  # it may have been asked for already
        since = self._clock.now() - within
        for order_id in await self._store.sibling_orders(order, since):
            sibling = await self._orders.load_order(order_id)
            if sibling is None or not _is_alike(sibling, order):
                continue
            if sibling.status is OrderStatus.PROCESSING:
                if await self._is_worth_waiting(order, work, sibling, shown):
                    await self._wait_for(sibling)
                continue
            if not is_unfinalized and shown is None:
                continue
            certificate = await self._fitting(order, sibling, since)
            if certificate is not None:
                await self._closing.answered_again(order, work, certificate)
                return True
        return False

    async def waiting_for(self, order: OrderRecord, order_id: str) -> OrderRecord | None:
        """Return the order of that id if it waits until *order* has ended."""
        other = await self._orders.load_order(order_id)
        if other is None or other.status is not OrderStatus.PROCESSING:
            return None
        if self._within(other) is None or not _is_alike(other, order):
            return None
        ahead = await self._store.sibling_orders(other, self._clock.now())
        return other if order.order_id in ahead else None

    async def _wait_for(self, sibling: OrderRecord) -> None:
        """Wait until *sibling* has ended, for a time; always raises Postponed."""
        kind = JobKind.FULFIL
        await self._dispatcher.settled(kind, sibling.order_id, SIBLING_WAIT, aside=kind)
        at = self._clock.now() + SIBLING_PAUSE
        seen = await self._orders.load_order(sibling.order_id)
        if seen is not None and seen.status is not OrderStatus.PROCESSING:
            at = self._clock.now()
        raise Postponed(at, "another order of the account has this CSR")

    def _within(self, order: OrderRecord) -> timedelta | None:
        profile = self._policies.current(order.community).profiles.get(order.profile)
        asked = order.not_before, order.not_after, order.replaces
        is_as_usual = asked == (None, None, None)
        return profile.same_csr_within if profile is not None and is_as_usual else None

    async def _fitting(
        self, order: OrderRecord, sibling: OrderRecord, since: datetime
    ) -> CertificateRecord | None:
        """Return the sibling's certificate, if *order* may be answered with it."""
        if sibling.certificate_id is None:
            return None
        found = await self._certificates.find_certificate(sibling.certificate_id)
        if found is None or not found.is_released or found.revoked_at is not None:
            return None
        now = self._clock.now()
        lifetime = found.not_after - found.not_before
        if found.received_at < max(since, now - lifetime / YOUNG_SHARE):
            return None
        is_within_cap = found.not_after <= now + timedelta(seconds=order.cap_seconds)
        if not is_within_cap or found.revocation_reason is not None:
            return None
        return None if await self._is_to_be_renewed(found, now) else found

    async def _is_worth_waiting(
        self,
        order: OrderRecord,
        work: WorkRecord,
        sibling: OrderRecord,
        shown: OrderStatus | None,
    ) -> bool:
        """Return whether *order* waits on for *sibling*, which is under way."""
        now = self._clock.now()
        waited = now - (order.finalized_at or now)
        if sibling.upstream != order.upstream:
            return waited < WAIT_ELSEWHERE
        if shown is not None:
            return self._has_its_turn(sibling, now)
        if work.status is not WorkStatus.INTENDED:
            return waited < WAIT_THERE
        theirs = await self._works.work_of_order(sibling.order_id)
        if theirs is not None and theirs.status is WorkStatus.INTENDED:
            return True
        # The CA may be back only now: the day counts from when the first got on there.
        if sibling.order_id not in self._got_on and len(self._got_on) >= MAX_GOT_ON:
            del self._got_on[next(iter(self._got_on))]
        return now - self._got_on.setdefault(sibling.order_id, now) < WAIT_THERE

    def _has_its_turn(self, sibling: OrderRecord, now: datetime) -> bool:
        """Return whether *sibling* may still come to its end first at a CA that answers now.

        Only time in which the CA is seen to answer counts: it may go away again.
        """
        if sibling.order_id not in self._turns and len(self._turns) >= MAX_GOT_ON:
            del self._turns[next(iter(self._turns))]
        had, seen = self._turns.get(sibling.order_id, (timedelta(), now))
        had += min(abs(now - seen), LONGEST_LOOK)
        self._turns[sibling.order_id] = had, now
        return had < TURN

    async def _is_to_be_renewed(self, found: CertificateRecord, now: datetime) -> bool:
        """Return whether clients are told to renew it by now: a client that does so wants another
        one."""
        if found.cert_id is None:
            return False
        for view in await self._renewals.renewal_views(found.community, found.cert_id):
            if view.certificate_id != found.certificate_id:
                continue
            if view.pulled_at is not None:
                return True
            return view.window_start is not None and view.window_start <= now
        return False


def _is_alike(one: OrderRecord, other: OrderRecord) -> bool:
    """Return whether both ask for the same, under the same policy: a certificate for an end that
    was asked for is right for whoever asked for that end."""

    def facts(order: OrderRecord) -> tuple[object, ...]:
        asked = order.community, order.profile, order.not_before, order.not_after
        decided = order.decision
        # Orders of earlier versions keep the document's digest in the place of the set's.
        rules = decided.get("document_sha256", decided.get("policy_sha256"))
        return *asked, set(order.identifiers), rules

    return facts(one) == facts(other)
