"""Recovering an account of ours that is lost: by its right key, or by a new account.

What is wrong is asked first, and nothing is done where nothing is, or where it cannot be asked.
Where another key of ours speaks for the account, that one is pinned and nothing else changes.
Otherwise a new account is made with a new key.  The key's name is written down before it is made,
so that an attempt that was cut off anywhere is taken up by the next: the CA finds the account that
was made by its key.  The account, its predecessor, and every order that has to begin anew change in
one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.issuance.account_health import ASKING_CAS, AccountHealth, Loss
from broker.issuance.account_ports import (
    AccountRecovery,
    AccountRegistrar,
    AccountsAsked,
    FormerAccounts,
    LossCause,
    Replaced,
)
from broker.issuance.accounts import new_id
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Conflict, KeyArchived
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock, UpstreamStore, WorkStore
from broker.issuance.records import (
    CertificateRecord,
    Job,
    JobKind,
    UpstreamAccountRecord,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.standstill import Standstill
from broker.issuance.upstream_keys import UpstreamKeys

__all__ = ["AccountRecoveries", "Recovered"]

MAX_NAMED: Final = 200
"""Most live certificates that a recovery names: those that end last; more are counted."""


_UNDECIDED: Final = (WorkStatus.FINALIZING, WorkStatus.ACCEPTED)
"""How far upstream work is whose certificate may exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a recovery has done, or would do."""

    loss: Loss
    account: UpstreamAccountRecord | None
    """Our account as it is now; None for a dry run."""
    is_new: bool
    """Whether it is, or would be, another account."""
    orders: Replaced
    certificates: Sequence[CertificateRecord]
    """Live ones that the old account ordered, those that end last."""
    certificate_count: int


class AccountRecoveries:
    """Recovers accounts, and decides what only a person can decide after it."""

    def __init__(
        self,
        *,
        health: AccountHealth,
        asked: AccountsAsked,
        registrar: AccountRegistrar,
        former: FormerAccounts,
        records: UpstreamStore,
        works: WorkStore,
        keys: UpstreamKeys,
        standstill: Standstill,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self._health = health
        self._asked = asked
        self._registrar = registrar
        self._former = former
        self._records = records
        self._works = works
        self._keys = keys
        self._standstill = standstill
        self._dispatcher = dispatcher
        self._clock = clock

    async def recover(
        self,
        upstream: str,
        community: str,
        *,
        agree_to_terms: bool,
        is_dry_run: bool,
        actor: Actor,
    ) -> Recovered:
        """Find out what is wrong with our account there, and mend it unless *is_dry_run*.

        Raises:
            Refused: The CA makes no new account: its terms are not agreed to, it wants a binding.
            Unreachable: The CA or Vault cannot be asked now.  Trying again is harmless.
            Broken: Nothing is lost, or what is wrong is not to be mended by this.
            Conflict: Somebody else was first.
        """
        if self._keys.is_unsettled(upstream, community):
            await self._keys.settle()  # which may be all that is wrong
        async with self._registrar.held(upstream, community):
            record = await self._record(upstream, community)
            loss = await self._health.look(upstream, community, is_held=True)
            if loss is None:
                raise Broken(
                    f"our account at upstream '{upstream}' for community '{community}' is not "
                    f"lost: {record.account_url} is valid and key {record.key_id} speaks for it"
                )
            if loss.cause is LossCause.KEY_ARCHIVED and not is_dry_run:
                raise Broken(f"{loss.sentence}; no new account is made for that")
            count, certificates = await self._former.live_certificates_of(
                record.account_url, now=self._clock.now(), limit=MAX_NAMED
            )
            made, orders = None, Replaced()
            if not is_dry_run and loss.pin is not None:
                made = await self._repin(record, loss, loss.pin, actor)
            elif not is_dry_run:
                made, orders = await self._replace(record, loss, actor, agree_to_terms)
            if made is not None:
                self._keys.has_ended(upstream, community)  # in the same transaction
        if made is not None:
            await self._resume(made, orders)
        is_new = loss.pin is None and loss.cause is not LossCause.KEY_ARCHIVED
        return Recovered(
            loss=loss,
            account=made,
            is_new=is_new,
            orders=orders,
            certificates=certificates if is_new else (),
            certificate_count=count if is_new else 0,
        )

    async def order_again(self, order_id: str, actor: Actor) -> dict[str, object]:
        """Begin an order anew whose certificate may exist under an account that is gone.

        Raises:
            Broken: The order waits for nothing of the kind.
            Conflict: It went on meanwhile.
        """
        work = await self._undecided_work(order_id)
        if work is None:
            raise Broken(
                f"order '{order_id}' was not finalized under an account that is gone; one that "
                "waits for its CA is hurried by penstock order retry"
            )
        fresh = replace(
            work,
            work_id=new_id(),
            status=WorkStatus.INTENDED,
            order_url=None,
            is_sent=False,
            account_url=None,
            replaces=None,
            created_at=self._clock.now(),
        )
        event = Event(
            kind=EventKind.ORDER_BEGUN_ANEW,
            at=self._clock.now(),
            actor=actor,
            community=work.community,
            order_id=order_id,
            upstream=work.upstream,
            data={"work_id": work.work_id, "account_url": work.account_url, "url": work.order_url},
        )
        await self._works.change_work(
            work.work_id,
            expected=_UNDECIDED,
            status=WorkStatus.DEAD,
            replacement=fresh,
            events=(event,),
        )
        self._dispatcher.kick(Job(kind=JobKind.FULFIL, subject=order_id, due_at=self._clock.now()))
        return {"order": order_id, "old_url": work.order_url, "old_account": work.account_url}

    async def _undecided_work(self, order_id: str) -> WorkRecord | None:
        """Return the order's work if it was finalized under an account that is ours no more."""
        work = await self._works.work_of_order(order_id)
        if work is None or work.status not in _UNDECIDED or work.account_url is None:
            return None
        present = await self._records.find_upstream_account(work.upstream, work.community)
        if present is None:
            return None
        if present.account_url != work.account_url:
            return work
        # A CA that was set up anew may have given our new account the URL of the old one.
        former = await self._former.former_upstream_accounts(work.upstream, work.community)
        is_former = any(
            one.account_url == work.account_url and one.until >= work.created_at for one in former
        )
        return work if is_former else None

    # ------------------------------------------------------------------------------ the same one

    async def _repin(
        self, record: UpstreamAccountRecord, loss: Loss, pin: str, actor: Actor
    ) -> UpstreamAccountRecord:
        thumbprint = await self._asked.thumbprint_now(pin)
        if thumbprint is None:
            raise Conflict(f"key {pin} is gone since the CA was asked about it")
        pinned = replace(record, key_id=pin, thumbprint=thumbprint)
        event = self._event(
            EventKind.UPSTREAM_ACCOUNT_REPINNED,
            record,
            actor,
            {"old_key": record.key_id, "new_key": pin, "cause": str(loss.cause)},
        )
        await self._former.repin_upstream_account(pinned, event)
        return pinned

    # ---------------------------------------------------------------------------- another one

    async def _replace(
        self, record: UpstreamAccountRecord, loss: Loss, actor: Actor, agree_to_terms: bool
    ) -> tuple[UpstreamAccountRecord, Replaced]:
        if self._standstill.restoration is not None:
            # What was finalized after the backup is told by the CA alone, and to the old account.
            raise Broken(
                "this broker is restored and not reconciled, so its orders cannot be begun anew "
                f"yet; accept what cannot be looked at: penstock reconcile --accept-loss "
                f"{record.upstream}, then recover"
            )
        upstream, community = record.upstream, record.community
        key_id = await self._new_key(record, loss, actor)
        made = await self._registrar.register_with(
            upstream, community, key_id, agree_to_terms=agree_to_terms
        )
        event = self._event(
            EventKind.UPSTREAM_ACCOUNT_REPLACED,
            made,
            actor,
            {
                "old_account_url": record.account_url,
                "cause": str(loss.cause),
                "thumbprint": made.thumbprint,
                "key": key_id,
            },
        )
        orders = await self._former.replace_upstream_account(
            made, old_url=record.account_url, cause=loss.cause, event=event
        )
        return made, orders

    async def _new_key(self, record: UpstreamAccountRecord, loss: Loss, actor: Actor) -> str:
        """Return the id of the new account's key, which is there by then."""
        upstream, community = record.upstream, record.community
        begun = await self._former.open_account_recovery(upstream, community)
        is_ours = begun is not None and begun.old_account_url == record.account_url
        if begun is not None and is_ours and await self._is_usable(begun.new_key_id):
            return begun.new_key_id
        # It was not made, or is gone with the Vault that it was made in, or a rotation has archived
        # it, since the account was found again in between.
        key_id = await self._registrar.next_key_id(upstream, community, record.key_id)
        recovery = AccountRecovery(
            upstream=upstream,
            community=community,
            old_account_url=record.account_url,
            new_key_id=key_id,
            cause=loss.cause,
            begun_at=self._clock.now(),
        )
        event = self._event(
            EventKind.UPSTREAM_RECOVERY_BEGUN,
            record,
            actor,
            {"new_key": key_id, "cause": str(loss.cause)},
        )
        await self._former.begin_account_recovery(recovery, event)
        await self._registrar.make_key(upstream, key_id)
        return key_id

    async def _is_usable(self, key_id: str) -> bool:
        if not await self._registrar.has_key(key_id):
            return False
        try:
            return await self._asked.thumbprint_now(key_id) is not None
        except KeyArchived:
            return False

    # -------------------------------------------------------------------------------- afterwards

    async def _resume(self, record: UpstreamAccountRecord, orders: Replaced) -> None:
        await self._health.found(record)
        now = self._clock.now()
        for order_id in orders.begun_anew:
            self._dispatcher.kick(Job(kind=JobKind.FULFIL, subject=order_id, due_at=now))
        self._dispatcher.hurry_all(ASKING_CAS)

    async def _record(self, upstream: str, community: str) -> UpstreamAccountRecord:
        record = await self._records.find_upstream_account(upstream, community)
        if record is None:
            raise Broken(
                f"upstream '{upstream}' has no account for community '{community}'; "
                f"register one: penstock upstream register {upstream}"
            )
        return record

    def _event(
        self,
        kind: EventKind,
        record: UpstreamAccountRecord,
        actor: Actor,
        data: dict[str, object],
    ) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=record.community,
            upstream=record.upstream,
            data={"account_url": record.account_url, **data},
        )
