"""Giving our account at a CA another key (RFC 8555 §7.3.5), so that no crash loses the account.

A change is written down before its key is made, and ends in one transaction with the account's
record.  In between the CA may know either key: it is asked which, by the change itself, or by
whoever finds it unfinished at the next start.  Until that is answered nothing is signed in the
account's name, so that no order fails for a key that was the wrong one.

A key is a file or a version of a key in Vault; ids are all that is known of either here.  A version
that was made and not used cannot be destroyed, so its id is given to the next change again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import structlog

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.key_ports import KeyPlaces
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

Make = Callable[[str, str], Awaitable[None]]
"""Brings a key to its new id, in place of a new one: called with the old id and the new one."""


class UpstreamKeys:
    """Changes account keys, and ends what a crash or an outage left undecided."""

    def __init__(
        self,
        journal: UpstreamKeyStore,
        records: UpstreamStore,
        *,
        ring: KeyRing,
        places: KeyPlaces,
        accounts: AccountsAtCas,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._records = records
        self._ring = ring
        self._places = places
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

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from using the account, and from changing its key; raises
        Unreachable where what is under way takes too long."""
        return self._accounts.held(upstream, community)

    def has_ended(self, upstream: str, community: str) -> None:
        """Note that the store has ended what was open of this account, whose key is known by now.

        Whoever says so has the account alone; changes of others go on.
        """
        for change in self._open_of(upstream, community):
            self._open.remove(change)
        self._accounts.set_certain(upstream, community, is_certain=True)

    def is_unsettled(self, upstream: str, community: str) -> bool:
        """Return whether a change of our account there is under way or in doubt."""
        return bool(self._open_of(upstream, community))

    async def change(
        self,
        upstream: str,
        community: str,
        *,
        kind: str,
        actor: Actor,
        new_key_id: str | None = None,
        make: Make | None = None,
    ) -> UpstreamAccountRecord:
        """Give our account there a new key of *kind*, and return its record.

        Without *new_key_id* the key gets the id that its place gives it.  With *make* no key is
        made and the CA is asked for nothing but which key it knows.

        Raises:
            Refused: The CA said no; the account keeps its key.
            Unreachable: The CA cannot answer now.  Where the change is in doubt by then, the
                account rests until the CA has been asked, which is tried again and again.
            Broken: There is no account, no key may be made, or the CA offers no change of keys.
            Conflict: Somebody else was first; the account keeps its key.
        """
        # What stands in the way by itself is found here, before anybody waits for it.
        self._accounts.verify_usable(upstream, community)
        if new_key_id is None:
            await self._next_key_id(await self._record(upstream, community))
        async with self._accounts.held(upstream, community):
            for earlier in self._open_of(upstream, community):
                await self._settle(earlier)
            record = await self._record(upstream, community)
            change = self._new_change(record, new_key_id or await self._next_key_id(record))
            await self._journal.begin_upstream_key_change(
                change, self._event(EventKind.UPSTREAM_KEY_CHANGE_BEGUN, change, actor)
            )
            self._open.append(change)
            self._accounts.set_certain(upstream, community, is_certain=False)
            make = make or self._changing(record, kind)
            return await self._carry_out(change, record, make, actor)

    async def settle(self) -> None:
        """End every change that can be ended now; the others stay for the next time."""
        for change in tuple(self._open):
            try:
                async with self._accounts.held(change.upstream, change.community):
                    if change in self._open:
                        await self._settle(change)
            except (Unreachable, Broken, Refused, Conflict) as error:
                if isinstance(error, Broken | Refused):
                    # Waiting does not mend it: whoever looks after accounts finds what does.
                    self._accounts.doubt(change.upstream, change.community)
                log.warning(
                    "key change is not settled yet",
                    upstream=change.upstream,
                    community=change.community,
                    reason=str(error),
                )

    async def _next_key_id(self, record: UpstreamAccountRecord) -> str:
        return await self._places.next_account_key_id(
            record.upstream, record.community, record.key_id
        )

    def _changing(self, record: UpstreamAccountRecord, kind: str) -> Make:
        async def change_at_ca(_: str, new_key_id: str) -> None:
            if not await self._ring.has_key(new_key_id):  # as it may, in Vault, and lie unused
                await self._ring.create_key(new_key_id, kind)
            await self._accounts.change_key(record, new_key_id)

        return change_at_ca

    async def _carry_out(
        self, change: UpstreamKeyChange, record: UpstreamAccountRecord, make: Make, actor: Actor
    ) -> UpstreamAccountRecord:
        failure: Refused | Unreachable | Broken | Conflict = Broken(
            f"the CA said that {record.account_url} has its new key, and knows it by the old one"
        )
        try:
            await make(change.old_key_id, change.new_key_id)
        except (Refused, Unreachable, Broken, Conflict) as error:
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
        is_ours = record.account_url == change.account_url
        if not is_ours or record.key_id not in {change.old_key_id, change.new_key_id}:
            # The account was lost and another one, or another key of it, is in its place by now.
            await self._undo(change, actor)
            return None
        if not await self._ring.has_key(change.new_key_id):
            # It was not made yet, so nobody can have been told of it.
            await self._undo(change, actor)
            return None
        found = await self._accounts.account_of(record, change.new_key_id)
        if found == change.account_url:
            return await self._finish(change, record, actor)
        if await self._accounts.account_of(record, change.old_key_id) == change.account_url:
            await self._undo(change, actor, is_taken=found is not None)
            return None
        raise Broken(
            f"{change.account_url} is known to its CA by neither key, "
            f"'{change.old_key_id}' nor '{change.new_key_id}'; see penstock upstream recover"
        )

    async def _finish(
        self, change: UpstreamKeyChange, record: UpstreamAccountRecord, actor: Actor
    ) -> UpstreamAccountRecord:
        changed = replace(
            record,
            key_id=change.new_key_id,
            thumbprint=await self._accounts.thumbprint(change.upstream, change.new_key_id),
        )
        kind = EventKind.UPSTREAM_KEY_CHANGED
        if changed.thumbprint == record.thumbprint:
            kind = EventKind.UPSTREAM_KEY_IMPORTED
        await self._end(change, KeyChangeStatus.CHANGED, changed, self._event(kind, change, actor))
        return changed

    async def _undo(
        self, change: UpstreamKeyChange, actor: Actor, *, is_taken: bool = False
    ) -> None:
        # A key file goes first: without it there is nothing to ask, and the change is undone again.
        await self._ring.destroy_key(change.new_key_id)
        status = KeyChangeStatus.TAKEN if is_taken else KeyChangeStatus.UNDONE
        event = self._event(EventKind.UPSTREAM_KEY_CHANGE_UNDONE, change, actor)
        await self._end(change, status, None, event)

    async def _end(
        self,
        change: UpstreamKeyChange,
        status: KeyChangeStatus,
        account: UpstreamAccountRecord | None,
        event: Event,
    ) -> None:
        ended = replace(change, status=status, ended_at=self._clock.now())
        await self._journal.end_upstream_key_change(ended, account, event)
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

    def _new_change(self, record: UpstreamAccountRecord, new_key_id: str) -> UpstreamKeyChange:
        return UpstreamKeyChange(
            upstream=record.upstream,
            community=record.community,
            account_url=record.account_url,
            old_key_id=record.key_id,
            new_key_id=new_key_id,
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
