"""Where the key of checkpoints lies, and that it is there."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from broker.app.checkpoint_keys import FILE_KEY, ConfiguredCheckpointKeys
from broker.issuance.errors import Broken
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing
from tests.unit.config.conftest import parsed

VAULT = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": {"method": "token", "token": "file:/run/vault-token"},
}
IN_VAULT = {"vault": VAULT, "audit.checkpoints.key_store": "vault:transit"}


@dataclass
class Rings:
    """Both places."""

    files: Any = field(default_factory=FakeSigner)
    vault: Any = field(default_factory=FakeTransitRing)


async def test_key_file_is_made_once() -> None:
    """And found again by the next start."""
    rings = Rings()
    for _ in range(2):
        keys = ConfiguredCheckpointKeys(parsed(), rings)
        assert await keys.checkpoint_key_id() == FILE_KEY
        assert await keys.checkpoint_key_id() == FILE_KEY
    assert list(rings.files.keys) == [FILE_KEY]


async def test_key_in_vault_is_made_where_we_may() -> None:
    """By the name that the policies of penstock vault setup know."""
    rings = Rings()
    keys = ConfiguredCheckpointKeys(parsed(IN_VAULT), rings)
    assert await keys.checkpoint_key_id() == "vault:transit/penstock.audit#1"
    assert await keys.checkpoint_key_id() == "vault:transit/penstock.audit#1"
    assert not rings.files.keys


async def test_latest_version_signs() -> None:
    """Whoever rotates it in Vault need not tell us."""
    rings = Rings()
    keys = ConfiguredCheckpointKeys(parsed(IN_VAULT), rings)
    await keys.checkpoint_key_id()
    await rings.vault.create_key("vault:transit/penstock.audit#2", "ec-p256")
    assert await keys.checkpoint_key_id() == "vault:transit/penstock.audit#2"


async def test_key_that_nobody_of_ours_may_make_is_asked_for() -> None:
    """A file does not take its place."""
    rings = Rings(vault=FakeTransitRing(may_rotate=False))
    keys = ConfiguredCheckpointKeys(parsed(IN_VAULT), rings)
    with pytest.raises(Broken, match="no key for the audit chain's checkpoints"):
        await keys.checkpoint_key_id()
    assert not rings.files.keys
