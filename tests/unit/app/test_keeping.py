"""The keys of one broker, put together."""

from pathlib import Path

import pytest

from broker.app.keeping import open_keys
from broker.app.secrets import Secrets
from broker.issuance.errors import Broken
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.unit.config.conftest import parsed


async def test_keys_lie_in_files_without_vault(tmp_path: Path) -> None:
    """All stays as it was."""
    (tmp_path / "pass").write_text("correct horse battery")
    (tmp_path / "pass").chmod(0o600)
    config = parsed({"state": str(tmp_path), "keys": {"passphrase": f"file:{tmp_path / 'pass'}"}})
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        keys = open_keys(config, store, None, Secrets(config, None, FakeClock()))
        key_id = await keys.places.next_ca_key_id("local", "issuing", ())
        await keys.rings.create_key(key_id, "ec-p256")
        assert (tmp_path / "keys" / f"{key_id}.pem").is_file()
        with pytest.raises(Broken, match="none is configured"):
            await keys.rings.sign("vault:transit/key#1", b"data")
    finally:
        await store.close()
