"""The register at work: what a start finds, takes over and puts in order."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.issuance.errors import Broken
from tests.fakes.authority_keeper import Keeper
from tests.fakes.builtin_ca import make_world


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """Nothing is made yet."""
    async with Keeper.open(tmp_path) as made:
        yield made


async def test_files_of_an_older_version_are_taken_over_once(keeper: Keeper) -> None:
    """They stay where they are, and what is changed later is the store's alone."""
    world = await make_world()
    folder = keeper.directory / "ca" / "local"
    folder.mkdir(parents=True)
    (folder / "root.pem").write_bytes(world.root.pem)
    (folder / "issuing-1.pem").write_bytes(world.issuing.pem)
    issuer = {"file": "issuing-1.pem", "key_id": "issuing-1", "role": "current"}
    meta = {"version": 1, "root": {"key_id": "root"}, "issuers": [issuer], "pending": None}
    (folder / "meta.json").write_text(json.dumps(meta))
    keeper.signer = world.signer
    state = await keeper.restart()
    assert state is not None
    assert state.issuers is not None
    assert state.issuers.current == world.issuing
    await keeper.prepare()
    await keeper.activate()
    state = await keeper.restart()
    assert state is not None
    assert state.issuers is not None
    assert state.issuers.past == (world.issuing,)


async def test_nothing_is_found_where_nothing_was_made(keeper: Keeper) -> None:
    """And nothing is written."""
    assert await keeper.restart() is None
    assert await keeper.roles() == []


async def test_start_that_finds_nothing_cut_off_changes_nothing(keeper: Keeper) -> None:
    """Keys, members and events stay as they are."""
    await keeper.initialise()
    before = await keeper.roles(), set(keeper.signer.keys), await keeper.events()
    await keeper.restart()
    assert (await keeper.roles(), set(keeper.signer.keys), await keeper.events()) == before


async def test_key_of_another_is_never_taken_nor_destroyed(keeper: Keeper) -> None:
    """A name that has a key already is passed over, whoever made it."""
    foreign = ec.generate_private_key(ec.SECP256R1())
    keeper.signer.keys["ca-local-issuing-1"] = foreign
    keeper.signer.is_away = True
    with pytest.raises(Exception, match="away"):
        await keeper.initialise()
    assert keeper.signer.keys == {"ca-local-issuing-1": foreign}
    keeper.signer.is_away = False
    await keeper.initialise()
    assert await keeper.roles() == [
        ("root", "ca-local-root-1"),
        ("current", "ca-local-issuing-2"),
    ]


async def test_ca_that_left_the_store_is_told_as_such(keeper: Keeper) -> None:
    """Somebody removed it meanwhile."""
    with pytest.raises(Broken, match="is gone from the store"):
        await keeper.registry.tell("local")
