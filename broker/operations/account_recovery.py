"""The part of the desk about accounts of ours that are lost, and what has to be done about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from broker.issuance.account_health import Loss
from broker.issuance.account_ports import FormerAccount
from broker.issuance.account_recovery import AccountRecoveries, Recovered
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor
from broker.issuance.records import CertificateRecord
from broker.operations import views
from broker.operations.upstream_accounts import UpstreamAccountDesk
from broker.protocol.caa_records import zone_line
from broker.protocol.encoding import format_timestamp
from broker.protocol.problems import ProblemType
from broker.web.operator import OperationError, failure_of

__all__ = ["AccountRecoveryDesk", "loss_view"]

WITH_CERTIFICATE_KEY: Final = (
    "with the certificate's own key, on its node: certbot revoke --cert-path … --key-path …, or "
    "any client that signs revokeCert with that key (RFC 8555 §7.6)"
)
"""The way that needs no account of ours at all."""

WITH_PROOF: Final = (
    "by the new account, once it has proved every name in it: penstock cert revoke does that by "
    "itself where our solvers can (RFC 8555 §7.6)"
)

NOT_YET: Final = "which records to change is told when the new account is made and has a URL"

BY_CONTACT: Final = "through the CA's own form or its contact for problem reports"


class AccountRecoveryDesk(UpstreamAccountDesk):
    """Commands about lost accounts."""

    async def upstream_recover(
        self,
        *,
        actor: Actor,
        upstream: str,
        community: str | None = None,
        agree_to_terms: bool = False,
        dry_run: bool = False,
    ) -> Any:
        """Say what is wrong with our account, for each community or for one, and mend it."""
        entry = self._acme_entry(upstream)
        made: list[views.View] = []
        for name in await self._communities(entry, community):
            try:
                if community is None and await self._is_sound(upstream, name):
                    continue
                done = await self._recoveries().recover(
                    upstream,
                    name,
                    agree_to_terms=agree_to_terms,
                    is_dry_run=dry_run,
                    actor=actor,
                )
            except (Refused, Unreachable, Broken, Conflict) as error:
                told = _unwilling(error) if isinstance(error, Refused) else error
                if dry_run or not made:
                    raise told from error
                raise _stopped(name, made, told) from error
            made.append(await self._recovered_view(done))
        if not made:
            raise OperationError(
                f"no account of ours at upstream '{upstream}' is lost, so there is nothing to "
                "recover",
                f"see penstock upstream check {upstream}; for another key of a sound account: "
                f"penstock upstream rotate-key {upstream}",
            )
        return made

    async def upstream_former(self, *, upstream: str | None = None) -> Any:
        """Return accounts that were ours and are replaced."""
        found = await self._store.former_upstream_accounts(upstream, None)
        if upstream is not None and not found:
            self._acme_entry(upstream)  # one that is configured no more may have had accounts
        return [former_view(one) for one in found]

    async def order_again(self, *, actor: Actor, order_id: str) -> Any:
        """Order anew what was finalized under an account that is gone; a second certificate for
        the same key may come of it, so a person has to say so."""
        recoveries = self._recoveries()
        if await self._store.load_order(order_id) is None:
            raise OperationError(f"there is no order '{order_id}'", "see penstock order list")
        return await recoveries.order_again(order_id, actor)

    async def _is_sound(self, upstream: str, community: str) -> bool:
        """Return whether there is nothing to do for a community that nobody named."""
        health = self._rooms.account_health
        return health is not None and await health.look(upstream, community) is None

    def _recoveries(self) -> AccountRecoveries:
        if self._rooms.account_recoveries is None:
            raise OperationError("this desk recovers no accounts")
        return self._rooms.account_recoveries

    async def _recovered_view(self, done: Recovered) -> views.View:
        account = done.account
        return {
            **loss_view(done.loss),
            "done": account is not None,
            "remedy": _remedy(done),
            "account": None if account is None else views.upstream_account_view(account),
            "key": None if account is None else account.key_id,
            "orders_begun_anew": list(done.orders.begun_anew),
            "orders_undecided": list(done.orders.undecided),
            "caa": await self._caa_view(done),
            "certificates": [_certificate_view(one) for one in done.certificates],
            "certificates_in_force": done.certificate_count,
            "revocation": _revocation_ways(done),
        }

    async def _caa_view(self, done: Recovered) -> views.View | None:
        """Return which records name the old account, and what they have to say instead."""
        if not done.is_new:
            return None
        old = done.loss.account_url
        if done.account is None:
            return {"old": old, "lines": [], "note": NOT_YET}
        where = done.account.upstream, done.account.community
        try:
            guarded = await self._caa().records(*where, names=(), iodef=None)
        except (Broken, Unreachable) as error:
            return {"old": old, "lines": [], "note": error.reason}
        lines = [zone_line(f"{one.name}.", record) for one in guarded for record in one.records]
        return {
            "old": old,
            "new": done.account.account_url,
            "lines": lines,
            "note": f"replace accounturi={old} wherever you have published it (RFC 8657 §3)",
        }


def _remedy(done: Recovered) -> str:
    """Return what is done about the loss, or would be."""
    if done.is_new:
        return "another account, with a new key"
    if done.loss.pin is None:
        return "none here: lower the minimum versions in Vault"
    return f"pin {done.loss.pin}"


def loss_view(loss: Loss) -> views.View:
    """Return what is the matter with an account."""
    return {
        "upstream": loss.upstream,
        "community": loss.community,
        "cause": str(loss.cause),
        "why": loss.sentence,
        "url": loss.account_url,
        "since": format_timestamp(loss.since),
    }


def former_view(former: FormerAccount) -> views.View:
    """Return an account that was ours."""
    return {
        "upstream": former.upstream,
        "community": former.community,
        "url": former.account_url,
        "directory": former.directory_url,
        "key": former.key_id,
        "thumbprint": former.thumbprint,
        "registered": format_timestamp(former.registered_at),
        "until": format_timestamp(former.until),
        "cause": str(former.cause),
    }


def _certificate_view(certificate: CertificateRecord) -> views.View:
    return {
        "certificate": certificate.certificate_id,
        "serial": certificate.serial,
        "names": [identifier.value for identifier in certificate.identifiers],
        "not_after": views.time_view(certificate.not_after),
    }


def _revocation_ways(done: Recovered) -> list[str]:
    return [WITH_CERTIFICATE_KEY, WITH_PROOF, BY_CONTACT] if done.certificate_count else []


def _stopped(community: str, made: Sequence[views.View], error: Exception) -> OperationError:
    """Return why one was not recovered, and what only this answer tells of those that were."""
    failure = failure_of(error) or {}
    upstream, done = made[0]["upstream"], ", ".join(str(one["community"]) for one in made)
    undecided = [order for one in made for order in cast(list[str], one["orders_undecided"])]
    hints = [
        f"those of {done} are, so publish what penstock upstream caa {upstream} says",
        *([f"orders to decide there: {', '.join(undecided)}"] if undecided else []),
        f"ask again with --community {community}",
    ]
    return OperationError(
        f"the account of community '{community}' is not recovered: {failure.get('error')}",
        "; ".join([*hints, *([str(failure["hint"])] if failure.get("hint") else [])]),
    )


def _unwilling(refusal: Refused) -> OperationError:
    """Return what a CA that makes no account wants."""
    hints = {
        ProblemType.USER_ACTION_REQUIRED: "read the terms, then add --agree-to-terms",
        ProblemType.EXTERNAL_ACCOUNT_REQUIRED: (
            "get a new binding key from the CA and configure it as external_account_binding; "
            "most CAs let each be used once"
        ),
    }
    hint = hints.get(refusal.problem.type) if refusal.problem.type is not None else None
    return OperationError(f"the CA makes no new account: {refusal.problem}", hint)
