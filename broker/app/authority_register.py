"""The register of the built-in CAs at work: read, changed with an event, and put in order again.

A key is announced before it is made (PLANNED), and a retirement before it is carried out
(RETIRING).  So whatever a process leaves behind when it is killed says what it was about, and the
next start undoes the one and finishes the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import structlog

from broker.app.ca_keys import CaKeys, PlannedKey
from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.key_ports import KeyPlaces, KeyStores
from broker.issuance.ports import Clock, Store
from broker.issuance.records import CaMember, CaRole
from broker.upstreams.authority import Authority
from broker.upstreams.authority_files import read_directory
from broker.upstreams.authority_state import CaState, read_state, retired, without
from broker.upstreams.crl import DEFAULT_LIFETIME, sign_last_crl

__all__ = ["CaRegistry", "open_registry"]

log = structlog.get_logger("penstock")


class CaRegistry:
    """Reads and changes what the built-in CAs consist of."""

    def __init__(
        self,
        store: Store,
        *,
        signer: KeyStores,
        clock: Clock,
        files: Path,
        places: KeyPlaces | None = None,
        crl_lifetimes: Mapping[str, timedelta] | None = None,
    ) -> None:
        """Keep CAs in *store*; *files* is where an older version kept them."""
        self.store = store
        self.signer = signer
        self.keys = CaKeys(signer, places)
        self.clock = clock
        self.changing = asyncio.Lock()
        """Held while something is made: one change at a time."""
        self.on_changed: Callable[[str, CaState], None] | None = None
        """Told of each CA as it is now, so that a running broker need not restart."""
        self._files = files
        self._crl_lifetimes = crl_lifetimes or {}

    async def load(self, upstream: str) -> CaState | None:
        """Return the CA; None when it was never made."""
        return read_state(await self.store.ca_members(upstream))

    async def recover(self, upstream: str) -> CaState | None:
        """Return the CA as `load` does, after finishing or undoing what was cut off.

        What cannot be finished now, since whoever keeps the keys is away, waits for `mend`.

        Raises:
            Broken: The register, or what an older version left, does not hold what it should.
        """
        async with self.changing:
            if not await self.store.ca_members(upstream):
                await self._take_over(upstream)
            try:
                await self._mend(upstream)
            except (Unreachable, Broken) as error:
                log.error("unfinished change waits", upstream=upstream, reason=error.reason)
            return await self.load(upstream)

    async def mend(self, upstream: str) -> None:
        """Finish or undo what was cut off, and could not be mended at the start.

        Raises:
            Unreachable: It cannot be done now.
            Broken: The same, and a person has to see to it.
        """
        async with self.changing:
            await self._mend(upstream)

    async def _mend(self, upstream: str) -> None:
        members = await self.store.ca_members(upstream)
        if any(member.role is CaRole.PLANNED for member in members):
            await self._undo(upstream)
        for member in members:
            if member.role is CaRole.RETIRING:
                await self.finish_retiring(upstream, member.key_id or "")

    def event(self, kind: EventKind, actor: Actor, upstream: str, **data: object) -> Event:
        """Return what happened to *upstream* now."""
        return Event(kind=kind, at=self.clock.now(), actor=actor, upstream=upstream, data=data)

    async def change(
        self, upstream: str, members: Sequence[CaMember], event: Event | None
    ) -> CaState:
        """Have the CA consist of *members*, and tell whoever serves it."""
        await self.store.replace_ca_members(upstream, members, event)
        return await self.tell(upstream)

    async def tell(self, upstream: str) -> CaState:
        """Tell whoever serves the CA what it is now, and return it."""
        state = await self.load(upstream)
        if state is None:
            raise Broken(f"built-in CA '{upstream}' is gone from the store")
        if self.on_changed is not None:
            self.on_changed(upstream, state)
        return state

    @asynccontextmanager
    async def making(self, upstream: str, *roles: str) -> AsyncIterator[tuple[PlannedKey, ...]]:
        """Yield a new key for each of *roles*, announced before it is made.

        What is not in the register when the block ends is destroyed again: at once when the
        block fails, at the next start when the process is killed.

        Raises:
            Unreachable: Whoever keeps the keys is away; nothing has been done.
            Broken: No key can be made; nothing has been done.
        """
        if any(one.role is CaRole.PLANNED for one in await self.store.ca_members(upstream)):
            await self._undo(upstream)
        members = list(await self.store.ca_members(upstream))
        taken = {member.key_id for member in members if member.key_id is not None}
        keys = [await self.keys.plan(upstream, role, taken) for role in roles]
        planned = [self._planned(upstream, key.key_id) for key in keys]
        await self.store.replace_ca_members(upstream, [*members, *planned], None)
        try:
            yield tuple(keys)
        except (Broken, Conflict, Refused, Unreachable):
            await self._undo(upstream)
            raise

    async def finish_retiring(self, upstream: str, key_id: str) -> CaState:
        """Sign the last list of a retiring issuer, have its key end, and note that.

        Each step can be done again: the list is kept before the key goes, and the key's end is
        noted after it.
        """
        members = list(await self.store.ca_members(upstream))
        (index,) = [
            number
            for number, one in enumerate(members)
            if one.key_id == key_id and one.role is CaRole.RETIRING
        ]
        if members[index].last_crl_der is None:
            state = read_state(members)
            issuer = None if state is None or state.issuers is None else state.issuers.find(key_id)
            if issuer is None:
                raise Broken(f"issuer '{key_id}' of CA '{upstream}' cannot be found")
            last = await self._last_crl(upstream, issuer)
            members[index] = replace(members[index], last_crl_der=last)
            await self.store.replace_ca_members(upstream, members, None)
        await self.keys.end(key_id, members)
        event = self.event(EventKind.CA_KEY_DESTROYED, SYSTEM, upstream, key_id=key_id)
        done = retired(members, key_id, at=self.clock.now())
        return await self.change(upstream, done, event)

    async def _last_crl(self, upstream: str, issuer: Authority) -> bytes:
        return await sign_last_crl(
            upstream,
            issuer,
            signer=self.signer,
            store=self.store,
            clock=self.clock,
            last_end=await self.store.last_ca_end(upstream, issuer.key_id),
            lifetime=self._crl_lifetimes.get(upstream, DEFAULT_LIFETIME),
        )

    async def _take_over(self, upstream: str) -> None:
        """Enter into the register what an older version kept in files."""
        found = await asyncio.to_thread(
            read_directory, self._files / upstream, upstream, self.clock.now()
        )
        if found:
            await self.store.replace_ca_members(upstream, found, None)
            log.info("built-in CA taken over from its files", upstream=upstream)

    async def _undo(self, upstream: str) -> None:
        """Destroy the keys of a making that was cut off."""
        members = await self.store.ca_members(upstream)
        for member in members:
            if member.role is CaRole.PLANNED and member.key_id is not None:
                await self.keys.drop(member.key_id)
                log.warning(
                    "key of an unfinished making dropped",
                    upstream=upstream,
                    key_id=member.key_id,
                )
        await self.store.replace_ca_members(upstream, without(members, CaRole.PLANNED), None)

    def _planned(self, upstream: str, key_id: str) -> CaMember:
        return CaMember(
            ca=upstream,
            role=CaRole.PLANNED,
            key_id=key_id,
            subject="",
            certificate_der=None,
            since=self.clock.now(),
        )


def open_registry(
    config: Config,
    store: Store,
    signer: KeyStores,
    clock: Clock,
    *,
    places: KeyPlaces | None = None,
) -> CaRegistry:
    """Return the register of the built-in CAs that are configured."""
    return CaRegistry(
        store,
        signer=signer,
        places=places,
        clock=clock,
        files=config.state / "ca",
        crl_lifetimes={
            name: upstream.crl_lifetime
            for name, upstream in config.upstreams.items()
            if isinstance(upstream, BuiltinUpstream)
        },
    )
