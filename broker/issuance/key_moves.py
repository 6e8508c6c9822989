"""Taking our account's key at a CA to another place: from a file into Vault, or back.

A move is a change of keys whose new key lies elsewhere (docs/adr/0017, docs/adr/0019).  Where the
operator insists, the very key is brought into Vault instead, and the CA is told nothing.  Where
keys are kept is the configuration's to say; a move only does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from broker.issuance.adoption_ports import AdoptionStore, ForeignKeys
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, EventLog, KeyRing, UpstreamStore
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_keys import UpstreamKeys

__all__ = ["ADOPTED", "FILE", "KeyMoves", "Move", "Moved", "place_of"]

log = structlog.get_logger("penstock")

FILE: Final = "file"
"""Where keys are that lie in encrypted files of ours."""

ADOPTED: Final = "adopted-"
"""What the names of key files begin with whose key came with an account."""

_VAULT: Final = "vault:"


def place_of(key_id: str) -> str:
    """Return where a key is kept by its id: ``file``, or ``vault:MOUNT``."""
    return key_id.rpartition("/")[0] if key_id.startswith(_VAULT) else FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What a person asks to have moved."""

    upstream: str
    community: str
    to: str
    """``file``, or ``vault:MOUNT``."""
    kind: str
    """Kind of the key that is made, where one is."""
    imports_existing: bool = False
    """Whether the very key is to be brought into Vault, instead of making a new one there."""
    destroys_old: bool = False
    """Whether the file of the key that signs no more is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What came of a move."""

    account: UpstreamAccountRecord
    old_key_id: str
    old_key_destroyed: bool
    is_same_key: bool
    """Whether it is the key that it was: copies of it may lie where it has been."""


class _Journal(AdoptionStore, EventLog, UpstreamStore, Protocol):
    """What a move reads and writes beside the change itself."""


class KeyMoves:
    """Moves keys of our accounts."""

    def __init__(
        self,
        store: _Journal,
        *,
        ring: KeyRing,
        keys: UpstreamKeys,
        foreign: ForeignKeys,
        clock: Clock,
    ) -> None:
        self._store = store
        self._ring = ring
        self._keys = keys
        self._foreign = foreign
        self._clock = clock
        self._tidy: set[str] = set()
        """Keys before which nothing is left to be removed."""

    async def move(self, wish: Move, *, actor: Actor) -> Moved:
        """Take the key of our account there to where it is wished, which is done or not done.

        Asked again after it was cut off, it does what is still to do.

        Raises:
            Refused: The CA said no to the new key; the account keeps its own.
            Unreachable: The CA or Vault cannot answer now.
            Broken: The configuration keeps keys elsewhere, the key is there already, or it
                cannot be brought there.
            Conflict: Somebody else was first.
        """
        record = await self._record(wish)
        self._check_place(wish)
        if place_of(record.key_id) == wish.to:
            return await self._tidied(wish, record, actor)
        if not wish.imports_existing:
            moved = await self._keys.change(
                wish.upstream, wish.community, kind=wish.kind, actor=actor
            )
            return await self._finished(wish, moved, record.key_id, actor)
        if place_of(record.key_id) != FILE or wish.to == FILE:
            raise Broken(
                f"key '{record.key_id}' never leaves Vault: move without importing it, which gives "
                "the account a new key"
            )
        moved = await self.bring(record, kind=wish.kind, actor=actor)
        return await self._finished(wish, moved, record.key_id, actor)

    def _check_place(self, wish: Move) -> None:
        place = self._foreign.place(wish.upstream, wish.community)
        if place != wish.to:
            raise Broken(
                f"the configuration keeps the keys of '{wish.upstream}' for community "
                f"'{wish.community}' in {place}, not in {wish.to}; first set account_key.store of "
                f"the upstream, or key_store of the community, to '{wish.to}', and start the "
                "broker again"
            )

    async def bring(
        self, record: UpstreamAccountRecord, *, kind: str, actor: Actor
    ) -> UpstreamAccountRecord:
        """Bring the very key of an account into Vault, and have the account pinned to it there."""
        new_key_id = await self._foreign.destination(
            record.key_id, record.upstream, record.community
        )
        return await self._keys.change(
            record.upstream,
            record.community,
            kind=kind,
            actor=actor,
            new_key_id=new_key_id,
            make=self._foreign.bring,
        )

    async def destroy(self, record: UpstreamAccountRecord, key_id: str, actor: Actor) -> None:
        """Remove the file of a key that signs for *record* no more, or that Vault has by now."""
        await self._ring.destroy_key(key_id)
        event = Event(
            kind=EventKind.UPSTREAM_KEY_DESTROYED,
            at=self._clock.now(),
            actor=actor,
            community=record.community,
            upstream=record.upstream,
            data={"account_url": record.account_url, "key": key_id, "present": record.key_id},
        )
        await self._store.append(event, durable=True)

    async def drop_strays(self) -> None:
        """Remove the files of keys that were taken in for an adoption which a crash has cut off:
        before the account was on record, or after it was undone.

        Called before anybody can ask for another one.  The other client has the key as before.
        """
        taken_in = await self._foreign.taken_in()
        if not taken_in:
            return
        kept = frozenset(await self._store.keys_on_record())
        for key_id in taken_in:
            if key_id not in kept:
                await self._ring.destroy_key(key_id)
                log.warning("key of an unfinished adoption destroyed", key=key_id)

    async def tidy(self) -> None:
        """Remove files that a crash has left of keys that an account was adopted with, or that are
        in Vault by now; each account's present key is looked at once."""
        for record in await self._store.list_upstream_accounts():
            if record.key_id in self._tidy:
                continue
            try:
                await self._tidy_up(record)
            except (Unreachable, Broken) as error:
                log.warning("old key file stays for now", key=record.key_id, reason=str(error))
            else:
                self._tidy.add(record.key_id)

    async def _tidy_up(self, record: UpstreamAccountRecord) -> None:
        change = await self._store.change_that_led_to(record.key_id)
        if change is None or place_of(change.old_key_id) != FILE:
            return
        old = change.old_key_id
        if not await self._ring.has_key(old):
            return
        if old.startswith(ADOPTED) or await self._is_same(old, record.key_id):
            await self._let_go(record, old, SYSTEM)

    async def _is_same(self, old: str, new: str) -> bool:
        return await self._ring.public_key(old) == await self._ring.public_key(new)

    async def _let_go(self, record: UpstreamAccountRecord, old: str, actor: Actor) -> bool:
        """Remove the file of an old key; return whether it is the present one as well."""
        is_same = await self._is_same(old, record.key_id)
        if is_same:
            # The only copy that is left afterwards has to sign.
            await self._foreign.bring(old, record.key_id)
        await self.destroy(record, old, actor)
        return is_same

    async def _finished(
        self, wish: Move, moved: UpstreamAccountRecord, old_key_id: str, actor: Actor
    ) -> Moved:
        """Remove what is to go: of a key that was brought, its file has to."""
        is_gone = place_of(old_key_id) == FILE and (wish.destroys_old or wish.imports_existing)
        if is_gone:
            await self.destroy(moved, old_key_id, actor)
        return Moved(
            account=moved,
            old_key_id=old_key_id,
            old_key_destroyed=is_gone,
            is_same_key=wish.imports_existing,
        )

    async def _tidied(self, wish: Move, record: UpstreamAccountRecord, actor: Actor) -> Moved:
        """Do what an earlier move was cut off before: remove the file of the old key."""
        change = await self._store.change_that_led_to(record.key_id)
        old = None if change is None else change.old_key_id
        is_left = old is not None and place_of(old) == FILE and await self._ring.has_key(old)
        if old is None or not is_left or not (wish.destroys_old or wish.imports_existing):
            raise Broken(
                f"the key of {record.account_url} is in {wish.to} already; to give the account "
                f"another one: penstock upstream rotate-key {wish.upstream}"
            )
        is_same = await self._let_go(record, old, actor)
        return Moved(account=record, old_key_id=old, old_key_destroyed=True, is_same_key=is_same)

    async def _record(self, wish: Move) -> UpstreamAccountRecord:
        record = await self._store.find_upstream_account(wish.upstream, wish.community)
        if record is None:
            raise Broken(
                f"upstream '{wish.upstream}' has no account for community '{wish.community}'"
            )
        return record
