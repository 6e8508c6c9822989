"""Which certificate a new order replaces, as far as that can be known (RFC 9773 §5).

A CertID that is none of the account's own certificates is taken as it is and means nothing: the
client may have come from another CA, and whose certificates we hold is nobody's business.  One that
came to us with an adopted account is told to the CA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.issuance.ports import UpstreamStore
from broker.issuance.records import AccountRecord
from broker.issuance.renewal_ports import RenewalStore, RenewalView
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Predecessor", "Succession", "already_replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """What an order replaces."""

    cert_id: str | None
    upstream: str | None = None
    """The upstream whose present account of ours ordered it; only that CA is told."""
    holder: str | None = None
    """The order that replaces it already; the new one has to wait for that to fail."""


class Succession:
    """Judges the ``replaces`` of newOrder requests."""

    def __init__(self, renewals: RenewalStore, upstreams: UpstreamStore) -> None:
        self._renewals = renewals
        self._upstreams = upstreams

    async def find(
        self, account: AccountRecord, cert_id: str | None, identifiers: Sequence[Identifier]
    ) -> Predecessor:
        """Return what an order of *account* for *identifiers* replaces.

        Raises:
            Problem: malformed, for a certificate of the account's own that shares no identifier.
        """
        if cert_id is None:
            return Predecessor(cert_id=None)
        holder = await self._renewals.successor_of(account.account_id, cert_id)
        seen = await self._renewals.renewal_views(account.community, cert_id)
        own = [each for each in seen if each.account_id == account.account_id]
        if not own:
            adopted = await self._adopted_at(account.community, cert_id, identifiers)
            return Predecessor(cert_id=cert_id, upstream=adopted, holder=holder)
        fitting = [each for each in own if set(each.identifiers) & set(identifiers)]
        if not fitting:
            raise Problem(
                ProblemType.MALFORMED,
                "replaces names a certificate that has no identifier of this order",
            )
        return Predecessor(
            cert_id=cert_id, upstream=await self._ordered_at(fitting[0]), holder=holder
        )

    async def _adopted_at(
        self, community: str, cert_id: str, identifiers: Sequence[Identifier]
    ) -> str | None:
        """Return the upstream whose account came to us with this certificate (docs/adr/0019).

        Whoever may have one of its names may succeed it.  Nobody is told that we know it.
        """
        for found in await self._renewals.adopted_certificates(community, cert_id):
            account = await self._upstreams.find_upstream_account(found.upstream, community)
            is_ours = account is not None and account.account_url == found.account_url
            if is_ours and set(found.identifiers) & set(identifiers):
                return found.upstream
        return None

    async def _ordered_at(self, view: RenewalView) -> str | None:
        """Return the upstream, if the account that we have there now ordered the certificate."""
        account = await self._upstreams.find_upstream_account(view.upstream, view.community)
        if account is None:
            return None
        if view.upstream_account is not None:
            is_ours = view.upstream_account == account.account_url
        else:
            is_ours = account.registered_at <= view.received_at
        return view.upstream if is_ours else None


def already_replaced(cert_id: str | None) -> Problem:
    """Return what a client is told whose predecessor has a successor (RFC 9773 §7.4)."""
    return Problem(
        ProblemType.ALREADY_REPLACED,
        f"certificate {cert_id} is replaced by another order of this account already",
    )
