"""hvac in its threads, over a wire of ours."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, Denied, VaultNotFound, VaultState
from broker.keys.vault_pool import HvacPool
from broker.keys.vault_settings import VaultSettings
from tests.fakes.fake_vault import FakeVault, answer, refused

A, B = "https://a:8200", "https://b:8200"


@pytest.fixture
def vault() -> FakeVault:
    """A Vault of values."""
    return FakeVault()


@pytest.fixture
def pool(vault: FakeVault, tmp_path: Path) -> Iterator[HvacPool]:
    """Threads that reach it."""
    settings = VaultSettings(addresses=(A, B), state_dir=tmp_path, namespace="pki")
    made = HvacPool(vault.blocking, Addresses((A, B), lambda: 0.0), settings)
    yield made
    made.close()


async def test_call_runs_in_a_thread_of_the_pool_with_the_token(
    vault: FakeVault, pool: HvacPool
) -> None:
    """Hvac's own calls come out as requests of ours."""
    vault.on("/v1/transit/keys/k", answer({"data": {"latest_version": 2}}))

    def call(client: Any) -> tuple[str, Any]:
        return threading.current_thread().name, client.secrets.transit.read_key("k")

    name, found = await pool.run(call, "hvs.token")
    assert name.startswith("vault")
    assert found["data"]["latest_version"] == 2
    (asked,) = vault.asked
    assert (asked.method, asked.path, asked.token) == ("GET", "/v1/transit/keys/k", "hvs.token")
    assert asked.headers["X-Vault-Namespace"] == "pki"


async def test_environment_gives_no_token(
    vault: FakeVault, pool: HvacPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hvac would take VAULT_TOKEN for a client that has none."""
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-somebody-else")
    vault.on("/v1/x", answer({}))
    await pool.run(lambda client: client.adapter.get("/v1/x"), None)
    assert vault.asked[0].token is None


async def test_lists_and_wrapping_are_asked_for_as_vault_wants_it(
    vault: FakeVault, pool: HvacPool
) -> None:
    """LIST is a GET with a parameter, wrapping a header."""
    vault.on("/v1/kv", answer({"data": {"keys": ["a"]}}))
    await pool.run(lambda client: client.adapter.list("/v1/kv/metadata"), "t")
    await pool.run(lambda client: client.adapter.post("/v1/kv", json={}, wrap_ttl="60s"), "t")
    assert vault.paths() == ["GET kv/metadata?list=true", "POST kv"]
    assert vault.asked[1].headers["X-Vault-Wrap-TTL"] == "60s"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(403, Denied, id="403"),
        pytest.param(404, VaultNotFound, id="404"),
        pytest.param(400, Broken, id="400"),
        pytest.param(429, Away, id="429"),
        pytest.param(307, Away, id="307"),
    ],
)
async def test_refusals_are_told_in_our_words(
    vault: FakeVault, pool: HvacPool, status: int, kind: type[Exception]
) -> None:
    """No exception of hvac's comes out."""
    vault.on("/v1/x", refused(status))
    with pytest.raises(kind):
        await pool.run(lambda client: client.adapter.post("/v1/x", json={}), "t")


async def test_change_is_asked_of_one_node_unless_that_did_nothing(
    vault: FakeVault, pool: HvacPool
) -> None:
    """After a lost answer nobody knows; a sealed node has done nothing."""
    vault.on("/v1/x", answer({}))
    vault.on("a:8200/v1/x", refused(503, "Vault is sealed"))
    await pool.run(lambda client: client.adapter.post("/v1/x", json={}), "t")
    assert [each.address for each in vault.asked] == [A, B]
    vault.on("b:8200/v1/x", Away(VaultState.SLOW, "slow", left_nothing=False))
    with pytest.raises(Away, match="slow"):
        await pool.run(lambda client: client.adapter.post("/v1/x", json={}), "t")
    assert [each.address for each in vault.asked] == [A, B, B]


async def test_what_hvac_refuses_is_broken(pool: HvacPool) -> None:
    """It looks at parameters before it asks anybody."""

    def create(client: Any) -> Any:
        return client.secrets.transit.create_key("k", key_type="no-such-kind")

    with pytest.raises(Broken, match="ParamValidationError"):
        await pool.run(create, "t")


async def test_closed_pool_is_away(pool: HvacPool) -> None:
    """Whoever still asks at the end is told so."""
    pool.close()
    with pytest.raises(Away, match="stopping"):
        await pool.run(lambda client: client.adapter.get("/v1/x"), "t")


@pytest.mark.parametrize("name", ["hvac", "requests", "urllib3"])
def test_libraries_that_send_tokens_say_nothing_but_errors(pool: HvacPool, name: str) -> None:
    """Whatever level a person asks for."""
    assert not logging.getLogger(name).isEnabledFor(logging.WARNING)
