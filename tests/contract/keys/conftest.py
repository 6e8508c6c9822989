"""The keepers of keys that the suite runs over: key files, transit in a Vault, and fakes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.clock import SystemClock
from broker.issuance.key_ports import KeyStores
from broker.keys.keyfile import KeyFileSigner
from broker.keys.rings import KeyRings
from broker.keys.vault import VaultSigner
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings
from tests.deployments.vaulted import Transit
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing
from tests.peers.vault import Vault

NAMES: Final = ("first", "key", "a", "b", "nobody")
"""The keys that a test may have; no policy names any other."""

_mounts: Final = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """A keeper of keys, and how its keys are called."""

    keys: KeyStores
    id_of: Callable[[str], str]
    """Name → id."""


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A Vault for all tests, each of which has a mount of its own."""
    made = Vault(tmp_path_factory.mktemp("vault"), storage="inmem")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def transit(vault: Vault, tmp_path: Path) -> Transit:
    """A transit engine for this test, at a path with a '/' in it."""
    return Transit(vault, tmp_path, f"team/transit-{next(_mounts)}", NAMES)


def _token(text: str) -> TokenSettings:
    return TokenSettings(read_token=text.encode, place="here")


def settings(transit: Transit, directory: Path, *, is_rotating: bool = True) -> VaultSettings:
    """Return how *transit* is reached."""
    rotate = _token(transit.rotate_token) if is_rotating else None
    return VaultSettings(
        addresses=(transit.vault.url,),
        state_dir=directory,
        ca_bundle=transit.vault.ca_bundle,
        identities={"": Identity(serve=_token(transit.serve_token), rotate=rotate)},
    )


@pytest.fixture
async def connections(transit: Transit, tmp_path: Path) -> AsyncIterator[VaultConnections]:
    """Both identities at this test's transit engine."""
    made = VaultConnections(settings(transit, tmp_path), SystemClock())
    yield made
    await made.close()


@pytest.fixture
def signer(connections: VaultConnections) -> VaultSigner:
    """The broker's adapter."""
    return VaultSigner(connections)


@pytest.fixture(
    params=[
        pytest.param("key-files", id="key-files"),
        pytest.param("fake", id="fake"),
        pytest.param("fake-transit", id="fake-transit"),
        pytest.param("vault", id="vault", marks=pytest.mark.peers),
    ]
)
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    """Each implementation, with one key that makes its place exist."""
    made: Keeper
    connections: VaultConnections | None = None
    if request.param == "key-files":
        files = KeyFileSigner(tmp_path / "keys", b"correct horse battery")
        made = Keeper(keys=KeyRings(files), id_of=str)
    elif request.param == "fake":
        made = Keeper(keys=KeyRings(FakeSigner()), id_of=str)
    elif request.param == "fake-transit":
        made = Keeper(keys=FakeTransitRing(), id_of=lambda name: f"vault:transit/{name}#1")
    else:
        transit: Transit = request.getfixturevalue("transit")
        connections = VaultConnections(settings(transit, tmp_path), SystemClock())
        rings = KeyRings(FakeSigner(), VaultSigner(connections))
        made = Keeper(keys=rings, id_of=lambda name: f"vault:{transit.mount}/{name}#1")
    try:
        await made.keys.create_key(made.id_of("first"), "ec-p256")
        yield made
    finally:
        if connections is not None:
            await connections.close()
