"""All keys of the broker, in files and in Vault, told apart by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyFault, KeyStores
from broker.issuance.ports import KeyRing
from broker.keys.vault_ids import is_vault_id

__all__ = ["KeyRings", "VaultKeys"]


class VaultKeys(KeyStores, Protocol):
    """Keys in Vault, of which it can be asked how many there are."""

    async def latest_version(self, mount: str, name: str) -> int:
        """Return the latest version of a key, 0 where there is none; raises Unreachable."""
        ...

    async def public_key_now(self, key_id: str) -> bytes:
        """Return the SPKI DER of what lies under this id now, whatever was pinned."""
        ...

    def forget(self, key_id: str) -> None:
        """Forget what was seen of this key, so that it is looked at as for the first time."""
        ...


class KeyRings:
    """Implements ``key_ports.KeyStores`` over a ring of key files and, where configured, Vault."""

    def __init__(self, files: KeyRing, vault: VaultKeys | None = None) -> None:
        """Ask *vault* for keys whose id says that they lie there, and *files* for all others."""
        self._files = files
        self._vault = vault

    @property
    def files(self) -> KeyRing:
        """Return the keys in files."""
        return self._files

    @property
    def vault(self) -> VaultKeys:
        """Return the keys in Vault; raises Broken where none is configured."""
        if self._vault is None:
            raise Broken("no Vault is configured, add the section vault: to the configuration")
        return self._vault

    async def create_key(self, key_id: str, kind: str) -> bytes:
        """Make a key and return its SPKI DER; see the port."""
        return await self._of(key_id).create_key(key_id, kind)

    async def public_key(self, key_id: str) -> bytes:
        """Return the SPKI DER; see the port."""
        return await self._of(key_id).public_key(key_id)

    async def public_key_now(self, key_id: str) -> bytes:
        """Return the SPKI DER of what lies under this id now; a file is what it was opened as."""
        if is_vault_id(key_id):
            return await self._of_vault(key_id).public_key_now(key_id)
        return await self._files.public_key(key_id)

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the JWS signature octets over *data*; see the port."""
        return await self._of(key_id).sign(key_id, data)

    async def has_key(self, key_id: str) -> bool:
        """Return whether there is a key of that name, whatever state it is in."""
        return await self._of(key_id).has_key(key_id)

    async def destroy_key(self, key_id: str) -> None:
        """Bring the key to its end, as far as its store lets us; see the port."""
        await self._of(key_id).destroy_key(key_id)

    async def retire_before(self, key_id: str) -> None:
        """See that no earlier version of this key signs any more; of a file there is none."""
        if is_vault_id(key_id):
            await self._of_vault(key_id).retire_before(key_id)

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        """Return what must not be so about this key; a file tells when it is opened."""
        if not is_vault_id(key_id):
            return ()
        return await self._of_vault(key_id).inspect(key_id)

    def forget(self, key_id: str) -> None:
        """Forget what was seen of a key in Vault; a file is read once."""
        if is_vault_id(key_id):
            self._of_vault(key_id).forget(key_id)

    def _of(self, key_id: str) -> KeyRing:
        return self._of_vault(key_id) if is_vault_id(key_id) else self._files

    def _of_vault(self, key_id: str) -> VaultKeys:
        if self._vault is None:
            raise Broken(
                f"key {key_id} lies in Vault, and none is configured: add the section vault: to "
                "the configuration"
            )
        return self._vault
