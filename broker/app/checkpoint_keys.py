"""The key that signs checkpoints of the audit chain: where it lies, and that it is there.

In Vault it is the latest version of one transit key, which the broker can use and not read.  In a
file it is encrypted under the passphrase of all key files: the embedded default, and the lesser
choice, since whoever has the host and the passphrase signs what they like.
"""

from __future__ import annotations

from typing import Final, Protocol

from broker.config import Config
from broker.config.vault import Vault
from broker.issuance.errors import Broken, Conflict
from broker.issuance.ports import KeyRing
from broker.keys.rings import VaultKeys
from broker.keys.vault_ids import VaultKeyId

__all__ = ["CHECKPOINT_KIND", "FILE_KEY", "ConfiguredCheckpointKeys", "checkpoint_key_name"]

CHECKPOINT_KIND: Final = "ec-p256"
"""The kind of key that is made."""

FILE_KEY: Final = "audit-checkpoints"
"""The key file's name."""


class Rings(Protocol):
    """The keys in files and in Vault, apart."""

    @property
    def files(self) -> KeyRing:
        """Return the keys in files."""
        ...

    @property
    def vault(self) -> VaultKeys:
        """Return the keys in Vault; raises Broken where none is configured."""
        ...


def checkpoint_key_name(vault: Vault) -> str:
    """Return the name of the transit key."""
    return f"{vault.key_prefix}.audit"


class ConfiguredCheckpointKeys:
    """Implements ``checkpoints.CheckpointKeys`` as configured."""

    def __init__(self, config: Config, rings: Rings) -> None:
        """Keep where to look; nothing is asked or made before the first call."""
        self._store = config.audit.checkpoints.key_store
        self._vault = config.vault
        self._rings = rings
        self._is_made = False

    async def checkpoint_key_id(self) -> str:
        """Return the id of the key that signs now, after making it where there is none."""
        if self._store == "file" or self._vault is None:
            if not self._is_made and not await self._rings.files.has_key(FILE_KEY):
                await self._make(self._rings.files, FILE_KEY)
            self._is_made = True
            return FILE_KEY
        mount = self._store.removeprefix("vault:")
        name = checkpoint_key_name(self._vault)
        # Whoever rotates it in Vault has the next checkpoint signed by its next version.
        latest = await self._rings.vault.latest_version(mount, name)
        key_id = str(VaultKeyId(mount, name, max(latest, 1)))
        if latest == 0:
            await self._make(self._rings.vault, key_id)
        return key_id

    async def _make(self, keys: KeyRing, key_id: str) -> None:
        try:
            await keys.create_key(key_id, CHECKPOINT_KIND)
        except Conflict:
            return  # somebody else made it just now
        except Broken as error:
            raise Broken(
                f"there is no key for the audit chain's checkpoints: {error.reason}"
            ) from (error)
