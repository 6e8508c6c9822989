"""The files of an older version: taken over as they were left, or refused with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken
from broker.issuance.records import CaRole
from broker.upstreams.authority_files import read_directory
from broker.upstreams.authority_state import read_state
from tests.fakes.builtin_ca import CaWorld, make_world
from tests.fakes.clock import START


def write(path: Path, world: CaWorld, **changes: Any) -> None:
    """Leave what the older version left of *world*."""
    path.mkdir(exist_ok=True)
    pem = world.root.certificate.public_bytes(Encoding.PEM)
    (path / "root.pem").write_bytes(pem)
    (path / "issuing-1.pem").write_bytes(world.issuing.pem)
    meta = {
        "version": 1,
        "root": {"key_id": "root"},
        "issuers": [{"file": "issuing-1.pem", "key_id": "issuing-1", "role": "current"}],
        "pending": None,
        **changes,
    }
    (path / "meta.json").write_text(json.dumps(meta))


async def test_ca_is_taken_over_whole(tmp_path: Path) -> None:
    """Root, issuer, and the names of their keys."""
    world = await make_world()
    write(tmp_path, world)
    state = read_state(read_directory(tmp_path, "local", START))
    assert state is not None
    assert state.root == world.root.certificate
    assert state.root_key_id == "root"
    assert state.issuers is not None
    assert list(state.issuers) == [world.issuing]
    assert all(member.since == START and member.ca == "local" for member in state.members)


async def test_waiting_request_is_taken_over(tmp_path: Path) -> None:
    """The answer of the offline root may be on its way."""
    world = await make_world()
    pending = {"key_id": "issuing-1", "subject": "CN=Issuing"}
    write(tmp_path, world, root=None, issuers=[], pending=pending)
    (member,) = read_directory(tmp_path, "local", START)
    assert (member.role, member.key_id) == (CaRole.REQUESTED, "issuing-1")
    assert member.subject == "CN=Issuing"


async def test_offline_root_is_taken_over(tmp_path: Path) -> None:
    """It has no key here."""
    world = await make_world()
    write(tmp_path, world, root={"key_id": None})
    state = read_state(read_directory(tmp_path, "local", START))
    assert state is not None
    assert state.root_authority is None


def test_nothing_is_there_where_nothing_was_made(tmp_path: Path) -> None:
    """Neither in a directory without the file nor without the directory."""
    assert read_directory(tmp_path, "local", START) == ()
    assert read_directory(tmp_path / "none", "local", START) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version 2, expected 1"),
        ({"issuers": None}, "issuers is no list"),
        ({"issuers": [{"file": "../x.pem", "key_id": "k", "role": "past"}]}, "is no issuing-<n>"),
        ({"issuers": [{"file": "issuing-9.pem", "key_id": "k", "role": "past"}]}, "cannot be read"),
        ({"issuers": [{"file": "issuing-1.pem", "key_id": 5, "role": "past"}]}, "expected a text"),
        ({"issuers": [{"file": "issuing-1.pem", "key_id": "k", "role": "odd"}]}, "odd"),
    ],
    ids=["version", "no-list", "path", "no-file", "no-text", "role"],
)
async def test_files_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """A CA is not guessed at; put right, it is read."""
    world = await make_world()
    write(tmp_path, world, **changes)
    with pytest.raises(Broken) as caught:
        read_directory(tmp_path, "local", START)
    assert words in caught.value.reason
    write(tmp_path, world)
    assert len(read_directory(tmp_path, "local", START)) == 2


async def test_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """And so is a file in place of the directory."""
    world = await make_world()
    write(tmp_path, world)
    (tmp_path / "root.pem").write_text("nothing")
    with pytest.raises(Broken, match=r"root\.pem is not a PEM certificate"):
        read_directory(tmp_path, "local", START)
    with pytest.raises(Broken, match=r"meta\.json cannot be read: not a directory"):
        read_directory(tmp_path / "root.pem", "local", START)
