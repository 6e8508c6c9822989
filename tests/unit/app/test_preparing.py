"""What is done before the broker serves; a second time it changes nothing."""

from pathlib import Path

import pytest

from broker.app.assembly import assembled
from broker.app.preparing import prepare
from broker.config import Config
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.storage.faults import StoreLocked
from tests.unit.app.test_assembly import config_in

ANNA = Actor("operator:anna")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two built-in CAs, neither of which was made."""
    built_in = {"kind": "built-in", "base_url": "http://pki.corp.example:8080"}
    return config_in(tmp_path, upstreams={"local": built_in, "nodes": dict(built_in)})


async def test_cas_are_made_once(config: Config) -> None:
    """A second run finds them there, whatever it asks for."""
    wanted = {"local": (), "nodes": ("node.penstock.internal",)}
    assert await prepare(config, wanted, ANNA) == ["local", "nodes"]
    async with assembled(config) as broker:
        before = [await broker.operations.ca_show(upstream=one) for one in ("local", "nodes")]
    assert await prepare(config, {**wanted, "local": ("else.example",)}, ANNA) == []
    async with assembled(config) as broker:
        after = [await broker.operations.ca_show(upstream=one) for one in ("local", "nodes")]
    assert after == before


async def test_store_is_made_where_nothing_is_wanted(config: Config) -> None:
    """And brought up to date, which is all that a broker without built-in CAs needs."""
    assert await prepare(config, {}, ANNA) == []
    assert (config.state / "penstock.db").is_file()


async def test_ca_that_is_not_configured_is_refused_before_anything(config: Config) -> None:
    """A typing error makes no other CA either."""
    with pytest.raises(Broken, match="no upstream of kind built-in is called 'locla'"):
        await prepare(config, {"local": (), "locla": ()}, ANNA)
    assert not config.state.exists()


async def test_broker_that_runs_is_left_alone(config: Config) -> None:
    """Its store is locked."""
    async with assembled(config):
        with pytest.raises(StoreLocked):
            await prepare(config, {"local": ()}, ANNA)
