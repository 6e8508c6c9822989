"""The CA's state directory: what is written is read again, and damage is noticed."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from broker.issuance.errors import Broken
from broker.upstreams.authority import Authority, IssuerSet, create_issuing
from broker.upstreams.authority_files import CaDirectory, CaState, PendingIssuer
from tests.fakes.builtin_ca import CaWorld, make_world
from tests.unit.upstreams.test_authority import ISSUING


async def second_issuer(world: CaWorld) -> Authority:
    """Make another issuing CA under the same root."""
    plan = replace(ISSUING, key_id="issuing-2", subject="CN=Issuing 2,O=Corp")
    return await create_issuing(world.signer, world.clock, plan, world.root)


def state_of(world: CaWorld) -> CaState:
    """Return the state with an online root and one issuing CA."""
    return CaState(
        root=world.root.certificate, root_key_id="root", issuers=IssuerSet(world.issuing)
    )


def names_in(path: Path) -> set[str]:
    """Return the names of all files."""
    return {entry.name for entry in path.iterdir()}


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Root, current, next and past issuers, each with its key and the root behind it."""
    world = await make_world()
    second = await second_issuer(world)
    directory = CaDirectory(tmp_path / "ca" / "local")
    state = replace(state_of(world), issuers=IssuerSet(second, None, (world.issuing,)))
    directory.save(state)
    loaded = directory.load()
    assert loaded == state
    assert loaded is not None
    assert loaded.root_authority == world.root
    assert loaded.issuers is not None
    assert loaded.issuers.current.key.spki_der == await world.signer.public_key("issuing-2")


async def test_states_on_the_way_can_be_saved(tmp_path: Path) -> None:
    """Waiting for an offline root; then its answer, without the root's key."""
    world = await make_world()
    directory = CaDirectory(tmp_path)
    waiting = CaState(pending=PendingIssuer("issuing-1", "CN=Issuing"))
    directory.save(waiting)
    assert directory.load() == waiting
    answered = CaState(root=world.root.certificate, issuers=IssuerSet(world.issuing))
    directory.save(answered)
    loaded = directory.load()
    assert loaded == answered
    assert loaded is not None
    assert loaded.root_authority is None


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    """A CA that was never made is no fault."""
    assert CaDirectory(tmp_path / "none").load() is None


async def test_modes_are_set_from_the_beginning(tmp_path: Path) -> None:
    """Certificates are public, the rest is not, whatever the umask."""
    world = await make_world()
    before = os.umask(0)
    try:
        CaDirectory(tmp_path / "ca").save(state_of(world))
    finally:
        os.umask(before)
    modes = {name: mode(tmp_path / "ca" / name) for name in names_in(tmp_path / "ca")}
    assert modes == {"root.pem": 0o644, "issuing-1.pem": 0o644, "meta.json": 0o600}
    assert mode(tmp_path / "ca") == 0o700


async def test_certificate_files_are_never_overwritten(tmp_path: Path) -> None:
    """A new current issuer gets a new file, so that the state before stays whole."""
    world = await make_world()
    directory = CaDirectory(tmp_path)
    directory.save(state_of(world))
    kept = (tmp_path / "issuing-1.pem").read_bytes()
    second = await second_issuer(world)
    directory.save(replace(state_of(world), issuers=IssuerSet(second, None, (world.issuing,))))
    assert (tmp_path / "issuing-1.pem").read_bytes() == kept
    assert x509.load_pem_x509_certificate((tmp_path / "issuing-2.pem").read_bytes()) == (
        second.certificate
    )
    directory.save(replace(state_of(world), issuers=IssuerSet(second, None, (world.issuing,))))
    assert {"issuing-1.pem", "issuing-2.pem"} == {
        name for name in names_in(tmp_path) if name.startswith("issuing-")
    }


async def test_save_that_fails_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while meta.json is written: what was there is still read, nothing lies about."""
    world = await make_world()
    directory = CaDirectory(tmp_path)
    directory.save(state_of(world))

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Broken, match="cannot be written: No space left on device"):
        directory.save(CaState())
    monkeypatch.undo()
    assert directory.load() == state_of(world)
    assert names_in(tmp_path) == {"root.pem", "issuing-1.pem", "meta.json"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="no-members"),
        pytest.param(
            '{"version": 2, "root": null, "issuers": [], "pending": null}', id="other-version"
        ),
        pytest.param(
            '{"version": 1, "root": null, "issuers": {}, "pending": null}', id="issuers-no-list"
        ),
        pytest.param(
            '{"version": 1, "root": null, "issuers": [], "pending": null, "more": 1}',
            id="unknown-member",
        ),
        pytest.param(
            json.dumps(
                {
                    "version": 1,
                    "root": None,
                    "issuers": [{"file": "../../etc/passwd", "key_id": "a", "role": "current"}],
                    "pending": None,
                }
            ),
            id="file-elsewhere",
        ),
        pytest.param(
            json.dumps(
                {
                    "version": 1,
                    "root": None,
                    "issuers": [{"file": "issuing-1.pem", "key_id": "a", "role": "boss"}],
                    "pending": None,
                }
            ),
            id="unknown-role",
        ),
        pytest.param(
            json.dumps(
                {
                    "version": 1,
                    "root": None,
                    "issuers": [{"file": "issuing-1.pem", "key_id": "a", "role": "next"}],
                    "pending": None,
                }
            ),
            id="no-current-issuer",
        ),
    ],
)
async def test_damaged_meta_is_refused(tmp_path: Path, text: str) -> None:
    """Unsure means no: nothing is guessed from a file that is not what was written."""
    world = await make_world()
    CaDirectory(tmp_path).save(state_of(world))
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(Broken, match="is not what was written"):
        CaDirectory(tmp_path).load()


@pytest.mark.parametrize("damage", ["missing", "nonsense"])
async def test_damaged_certificate_is_refused(tmp_path: Path, damage: str) -> None:
    """Named by its path."""
    world = await make_world()
    CaDirectory(tmp_path).save(state_of(world))
    path = tmp_path / "issuing-1.pem"
    path.write_text("nonsense")
    if damage == "missing":
        path.unlink()
    with pytest.raises(Broken, match=r"issuing-1\.pem"):
        CaDirectory(tmp_path).load()
