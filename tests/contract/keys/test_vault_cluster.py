"""A real cluster: standbys that forward or redirect, and the loss of the active node."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.clock import SystemClock
from broker.issuance.errors import Unreachable
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, VaultState, read_answer
from broker.keys.vault_http import AiohttpExchange, headers_for
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings
from tests.peers.vault_cluster import VaultCluster

pytestmark = pytest.mark.peers

SIGN: Final = "transit/sign/key/sha2-256"
INPUT: Final = {"input": "aGVsbG8="}

ELECTION_SECONDS: Final = 60.0
"""Longest time until the others have elected an active node; it takes two to ten."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultCluster]:
    """Three nodes, with a key."""
    with VaultCluster(tmp_path_factory.mktemp("cluster")) as made:
        made.nodes[0].enable("transit", "transit")
        made.nodes[0].ask("POST", "transit/keys/key", {"type": "ecdsa-p256"})
        yield made


def settings(cluster: VaultCluster, *addresses: str, state: Path) -> VaultSettings:
    """Return how the cluster is reached at *addresses*."""
    token = cluster.nodes[0].root_token
    serve = TokenSettings(read_token=token.encode, place="here")
    return VaultSettings(
        addresses=addresses,
        state_dir=state,
        ca_bundle=cluster.ca_bundle,
        identities={"": Identity(serve=serve)},
    )


async def test_standby_signs_by_forwarding(cluster: VaultCluster, tmp_path: Path) -> None:
    """One address of any node is enough."""
    standby = cluster.standbys[0]
    one = settings(cluster, standby.url, state=tmp_path)
    connections = VaultConnections(one, SystemClock())
    try:
        answer = await connections.serving("transit").post(SIGN, INPUT)
    finally:
        await connections.close()
    assert answer["signature"].startswith("vault:v1:")


async def test_redirect_of_a_real_standby_names_the_active_node(
    cluster: VaultCluster, tmp_path: Path
) -> None:
    """Its ``api_addr``, which is why every node is listed under that."""
    active, standby = cluster.active, cluster.standbys[0]
    exchange = AiohttpExchange(settings(cluster, standby.url, state=tmp_path))
    headers = headers_for(active.root_token, None) | {"X-Vault-No-Request-Forwarding": "true"}
    try:
        raw = await exchange.send(standby.url, "GET", "/v1/transit/keys/key", headers, None)
    finally:
        await exchange.close()
    with pytest.raises(Away) as raised:
        read_answer(raw, "GET transit/keys/key")
    assert raised.value.state is VaultState.REDIRECTING
    target = raised.value.target or ""
    assert target.startswith(f"{active.url}/v1/")
    both = Addresses((standby.url, active.url), time.monotonic)
    assert both.named_by(target) == active.url


async def test_loss_of_the_active_node_is_over_once_another_is_elected(
    cluster: VaultCluster, tmp_path: Path
) -> None:
    """Nothing has to be started again; the return is told."""
    active = cluster.active
    addresses = [active.url, *(node.url for node in cluster.nodes if node is not active)]
    connections = VaultConnections(settings(cluster, *addresses, state=tmp_path), SystemClock())
    connections.watch()
    session = connections.serving("transit")
    try:
        await session.post(SIGN, INPUT)
        await asyncio.to_thread(active.kill)
        async with asyncio.timeout(ELECTION_SECONDS):
            while True:
                try:
                    await session.post(SIGN, INPUT)
                except Unreachable:
                    await asyncio.sleep(0.2)
                else:
                    break
        assert session.health().state is VaultState.OK
    finally:
        await connections.close()
