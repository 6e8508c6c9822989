"""Revoking, by the account that we have now, what an account ordered that is ours no more.

A CA takes the word of an account that holds authorizations for every name in the certificate
(RFC 8555 §7.6).  So the names are proved by an order that is never finalized, once; where the CA
says no all the same, whoever asked is told what else there is to do, and nothing is tried again.
"""

from __future__ import annotations

from typing import Final

import structlog

from broker.issuance.errors import Refused
from broker.issuance.ports import Upstream, UpstreamRequest, UpstreamStore
from broker.issuance.records import CertificateRecord
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus

__all__ = ["FormerRevocations"]

log = structlog.get_logger("penstock")

MAX_PROOFS: Final = 3
"""Most attempts of one revocation that open an order for it, for a CA that is away in between."""

OTHERWISE: Final = (
    "it was ordered by an account that this server has no more; revoke it with the certificate's "
    "own key, directly at the CA, or through the CA's contact for problem reports"
)
"""What is left where the CA does not take the new account's word."""


class FormerRevocations:
    """Knows which certificates are of a former account, and tries what may still be tried."""

    def __init__(self, accounts: UpstreamStore) -> None:
        self._accounts = accounts

    async def revoke(
        self, upstream: Upstream, found: CertificateRecord, problem: Problem, *, attempts: int
    ) -> Problem | None:
        """Return why the certificate is not revoked, None where it is; *problem* is the refusal.

        Raises:
            Unreachable, Broken: It cannot be told now; the revocation is kept and comes again.
        """
        if not await self._is_former(found):
            return problem
        if attempts >= MAX_PROOFS:
            return _told(problem)
        try:
            await self._prove(upstream, found)
            await upstream.revoke(found.leaf_der, found.revocation_reason or 0)
        except Refused as refusal:
            return _told(refusal.problem)
        log.info(
            "revoked by another account than the one that ordered it",
            fingerprint=found.fingerprint,
            upstream=found.upstream,
        )
        return None

    async def _is_former(self, found: CertificateRecord) -> bool:
        account = await self._accounts.find_upstream_account(found.upstream, found.community)
        return (
            account is not None
            and found.upstream_account is not None
            and found.upstream_account != account.account_url
        )

    async def _prove(self, upstream: Upstream, found: CertificateRecord) -> None:
        """Have the CA hold authorizations of our present account for every name."""
        request = UpstreamRequest(
            reference=f"revoke-{found.certificate_id}",
            identifiers=tuple(sorted(found.identifiers)),
            profile=None,
            not_after=None,
        )
        order = await upstream.open_order(request)
        if order.status is OrderStatus.PENDING:
            await upstream.authorize(order)


def _told(problem: Problem) -> Problem:
    """Return the CA's refusal together with what is left to do."""
    return Problem(problem.type or ProblemType.UNAUTHORIZED, f"{problem.detail}; {OTHERWISE}")
