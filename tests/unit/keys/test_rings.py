"""Keys in files and in Vault, told apart by their ids."""

import pytest

from broker.issuance.errors import Broken
from broker.keys.rings import KeyRings
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing


class VaultRing(FakeTransitRing):
    """A fake transit engine that can be asked for more."""

    def forget(self, key_id: str) -> None:
        """See the port."""

    async def public_key_now(self, key_id: str) -> bytes:
        """See the port."""
        return await self.public_key(key_id)

    async def latest_version(self, mount: str, name: str) -> int:
        """See the port."""
        found = self.made.get(f"vault:{mount}/{name}")
        return 0 if found is None else found.latest


IDS = ["account-le@default", "vault:transit/penstock.default.le#1"]


@pytest.mark.parametrize("key_id", IDS, ids=["file", "vault"])
async def test_each_id_is_asked_of_its_own_keeper(key_id: str) -> None:
    """And of no other."""
    files, vault = FakeSigner(), VaultRing()
    rings = KeyRings(files, vault)
    made = await rings.create_key(key_id, "ec-p256")
    assert (key_id in files.keys) != (key_id in vault.signer.keys)
    assert await rings.public_key(key_id) == made
    assert await rings.has_key(key_id)
    assert len(await rings.sign(key_id, b"data")) == 64
    assert not await rings.inspect(key_id)
    await rings.retire_before(key_id)
    rings.forget(key_id)
    await rings.destroy_key(key_id)
    assert rings.files is files
    assert rings.vault is vault


async def test_key_in_vault_needs_one_configured() -> None:
    """A record may name one after the section was taken out; keys in files go on."""
    rings = KeyRings(FakeSigner())
    await rings.create_key("account-le@default", "ec-p256")
    for ask in (rings.public_key, rings.has_key, rings.inspect, rings.retire_before):
        with pytest.raises(Broken, match="lies in Vault, and none is configured: add the section"):
            await ask("vault:transit/key#1")
    with pytest.raises(Broken, match="no Vault is configured"):
        _ = rings.vault


async def test_nothing_is_wrong_with_a_file_that_vault_would_know() -> None:
    """And it has no versions that could be retired."""
    rings = KeyRings(FakeSigner())
    assert await rings.inspect("account-le@default") == ()
    await rings.retire_before("account-le@default")
