"""The same CSR again: its account gets the certificate that it has, while that one is young.

A client that lost the answer, or begins anew in a loop, asks for what exists already.  Issuing it
once more would cost the CA's limits and bring nobody anything: the key is the same.  No private
key is kept for this; who sends the CSR has it.

How young is young says policy, by profile.  A certificate that is revoked, replaced, to be renewed
now or too long for the cap of today is never handed out again, nor one that was asked for under
another policy: its CA or its usages may not be allowed any more.

Of several orders at once the one that was claimed first is issued, and the others wait for it; not
for ever, and hardly at all where they would go to another CA than the one that keeps it waiting.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.failover import is_unfinalized
from broker.issuance.ports import CertificateStore, Clock, OrderStore, Policies
from broker.issuance.quota_ports import YoungStore
from broker.issuance.records import CertificateRecord, JobKind, OrderRecord, WorkRecord
from broker.issuance.renewal_ports import RenewalStore
from broker.protocol.resources import OrderStatus

__all__ = ["Young"]

YOUNG_SHARE: Final = 10
"""A certificate is young for a tenth of its lifetime at the most, whatever policy says: whoever
gets it again would lose more of it."""

SIBLING_WAIT: Final = timedelta(seconds=60)
"""How long an order waits at a time for an earlier one with the same CSR."""

WAIT_ELSEWHERE: Final = timedelta(seconds=60)
"""How long an order waits for one that is with another CA: longer than a CA that answers takes,
and shorter than clients wait.  That CA may be gone for days, with a finalize that it has heard."""

WAIT_THERE: Final = timedelta(days=1)
"""How long an order waits for one that is with its own CA, which keeps both waiting while it is
away; also how old that one may be.  By then somebody was told that it stands still."""

SIBLING_PAUSE: Final = timedelta(seconds=5)
"""Pause before that one is looked at again."""


class Young:
    """Answers orders with certificates that are there."""

    def __init__(
        self,
        *,
        store: YoungStore,
        orders: OrderStore,
        certificates: CertificateStore,
        renewals: RenewalStore,
        policies: Policies,
        closing: Closing,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._store = store
        self._orders = orders
        self._certificates = certificates
        self._renewals = renewals
        self._policies = policies
        self._closing = closing
        self._dispatcher = dispatcher
        self._clock = clock
        self._since = clock.now()

    async def has_answered(self, order: OrderRecord, work: WorkRecord) -> bool:
        """Answer *order* with a young certificate for the same CSR; return whether there was one.

        Raises:
            Postponed: An earlier order of the account with this CSR is under way.
        """
        within = self._within(order)
        if within is None or order.csr_sha256 is None:
            return False
        if not is_unfinalized(order, work, since=self._since):
            return False
        now = self._clock.now()
        # A certificate is young that came a moment ago, however long its order took.
        earliest = now - max(within, WAIT_THERE)
        for order_id in await self._store.sibling_orders(order, earliest):
            sibling = await self._orders.load_order(order_id)
            if sibling is None or not _is_alike(sibling, order):
                continue
            if sibling.status is OrderStatus.PROCESSING:
                if _is_worth_waiting(order, sibling, now):
                    await self._wait_for(sibling)
                continue
            certificate = await self._fitting(order, sibling, now - within)
            if certificate is not None:
                await self._closing.answered_again(order, work, certificate)
                return True
        return False

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
        is_as_usual = order.not_before is None and order.not_after is None
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
        if not _is_under_same_policy(order, sibling):
            return None
        if order.replaces is not None or await self._is_to_be_renewed(found, now):
            return None
        return found

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
    """Return whether both ask for the same: a certificate for an end that was asked for is right
    for whoever asked for that end."""

    def facts(order: OrderRecord) -> tuple[str, str, datetime | None, datetime | None]:
        return order.community, order.profile, order.not_before, order.not_after

    return facts(one) == facts(other) and set(one.identifiers) == set(other.identifiers)


def _is_worth_waiting(order: OrderRecord, sibling: OrderRecord, now: datetime) -> bool:
    """Return whether *order* waits on for *sibling*, which is under way."""
    since = order.finalized_at or now
    longest = WAIT_THERE if sibling.upstream == order.upstream else WAIT_ELSEWHERE
    return now - since < longest


def _is_under_same_policy(one: OrderRecord, other: OrderRecord) -> bool:
    return one.decision.get("policy_sha256") == other.decision.get("policy_sha256")
