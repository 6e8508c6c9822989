"""What ``penstock check`` reads from the store."""

from pathlib import Path

import pytest

from broker.app.inspecting import DATABASE, inspect_authorities
from broker.config import Config
from broker.storage.sqlite import SqliteStore
from tests.fakes.authority_keeper import Keeper
from tests.fakes.clock import FakeClock
from tests.unit.config.conftest import parsed


def config_in(directory: Path, max_lifetime: str) -> Config:
    """Return a configuration whose built-in CA grants lifetimes up to *max_lifetime*."""
    return parsed(
        {
            "state": str(directory),
            "upstreams": {
                "local": {
                    "kind": "built-in",
                    "base_url": "http://pki.corp.example:8080",
                    "profiles": {"server": {"lifetime": "1d", "max_lifetime": max_lifetime}},
                }
            },
        }
    )


@pytest.mark.parametrize(
    ("max_lifetime", "is_told"), [("90d", False), ("36500d", True)], ids=["time", "late"]
)
async def test_ageing_ca_is_told_of(tmp_path: Path, max_lifetime: str, *, is_told: bool) -> None:
    """An issuer that cannot grant the longest lifetime for much longer has to be rotated."""
    async with Keeper.open(tmp_path) as keeper:
        await keeper.initialise()
        # Beside a broker that runs, and whose store is locked.
        found = await inspect_authorities(config_in(tmp_path, max_lifetime), FakeClock())
    assert any("penstock ca rotate prepare" in one for one in found) == is_told
    assert all(one.startswith("built-in CA 'local': ") for one in found)


async def test_nothing_is_told_where_nothing_is(tmp_path: Path) -> None:
    """Before the first start, and before the CA is made; and nothing is made by looking."""
    assert await inspect_authorities(config_in(tmp_path, "90d")) == ()
    assert not (tmp_path / DATABASE).exists()
    await (await SqliteStore.open(tmp_path / DATABASE)).close()
    assert list(await inspect_authorities(config_in(tmp_path, "90d"))) == []


async def test_store_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    """What was not looked at is not said to be fine."""
    (tmp_path / DATABASE).write_bytes(b"not a database at all, and long enough to be looked at")
    (found,) = await inspect_authorities(config_in(tmp_path, "90d"))
    assert found.startswith("built-in CAs were not looked at: ")
