"""The part of the desk about those who ask us: orders, certificates, accounts, keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from broker.issuance.events import Actor
from broker.issuance.ownership import check_owner
from broker.issuance.records import CertificateRecord, JobKind
from broker.operations import views
from broker.operations.rooms import Desk
from broker.policy.names import parse_pattern
from broker.policy.units import parse_duration
from broker.protocol.encoding import encode_base64url
from broker.protocol.resources import AccountStatus, OrderStatus
from broker.web.operator import OperationError

__all__ = ["RequesterDesk"]

MAX_ROWS: Final = 1000
"""Most rows of one list; the next page begins after the last of them."""

MAX_EVENTS: Final = 500
"""Most events shown of one order; an ordinary one has about eight."""


class RequesterDesk(Desk):
    """Commands about requesters."""

    # ---------------------------------------------------------------------------------- orders

    async def order_show(self, *, order_id: str) -> Any:
        """Return an order with its authorizations, upstream order, events and the lever."""
        order = await self._store.load_order(order_id)
        if order is None:
            raise OperationError(f"there is no order '{order_id}'", "see penstock order list")
        authorizations = [
            await self._store.load_authorization(each) for each in order.authorization_ids
        ]
        rows = await self._store.read_events(after=0, limit=MAX_EVENTS, order_id=order_id)
        work = await self._store.work_of_order(order_id)
        job = await self._store.find_job(JobKind.FULFIL, order_id)
        if job is None and work is not None:
            job = await self._store.find_job(JobKind.PREPARE, work.work_id)
        return {
            **views.order_view(order),
            "lever": views.lever_of(order, [event for _, event in rows]),
            "decision": dict(order.decision),
            "authorizations": [
                views.authorization_view(each) for each in authorizations if each is not None
            ],
            "upstream_order": views.work_view(work),
            "waiting": views.waiting_view(job),
            "events": [views.event_view(number, event) for number, event in rows],
        }

    async def order_list(
        self,
        *,
        community: str | None = None,
        account: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Any:
        """Return orders, newest first."""
        if status is not None and status not in set(OrderStatus):
            raise OperationError(f"'{status}' is no status", f"one of {', '.join(OrderStatus)}")
        orders = await self._store.list_orders(
            community=community,
            account_id=account,
            status=OrderStatus(status) if status is not None else None,
            after=after,
            limit=_limit(limit),
        )
        return [views.order_view(order) for order in orders]

    # ---------------------------------------------------------------------------- certificates

    async def cert_show(self, *, certificate: str) -> Any:
        """Return a certificate with its PEM chain."""
        found = await self._certificate(certificate)
        pem = found.chain_pem.decode("ascii", "replace")
        dates = await self._store.retirement_dates([found.certificate_id])
        retires = dates.get(found.certificate_id)
        return {**views.certificate_view(found, retires), "chain_pem": pem}

    async def cert_list(
        self, *, community: str | None = None, after: str | None = None, limit: int = 100
    ) -> Any:
        """Return certificates."""
        found = await self._store.list_certificates(
            community=community, after=after, limit=_limit(limit)
        )
        dates = await self._store.retirement_dates([each.certificate_id for each in found])
        return [views.certificate_view(each, dates.get(each.certificate_id)) for each in found]

    async def cert_revoke(self, *, actor: Actor, certificate: str, code: int = 0) -> Any:
        """Revoke a certificate at its CA."""
        found = await self._certificate(certificate)
        await self._rooms.revocations.revoke_by_operator(found.certificate_id, code, actor)
        return views.certificate_view(await self._certificate(found.certificate_id))

    async def _certificate(self, reference: str) -> CertificateRecord:
        """Return the certificate of that id or fingerprint."""
        found = await self._store.find_certificate(reference)
        if found is None:
            fingerprint = reference.replace(":", "").lower()
            found = await self._store.find_certificate_by_fingerprint(fingerprint)
        if found is None:
            raise OperationError(
                f"there is no certificate '{reference}'", "give its id or its SHA-256 fingerprint"
            )
        return found

    # -------------------------------------------------------------------------------- accounts

    async def account_show(self, *, account_id: str) -> Any:
        """Return an account."""
        account = await self._account(account_id)
        return (await self._with_owners([views.account_view(account)]))[0]

    async def account_list(
        self, *, community: str | None = None, after: str | None = None, limit: int = 100
    ) -> Any:
        """Return accounts."""
        found = await self._store.list_accounts(
            community=community, after=after, limit=_limit(limit)
        )
        return await self._with_owners([views.account_view(account) for account in found])

    async def _with_owners(self, rows: Sequence[views.View]) -> Sequence[views.View]:
        """Return accounts with who answers for them, be it by their key, node or community."""
        known = await self._store.owners_of_accounts([str(row["account"]) for row in rows])
        return [
            self._answered_for(
                {
                    **row,
                    "owner": owner,
                    "contact": contact,
                    "owner_by": row["owner_by"] or ("inherited" if owner else ""),
                }
            )
            for row in rows
            for owner, contact in [known.get(str(row["account"]), ("", ""))]
        ]

    async def account_deactivate(self, *, actor: Actor, account_id: str) -> Any:
        """Deactivate an account for good; its certificates stay as they are."""
        account = await self._account(account_id)
        if account.status is not AccountStatus.VALID:
            raise OperationError(f"account '{account_id}' is {account.status} already")
        ended = await self._rooms.accounts.deactivate(account, actor)
        return (await self._with_owners([views.account_view(ended)]))[0]

    # ------------------------------------------------------- external account binding keys

    async def eab_mint(
        self,
        *,
        actor: Actor,
        community: str = "default",
        label: str = "",
        names: Sequence[str] | None = None,
        profiles: Sequence[str] | None = None,
        expires_in: str | None = None,
        reusable: bool = False,
        key_id: str | None = None,
        owner: str = "",
        contact: str = "",
    ) -> Any:
        """Make a key; its MAC key is in this answer and in no other."""
        self._check_community(community)
        check_owner(owner, contact)
        offered = self._rooms.policies.current(community).profiles
        for profile in profiles or ():
            if profile not in offered:
                raise OperationError(
                    f"community '{community}' has no profile '{profile}'",
                    f"it has {', '.join(offered)}",
                )
        try:
            patterns = tuple(str(parse_pattern(name)) for name in names or ())
            lifetime = parse_duration(expires_in) if expires_in is not None else None
        except ValueError as error:
            raise OperationError(str(error)) from error
        key = await self._rooms.enrollment.mint(
            community,
            label=label,
            names=patterns,
            profiles=tuple(profiles or ()),
            key_id=key_id,
            expires_at=self._rooms.clock.now() + lifetime if lifetime is not None else None,
            is_reusable=reusable,
            actor=actor,
            owner=owner,
            contact=contact,
        )
        shown = self._answered_for(views.eab_view(key))
        return {**shown, "mac_key": encode_base64url(key.mac_key)}

    async def eab_list(self, *, community: str | None = None) -> Any:
        """Return all keys, revoked ones too."""
        found = await self._rooms.enrollment.list(community)
        return [self._answered_for(views.eab_view(key)) for key in found]

    async def eab_revoke(self, *, actor: Actor, key_id: str, community: str = "default") -> Any:
        """Revoke a key."""
        revoked = await self._rooms.enrollment.revoke(community, key_id, actor)
        return self._answered_for(views.eab_view(revoked))


def _limit(limit: int) -> int:
    if not 0 < limit <= MAX_ROWS:
        raise OperationError(f"limit {limit} is not between 1 and {MAX_ROWS}")
    return limit
