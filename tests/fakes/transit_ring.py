"""A transit engine in memory: keys with versions, of which the oldest may sign no more.

It keeps the rules of Vault that matter: a version is made by rotating and never goes away, and who
makes or configures keys is another identity than who signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.key_ports import KeyFault
from broker.issuance.upstream_key_ports import KeyUses
from tests.fakes.signer import FakeSigner

__all__ = ["FakeTransitRing", "Versions"]

MOUNT = "transit"


@dataclass
class Versions:
    """One key."""

    kind: str
    latest: int = 0
    oldest_signing: int = 1


@dataclass
class FakeTransitRing:
    """Implements ``key_ports.KeyStores`` and ``key_ports.KeyPlaces`` for keys in Vault alone."""

    signer: FakeSigner = field(default_factory=FakeSigner)
    """Has the key of each version."""
    made: dict[str, Versions] = field(default_factory=dict)
    """``vault:MOUNT/NAME`` → its versions."""
    is_sealed: bool = False
    may_rotate: bool = True
    """Whether an identity that makes and configures keys is configured."""
    rotate_refusal: str | None = None
    """Why that identity cannot log in."""
    mount: str = MOUNT
    uses: KeyUses | None = None
    """Which versions were ever ours; without it: the present one."""

    async def latest_version(self, mount: str, name: str) -> int:
        self._answer()
        found = self.made.get(f"vault:{mount}/{name}")
        return 0 if found is None else found.latest

    # ------------------------------------------------------------------------------- as places

    async def next_account_key_id(self, upstream: str, community: str, current: str | None) -> str:
        self._answer()
        name = f"vault:{self.mount}/penstock.{community}.{upstream}"
        used = [current or "", *(await self.uses.used_key_ids() if self.uses is not None else ())]
        spent = max((split(one)[1] for one in used if one.startswith(f"{name}#")), default=0)
        latest = self.made[name].latest if name in self.made else 0
        if latest <= spent and not self.may_rotate:
            raise Broken(f"no identity that makes keys is configured for {self.mount}")
        return f"{name}#{max(latest, spent + 1)}"

    async def next_ca_key_id(self, upstream: str, role: str, taken: Sequence[str]) -> str:
        raise NotImplementedError

    # ------------------------------------------------------------------------------- as a ring

    async def create_key(self, key_id: str, kind: str) -> bytes:
        self._answer()
        name, version = split(key_id)
        found = self.made.get(name, Versions(kind))
        if version <= found.latest:
            raise Conflict(f"there is a key {key_id} already")
        self._log_in()
        self.made[name] = found
        for number in range(found.latest + 1, version + 1):
            await self.signer.create_key(f"{name}#{number}", found.kind)
        found.latest = version
        return await self.signer.public_key(key_id)

    async def public_key(self, key_id: str) -> bytes:
        self._answer()
        return await self.signer.public_key(key_id)

    async def has_key(self, key_id: str) -> bool:
        self._answer()
        return await self.signer.has_key(key_id)

    async def sign(self, key_id: str, data: bytes) -> bytes:
        self._answer()
        name, version = split(key_id)
        if version < self.made[name].oldest_signing:
            raise Broken(f"key {key_id} signs no more")
        return await self.signer.sign(key_id, data)

    async def destroy_key(self, key_id: str) -> None:
        """Nothing of ours may delete: an unused version stays."""
        self._answer()

    async def retire_before(self, key_id: str) -> None:
        self._answer()
        name, version = split(key_id)
        found = self.made[name]
        if found.oldest_signing < version:
            self._log_in()
            found.oldest_signing = version

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        self._answer()
        return ()

    # ------------------------------------------------------------------------------- by others

    async def rotate(self, key_id: str) -> None:
        """Make a version as somebody else would, who knows nothing of accounts."""
        name, _ = split(key_id)
        found = self.made[name]
        found.latest += 1
        await self.signer.create_key(f"{name}#{found.latest}", found.kind)

    def signing(self, key_id: str) -> list[int]:
        """Return the versions that still sign."""
        found = self.made[split(key_id)[0]]
        return list(range(found.oldest_signing, found.latest + 1))

    def _answer(self) -> None:
        if self.is_sealed:
            raise Unreachable("Vault is sealed")

    def _log_in(self) -> None:
        if not self.may_rotate:
            raise Broken("no identity that makes keys is configured")
        if self.rotate_refusal is not None:
            raise Unreachable(self.rotate_refusal)


def split(key_id: str) -> tuple[str, int]:
    """Return the key and the version."""
    name, _, version = key_id.rpartition("#")
    return name, int(version)
