"""Secrets of the store put under the key that they are to be sealed with, beside everything else.

An earlier version kept MAC keys in the clear; a configuration may begin to name a transit key, or
that key may have been rotated.  Each is brought up to date in the background, whenever whoever
seals can be reached.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.issuance.key_ports import Resealed, Sealed, Sealer, SealingStore
from broker.issuance.ports import Clock
from broker.issuance.records import EabKeyRecord

__all__ = ["SecretSealing", "context_of"]

PORTION: Final = 100
"""Most rows that are sealed anew in one transaction: at 2 ms for each through Vault, a fifth of a
second's work is lost when it is cut off."""


def context_of(community: str, key_id: str) -> str:
    """Return what says whose a MAC key is: no other row has it, so that none opens for another.

    A community's name has no ':' in it.
    """
    return f"external account binding key {community}:{key_id}"


class SecretSealing:
    """Seals what is not sealed as it should be."""

    def __init__(self, store: SealingStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._is_log_folded = False

    async def run(self) -> None:
        """Seal what lies in the clear, and what is sealed under another key; both may be nothing.

        Raises:
            Unreachable: Whoever seals, or the store, cannot be reached now.
            Broken: It cannot be sealed; some rows may be left as they are.
        """
        plain = await self._store.unsealed_eab_keys()
        if plain:
            # All in one transaction, for the table's old pages are overwritten with it.
            self._is_log_folded = False
            await self._keep([await self._seal(row, row.mac_key) for row in plain])
        if not self._is_log_folded:
            # Once after each start, too: the last one may have ended before it came to this.
            with suppress(Unreachable):  # something reads: the next turn comes soon enough
                await self._store.fold_log()
                self._is_log_folded = True
        await self._seal_anew()

    async def _seal_anew(self) -> None:
        if not await self._store.eab_keys_not_under("", 1):
            return  # nothing is sealed, so nobody need be asked by what
        key = await self._sealer.sealing_key()
        faults: list[str] = []
        # Each row is tried once: one that does not open stays, and the key may be rotated again.
        seen: set[tuple[str, str]] = set()
        while rows := await self._next(key, seen):
            resealed = []
            for row in rows:
                seen.add((row.community, row.key_id))
                try:
                    resealed.append(await self._seal(row, await self._unseal(row)))
                except Broken as fault:
                    faults.append(fault.reason)
            if resealed:
                await self._keep(resealed)
        if faults:
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            raise Broken(f"{faults[0]}{more}")

    async def _next(self, key: str, seen: Collection[tuple[str, str]]) -> Sequence[EabKeyRecord]:
        found = await self._store.eab_keys_not_under(key, PORTION + len(seen))
        return [row for row in found if (row.community, row.key_id) not in seen][:PORTION]

    async def _unseal(self, row: EabKeyRecord) -> bytes:
        sealed = Sealed(row.sealed_by or "", row.mac_key)
        return await self._sealer.unseal(sealed, context_of(row.community, row.key_id))

    async def _seal(self, row: EabKeyRecord, secret: bytes) -> Resealed:
        context = context_of(row.community, row.key_id)
        return Resealed(before=row, sealed=await self._sealer.seal(secret, context))

    async def _keep(self, resealed: Sequence[Resealed]) -> None:
        event = Event(
            kind=EventKind.SECRETS_SEALED,
            at=self._clock.now(),
            actor=SYSTEM,
            data={
                "secrets": len(resealed),
                "under": sorted({one.sealed.by for one in resealed}),
                "was_in_the_clear": any(one.before.sealed_by is None for one in resealed),
            },
        )
        await self._store.reseal_eab_keys(resealed, event)
