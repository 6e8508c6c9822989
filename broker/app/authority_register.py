"""The register of the built-in CAs at work: read, changed with an event, and put in order again.

A key is announced before it is made (PLANNED), and a retirement before it is carried out
(RETIRING).  So whatever a process leaves behind when it is killed says what it was about, and the
next start undoes the one and finishes the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, KeyRing, Store
from broker.issuance.records import CaMember, CaRole
from broker.upstreams.authority import Authority
from broker.upstreams.authority_files import read_directory
from broker.upstreams.authority_state import CaState, read_state, retired, without
from broker.upstreams.crl import DEFAULT_LIFETIME, sign_last_crl

__all__ = ["CaRegistry", "open_registry"]

log = structlog.get_logger("penstock")

MAX_KEYS: Final = 100
"""Most names that are tried for a new key; one is left out for each that there is already."""


class CaRegistry:
    """Reads and changes what the built-in CAs consist of."""

    def __init__(
        self,
        store: Store,
        *,
        signer: KeyRing,
        clock: Clock,
        files: Path,
        crl_lifetimes: Mapping[str, timedelta] | None = None,
    ) -> None:
        """Keep CAs in *store*; *files* is where an older version kept them."""
        self.store = store
        self.signer = signer
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

        Raises:
            Broken: The register, or what an older version left, does not hold what it should.
            Unreachable: A last revocation list cannot be signed now.
        """
        async with self.changing:
            members = await self.store.ca_members(upstream)
            if not members:
                await self._take_over(upstream)
            elif any(member.role is CaRole.PLANNED for member in members):
                await self._undo(upstream)
            for member in await self.store.ca_members(upstream):
                if member.role is CaRole.RETIRING:
                    await self.finish_retiring(upstream, member.key_id or "")
            return await self.load(upstream)

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
    async def making(self, upstream: str, *stems: str) -> AsyncIterator[tuple[str, ...]]:
        """Yield a name for a new key for each of *stems*, announced before it is made.

        What is not in the register when the block ends is destroyed again: at once when the
        block fails, at the next start when the process is killed.
        """
        if any(one.role is CaRole.PLANNED for one in await self.store.ca_members(upstream)):
            await self._undo(upstream)
        members = list(await self.store.ca_members(upstream))
        taken = {member.key_id for member in members}
        names = []
        for stem in stems:
            names.append(await self._new_name(stem, taken))
        planned = [self._planned(upstream, name) for name in names]
        await self.store.replace_ca_members(upstream, [*members, *planned], None)
        try:
            yield tuple(names)
        except (Broken, Conflict, Refused, Unreachable):
            await self._undo(upstream)
            raise

    async def finish_retiring(self, upstream: str, key_id: str) -> CaState:
        """Sign the last list of a retiring issuer, destroy its key, and note that.

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
        await self.signer.destroy_key(key_id)
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
                await self.signer.destroy_key(member.key_id)
                log.warning(
                    "key of an unfinished making destroyed",
                    upstream=upstream,
                    key_id=member.key_id,
                )
        await self.store.replace_ca_members(upstream, without(members, CaRole.PLANNED), None)

    async def _new_name(self, stem: str, taken: Collection[str | None]) -> str:
        for number in range(1, MAX_KEYS + 1):
            name = f"{stem}-{number}"
            if name not in taken and not await self.signer.has_key(name):
                return name
        raise Broken(f"there are {MAX_KEYS} keys called {stem}-1 and so on, expected none")

    def _planned(self, upstream: str, key_id: str) -> CaMember:
        return CaMember(
            ca=upstream,
            role=CaRole.PLANNED,
            key_id=key_id,
            subject="",
            certificate_der=None,
            since=self.clock.now(),
        )


def open_registry(config: Config, store: Store, signer: KeyRing, clock: Clock) -> CaRegistry:
    """Return the register of the built-in CAs that are configured."""
    return CaRegistry(
        store,
        signer=signer,
        clock=clock,
        files=config.state / "ca",
        crl_lifetimes={
            name: upstream.crl_lifetime
            for name, upstream in config.upstreams.items()
            if isinstance(upstream, BuiltinUpstream)
        },
    )
