"""The same CSR again: its account gets the certificate that it has, while that one is young.

A client that lost the answer, or begins anew in a loop, asks for what exists already.  Issuing it
once more would cost the CA's limits and bring nobody anything: the key is the same.  No private
key is kept for this; who sends the CSR has it.

How young is young says policy, by profile.  A certificate that is revoked, replaced, to be renewed
now or too long for the cap of today is never handed out again, nor one that was asked for under
another policy: its CA or its usages may not be allowed any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher, Postponed
from broker.issuance.failover import is_unfinalized
from broker.issuance.ports import CertificateStore, Clock, OrderStore, Policies
from broker.issuance.quota_ports import YoungStore
from broker.issuance.records import CertificateRecord, JobKind, OrderRecord, WorkRecord
from broker.issuance.renewal_ports import RenewalStore
from broker.protocol.identifiers import Identifier
from broker.protocol.resources import OrderStatus

__all__ = ["Young"]

YOUNG_SHARE: Final = 10
"""A certificate is young for a tenth of its lifetime at the most, whatever policy says: whoever
gets it again would lose more of it."""

SIBLING_WAIT: Final = timedelta(seconds=60)
"""How long an order waits at a time for an earlier one with the same CSR."""

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
        since = self._clock.now() - within
        for sibling in await self._siblings(order, since):
            if sibling.status is OrderStatus.PROCESSING:
                await self._dispatcher.settled(JobKind.FULFIL, sibling.order_id, SIBLING_WAIT)
                at = self._clock.now() + SIBLING_PAUSE
                now = await self._orders.load_order(sibling.order_id)
                if now is not None and now.status is not OrderStatus.PROCESSING:
                    at = self._clock.now()
                raise Postponed(at, "another order of the account has this CSR")
            certificate = await self._fitting(order, sibling, since)
            if certificate is not None:
                await self._closing.answered_again(order, work, certificate)
                return True
        return False

    def _within(self, order: OrderRecord) -> timedelta | None:
        profile = self._policies.current(order.community).profiles.get(order.profile)
        is_as_usual = order.not_before is None and order.not_after is None
        return profile.same_csr_within if profile is not None and is_as_usual else None

    async def _siblings(self, order: OrderRecord, since: datetime) -> Sequence[OrderRecord]:
        """Return the account's orders with this CSR that came before *order*, for the same names
        under the same profile."""
        found = []
        csr = order.csr_sha256 or ""
        for order_id in await self._store.sibling_orders(order.account_id, csr, since):
            if order_id == order.order_id:
                break
            one = await self._orders.load_order(order_id)
            if one is not None and one.community == order.community and _is_alike(one, order):
                found.append(one)
        return found

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
    def facts(order: OrderRecord) -> tuple[str, frozenset[Identifier]]:
        return order.profile, frozenset(order.identifiers)

    return facts(one) == facts(other)


def _is_under_same_policy(one: OrderRecord, other: OrderRecord) -> bool:
    return one.decision.get("policy_sha256") == other.decision.get("policy_sha256")
