"""Giving our account at a CA another key (RFC 8555 §7.3.5), so that no crash loses the account.

A change is written down before its key is made, and ends in one transaction with the account's
record.  In between the CA may know either key: it is asked which, by the change itself, or by
whoever finds it unfinished at the next start.  Until that is answered nothing is signed in the
account's name, so that no order fails for a key that was the wrong one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, KeyRing, UpstreamStore
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import (
    AccountsAtCas,
    KeyChangeStatus,
    UpstreamKeyChange,
    UpstreamKeyStore,
)

__all__ = ["UpstreamKeys"]

log = structlog.get_logger("penstock")

SUFFIX_BYTES: Final = 4
"""Random part of a new key's name, in bytes: an account has a handful of keys in its life."""


class UpstreamKeys:
    """Changes account keys, and ends what a crash or an outage left undecided."""

    def __init__(
        self,
        journal: UpstreamKeyStore,
        records: UpstreamStore,
        *,
        ring: KeyRing,
        accounts: AccountsAtCas,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._records = records
        self._ring = ring
        self._accounts = accounts
        self._clock = clock
        self._open: list[UpstreamKeyChange] = []

    async def load(self) -> None:
        """Close the accounts whose key is uncertain; called before anything is sent."""
        self._open = list(await self._journal.open_upstream_key_changes())
        for change in self._open:
            self._accounts.set_certain(change.upstream, change.community, is_certain=False)

    def unsettled(self) -> Sequence[UpstreamKeyChange]:
        """Return the changes of which it is not known whether they happened."""
        return tuple(self._open)

    async def change(
        self, upstream: str, community: str, *, kind: str, actor: Actor
    ) -> UpstreamAccountRecord:
        """Give our account there a new key of *kind*, and return its record.

        Raises:
            Refused: The CA said no; the account keeps its key.
            Unreachable: The CA cannot answer now.  Where the change is in doubt by then, the
                account rests until the CA has been asked, which is tried again and again.
            Broken: There is no account, or the CA offers no change of keys.
        """
        async with self._accounts.held(upstream, community):
            for earlier in self._open_of(upstream, community):
                await self._settle(earlier)
            record = await self._record(upstream, community)
            change = self._new_change(record)
            await self._journal.begin_upstream_key_change(
                change, self._event(EventKind.UPSTREAM_KEY_CHANGE_BEGUN, change, actor)
            )
            self._open.append(change)
            self._accounts.set_certain(upstream, community, is_certain=False)
            return await self._carry_out(change, record, kind, actor)

    async def settle(self) -> None:
        """End every change that can be ended now; the others stay for the next time."""
        for change in tuple(self._open):
            try:
                async with self._accounts.held(change.upstream, change.community):
                    if change in self._open:
                        await self._settle(change)
            except (Unreachable, Broken, Refused, Conflict) as error:
                log.warning(
                    "key change is not settled yet",
                    upstream=change.upstream,
                    community=change.community,
                    reason=str(error),
                )

    async def _carry_out(
        self, change: UpstreamKeyChange, record: UpstreamAccountRecord, kind: str, actor: Actor
    ) -> UpstreamAccountRecord:
        failure: Refused | Unreachable | Broken = Broken(
            f"the CA said that {record.account_url} has its new key, and knows it by the old one"
        )
        try:
            await self._ring.create_key(change.new_key_id, kind)
            await self._accounts.change_key(record, change.new_key_id)
        except (Refused, Unreachable, Broken) as error:
            failure = error
        # Whatever the CA said, or did not say: which key it knows is asked, never concluded.
        settled = await self._settle(change, actor)
        if settled is None:
            raise failure
        return settled

    async def _settle(
        self, change: UpstreamKeyChange, actor: Actor = SYSTEM
    ) -> UpstreamAccountRecord | None:
        """End a change one way or the other; return the account where it has the new key.

        Raises:
            Refused, Unreachable, Broken: The CA does not tell; the change stays open.
        """
        record = await self._record(change.upstream, change.community)
        if not await self._ring.has_key(change.new_key_id):
            # It was not made yet, so nobody can have been told of it.
            await self._undo(change, actor)
            return None
        if await self._accounts.account_of(record, change.new_key_id) == change.account_url:
            return await self._finish(change, record, actor)
        if await self._accounts.account_of(record, change.old_key_id) == change.account_url:
            await self._undo(change, actor)
            return None
        raise Broken(
            f"{change.account_url} is known to its CA by neither key, "
            f"'{change.old_key_id}' nor '{change.new_key_id}'; ask the CA, then register again"
        )

    async def _finish(
        self, change: UpstreamKeyChange, record: UpstreamAccountRecord, actor: Actor
    ) -> UpstreamAccountRecord:
        changed = replace(
            record,
            key_id=change.new_key_id,
            thumbprint=await self._accounts.thumbprint(change.upstream, change.new_key_id),
        )
        await self._end(change, KeyChangeStatus.CHANGED, changed, actor)
        return changed

    async def _undo(self, change: UpstreamKeyChange, actor: Actor) -> None:
        # The key goes first: without it there is nothing to ask, and the change is undone again.
        await self._ring.destroy_key(change.new_key_id)
        await self._end(change, KeyChangeStatus.UNDONE, None, actor)

    async def _end(
        self,
        change: UpstreamKeyChange,
        status: KeyChangeStatus,
        account: UpstreamAccountRecord | None,
        actor: Actor,
    ) -> None:
        kind = EventKind.UPSTREAM_KEY_CHANGED
        if status is KeyChangeStatus.UNDONE:
            kind = EventKind.UPSTREAM_KEY_CHANGE_UNDONE
        ended = replace(change, status=status, ended_at=self._clock.now())
        await self._journal.end_upstream_key_change(
            ended, account, self._event(kind, change, actor)
        )
        self._open.remove(change)
        self._accounts.set_certain(change.upstream, change.community, is_certain=True)

    def _open_of(self, upstream: str, community: str) -> Sequence[UpstreamKeyChange]:
        return [one for one in self._open if (one.upstream, one.community) == (upstream, community)]

    async def _record(self, upstream: str, community: str) -> UpstreamAccountRecord:
        record = await self._records.find_upstream_account(upstream, community)
        if record is None:
            raise Broken(
                f"upstream '{upstream}' has no account for community '{community}'; "
                f"register one: penstock upstream register {upstream}"
            )
        return record

    def _new_change(self, record: UpstreamAccountRecord) -> UpstreamKeyChange:
        suffix = secrets.token_hex(SUFFIX_BYTES)
        return UpstreamKeyChange(
            upstream=record.upstream,
            community=record.community,
            account_url=record.account_url,
            old_key_id=record.key_id,
            new_key_id=f"account-{record.upstream}@{record.community}.{suffix}",
            status=KeyChangeStatus.BEGUN,
            begun_at=self._clock.now(),
        )

    def _event(self, kind: EventKind, change: UpstreamKeyChange, actor: Actor) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=change.community,
            upstream=change.upstream,
            data={
                "account_url": change.account_url,
                "old_key": change.old_key_id,
                "new_key": change.new_key_id,
            },
        )
