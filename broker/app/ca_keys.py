"""The built-in CAs' keys, in files and in Vault: what they are called, and how they come to an end.

In a file a key is made, and destroyed.  In Vault it is one version of a transit key, of which
nothing of ours may delete any: a version ends when the minimum versions are raised past it, and
that ends every earlier one too.  So it is done only as far as none of them is in use any more; what
is left is for those to delete who may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyPlaces, KeyStores
from broker.issuance.ports import KeyRing
from broker.issuance.records import CaMember, CaRole
from broker.keys.vault_ids import VaultKeyId, is_vault_id, parse_vault_key_id

__all__ = ["CaKeys", "PlannedKey", "left_in_vault", "next_file_key_id"]

MAX_KEYS: Final = 100
"""Most names that are tried for a new key; one is left out for each that there is already."""


@dataclass(frozen=True, slots=True)
class PlannedKey:
    """A key that is about to be used for the first time.

    Attributes:
        key_id: What it is called.
        is_made: Whether it is there already, since somebody else makes the keys of that place.
    """

    key_id: str
    is_made: bool


class CaKeys:
    """Names, checks and ends the keys of CAs; `store` makes them and signs with them."""

    def __init__(self, store: KeyStores, places: KeyPlaces | None) -> None:
        """Keep keys in *store*, where *places* says; without it in files."""
        self.store = store
        self._places = places

    async def plan(self, upstream: str, role: str, taken: Collection[str]) -> PlannedKey:
        """Return the next key of that *role*, ``root`` or ``issuing``; nothing is made.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: No key can be made there, or the one that somebody else made is unfit.
        """
        if self._places is None:
            key_id = await next_file_key_id(self.store, upstream, role, taken)
        else:
            key_id = await self._places.next_ca_key_id(upstream, role, tuple(taken))
        if key_id in taken:
            raise Broken(f"key '{key_id}' of built-in CA '{upstream}' was used already")
        is_made = await self.store.has_key(key_id)
        if is_made:
            await self.verify_fit(key_id)
        return PlannedKey(key_id, is_made)

    async def verify_fit(self, key_id: str) -> None:
        """See that a CA may sign with this key: it cannot leave where it is, and stays as it is.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: It must not be used; says why.
        """
        faults = [fault.reason for fault in await self.store.inspect(key_id)]
        if faults:
            raise Broken(f"key '{key_id}' is not fit for a CA: {'; '.join(faults)}")

    async def verify_reachable(self, key_id: str) -> None:
        """See that whoever keeps this key answers; raises Unreachable."""
        await self.store.inspect(key_id)

    async def drop(self, key_id: str) -> None:
        """Do away with a key that was never used.

        A version in Vault is left unused: to end it would end those before it as well.
        """
        if not is_vault_id(key_id):
            await self.store.destroy_key(key_id)

    async def end(self, key_id: str, members: Iterable[CaMember]) -> None:
        """See that the key signs no more, as far as that can be while *members* use theirs.

        Of the versions of one key in Vault the earlier ones have to end first: what stays behind
        an earlier one that is in use ends together with it.  Done twice it does nothing.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: No identity that may do so is configured; says how others do it.
        """
        if not is_vault_id(key_id):
            await self.store.destroy_key(key_id)
            return
        living = _living_versions(parse_vault_key_id(key_id), members, ending=key_id)
        if not living:
            await self.store.destroy_key(key_id)
            return
        oldest = living[0]
        try:
            await self.store.retire_before(str(oldest))
        except Broken as error:
            minimum = f"min_decryption_version={oldest.version} "
            minimum += f"min_encryption_version={oldest.version}"
            raise Broken(
                f"key '{key_id}' signed its last list and still has to end: {error.reason}; by "
                f"hand: vault write {oldest.mount}/keys/{oldest.name}/config {minimum}, then "
                "penstock ca rotate retire again"
            ) from error


async def next_file_key_id(keys: KeyRing, upstream: str, role: str, taken: Collection[str]) -> str:
    """Return the name that the next key of that role will have in a file."""
    stem = f"ca-{upstream}-{role}"
    for number in range(1, MAX_KEYS + 1):
        name = f"{stem}-{number}"
        if name not in taken and not await keys.has_key(name):
            return name
    raise Broken(f"there are {MAX_KEYS} keys called {stem}-1 and so on, expected none")


def left_in_vault(members: Sequence[CaMember]) -> list[str]:
    """Return the commands by which those who may delete retired versions from Vault for good."""
    commands: dict[str, None] = {}
    for member in members:
        if member.role is not CaRole.RETIRED or not is_vault_id(member.key_id or ""):
            continue
        key = parse_vault_key_id(member.key_id or "")
        path = f"{key.mount}/keys/{key.name}"
        living = _living_versions(key, members)
        if living and living[0].version > key.version:
            commands[f"vault write {path}/trim min_available_version={living[0].version}"] = None
        elif not living:
            commands[f"vault write {path}/config deletion_allowed=true"] = None
            commands[f"vault delete {path}"] = None
    return list(commands)


def _living_versions(
    key: VaultKeyId, members: Iterable[CaMember], *, ending: str | None = None
) -> list[VaultKeyId]:
    """Return the versions of *key* that are in use, the earliest first."""
    held = (
        one.key_id for one in members if one.role is not CaRole.RETIRED and one.key_id != ending
    )
    ids = [parse_vault_key_id(one) for one in held if one is not None and is_vault_id(one)]
    return sorted((one for one in ids if one.key == key.key), key=lambda one: one.version)
