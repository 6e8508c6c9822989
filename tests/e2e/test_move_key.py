"""An account's key goes from a file into a real Vault and back, at a real CA, whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.deployments.adopting import FILE, MOUNT, TRUSTED, Adopting
from tests.deployments.requester import Requester
from tests.peers import process

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

KEY_CHANGE: Final = r"/rollover-account-key$"
NEW_ACCOUNT: Final = r"/sign-me-up$"
STORES: Final = {"moved": "file", "brought": "file", "rsa": "file", "killed": "file"}
VAULT: Final = f"vault:{MOUNT}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adopting]:
    """The deployment, with an account at each upstream."""
    with ExitStack() as stack:
        imports = ["brought", "rsa", "killed"]
        tmp, kinds = tmp_path_factory.mktemp("move"), {"rsa": "rsa-2048"}
        made = Adopting(tmp, stack, STORES, imports=imports, kinds=kinds)
        for upstream in STORES:
            made.penstock.run("upstream", "register", upstream, "--agree-to-terms")
        yield made


@pytest.fixture(autouse=True)
def _clear(scene: Adopting) -> Iterator[None]:
    """Whatever was aimed at and did not come is forgotten."""
    yield
    scene.between.aims.clear()


@pytest.fixture
async def requester(scene: Adopting) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name."""
    made = Requester(scene.penstock.directory_url, scene.penstock.ca_bundle)
    async with made as requester:
        assert (await requester.bind(TRUSTED, scene.mac)).status in (200, 201)
        yield requester


async def obtain(requester: Requester, upstream: str) -> None:
    """Order one certificate, and see that it comes."""
    requester.nonce = None
    placed = await requester.request(f"h{secrets.token_hex(4)}.example.test", profile=upstream)
    assert await placed.settled() == "valid", placed.order


async def move(scene: Adopting, upstream: str, to: str, *options: str) -> dict[str, Any]:
    """Move a key by the command."""
    rows = await scene.penstock.a_json("upstream", "move-key", upstream, "--to", to, *options)
    (made,) = rows
    return dict(made)


async def keep_in(scene: Adopting, upstream: str, store: str) -> None:
    """Have the configuration keep the key elsewhere from now on."""
    await asyncio.to_thread(scene.keep_in, upstream, store)


def files(scene: Adopting, upstream: str) -> list[str]:
    """Return the key files of an account."""
    return sorted(name for name in scene.key_files() if f"-{upstream}@" in name)


async def test_key_moves_into_vault_and_back(scene: Adopting, requester: Requester) -> None:
    """Each way is a change of keys, and the configuration comes first."""
    first = await scene.account("moved")
    assert first is not None
    with pytest.raises(process.PeerFailed, match=r"keeps the keys of 'moved'.*in file"):
        await move(scene, "moved", VAULT)
    await keep_in(scene, "moved", "vault")
    await obtain(requester, "moved")
    with pytest.raises(process.PeerFailed, match=f"in {VAULT}, not in file"):
        await move(scene, "moved", FILE)
    made = await move(scene, "moved", VAULT)
    assert (made["url"], made["same_key"]) == (first["url"], False)
    assert made["key"] == f"{VAULT}/penstock.default.moved#1"
    assert made["thumbprint"] != first["thumbprint"]
    assert not scene.transit.key("penstock.default.moved")["imported_key"]
    assert files(scene, "moved") == ["account-moved@default.pem"], "the old one is kept"
    await obtain(requester, "moved")

    with pytest.raises(process.PeerFailed, match=r"is in vault:.* already; .*rotate-key moved"):
        await move(scene, "moved", VAULT)
    again = await move(scene, "moved", VAULT, "--destroy-old")
    assert again["old_key_destroyed"]
    assert files(scene, "moved") == []

    await keep_in(scene, "moved", "file")
    back = await move(scene, "moved", FILE)
    assert (back["url"], back["old_key"]) == (first["url"], made["key"])
    assert files(scene, "moved") == [f"{back['key']}.pem"]
    await obtain(requester, "moved")
    assert await scene.faults("moved") == []


@pytest.mark.parametrize("upstream", ["brought", "rsa"])
async def test_very_key_is_brought_into_vault(
    scene: Adopting, requester: Requester, upstream: str
) -> None:
    """The CA is told nothing, the file is gone, and Vault says that it was imported."""
    before = await scene.account(upstream)
    assert before is not None
    await keep_in(scene, upstream, "vault")
    asked = len([path for path in scene.between.paths if path.endswith("rollover-account-key")])
    done = await asyncio.to_thread(
        scene.penstock.run,
        *("upstream", "move-key", upstream, "--to", VAULT, "--import-existing"),
    )
    assert "penstock: warning:" in done.stderr
    assert "has lived outside" in done.stderr
    found = [row["finding"] for row in await scene.ask("key_check") if upstream in row["use"]]
    assert "was imported, so it has lived outside of Vault" in found[0]
    after = await scene.account(upstream)
    assert after is not None
    assert (after["url"], after["thumbprint"]) == (before["url"], before["thumbprint"])
    changes = [path for path in scene.between.paths if path.endswith("rollover-account-key")]
    assert len(changes) == asked
    key = scene.transit.key(f"penstock.default.{upstream}")
    assert (key["imported_key"], key["exportable"], key["allow_plaintext_backup"]) == (
        True,
        False,
        False,
    )
    assert scene.events(upstream)[-2:] == ["upstream-key-imported", "upstream-key-destroyed"]
    assert f"account-{upstream}@default.pem" not in files(scene, upstream)
    await obtain(requester, upstream)
    # The way out of a key that has lived elsewhere is the next one.
    (rotated,) = await scene.ask("upstream_rotate_key", upstream=upstream)
    assert rotated["thumbprint"] != before["thumbprint"]
    await obtain(requester, upstream)


async def test_import_that_is_cut_off_is_done_by_asking_again(
    scene: Adopting, requester: Requester
) -> None:
    """SIGKILL when Vault has the key and the CA was not asked yet: nothing is lost."""
    before = await scene.account("killed")
    assert before is not None
    await keep_in(scene, "killed", "vault")
    aim = scene.between.aim(NEW_ACCOUNT, reaches_ca=False)
    moving = asyncio.ensure_future(move(scene, "killed", VAULT, "--import-existing"))
    assert await asyncio.to_thread(aim.struck.wait, 60)
    assert scene.transit.key("penstock.default.killed")["imported_key"]
    scene.penstock.kill()
    with pytest.raises(process.PeerFailed):
        await moving
    await asyncio.to_thread(scene.penstock.start)
    async with asyncio.timeout(60):
        while await scene.faults("killed") or files(scene, "killed"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.2)
    after = await scene.account("killed")
    assert after is not None
    assert after["thumbprint"] == before["thumbprint"]
    await obtain(requester, "killed")
