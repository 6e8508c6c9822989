"""Backups of a state directory."""

import fcntl
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.operations.backup import MadeBackup, make_backup, manifest_view, verify_backup
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.given import event

PASSPHRASE = b"a passphrase for tests"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """A state directory with a store, a key, and what a broker leaves lying about."""
    place = tmp_path / "state"
    store = await SqliteStore.open(place / "penstock.db")
    await store.append(event(), durable=True)
    await store.close()
    (place / "keys").mkdir(mode=0o700)
    (place / "keys" / "account-ca@default.pem").write_text("a key")
    (place / "keys" / ".draft.pem").write_text("half a key")
    (place / "tls").mkdir()
    (place / "tls" / "tls.crt").write_text("a chain")
    (place / "tls" / "link.crt").symlink_to("tls.crt")
    return place


def made(state: Path, output: Path) -> MadeBackup:
    """Make a backup."""
    return make_backup(state, output, passphrase=PASSPHRASE, version="1.2.3", now=NOW)


def test_backup_holds_store_keys_and_files(state: Path, tmp_path: Path) -> None:
    """Neither locks nor drafts nor links; what is passed over is told."""
    backup = made(state, tmp_path / "backup")
    names = {one.name for one in backup.manifest.members}
    assert names == {"penstock.db", "keys/account-ca@default.pem", "tls/tls.crt"}
    assert backup.skipped == ("tls/link.crt",)
    assert backup.manifest.counts["events"] == 1
    assert manifest_view(backup.manifest)["members"] == 3
    assert verify_backup(backup.path, PASSPHRASE) == backup.manifest


def test_backups_of_before_migrations_are_in_no_backup(state: Path, tmp_path: Path) -> None:
    """Or each would hold all before it; a folder of that name elsewhere is an ordinary one."""
    for folder in (state / "backups", state / "keys" / "backups"):
        folder.mkdir()
        (folder / "one").write_text("x")
    names = {one.name for one in made(state, tmp_path / "backup").manifest.members}
    assert "backups/one" not in names
    assert "keys/backups/one" in names


def test_backup_is_its_owners_alone(state: Path, tmp_path: Path) -> None:
    """And nothing is left beside it, nor in the state directory."""
    backup = made(state, tmp_path / "backup")
    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["backup", "state"]
    assert not (state / ".backup").exists()


def test_directory_gets_a_file_named_by_its_time(state: Path, tmp_path: Path) -> None:
    """So that a nightly job needs no name."""
    assert made(state, tmp_path).path == tmp_path / "penstock-20260301T120000Z.backup"


def test_file_that_is_there_is_left_alone(state: Path, tmp_path: Path) -> None:
    """It may be the only other backup."""
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(Broken, match="is there already"):
        made(state, tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "mine"


def test_leftovers_of_a_killed_backup_are_thrown_away(state: Path, tmp_path: Path) -> None:
    """They are a copy of the store in the clear."""
    (state / ".backup").mkdir()
    (state / ".backup" / "penstock.db").write_text("half a copy")
    made(state, tmp_path / "backup")
    assert not (state / ".backup").exists()


def test_two_at_once_are_one_too_many(state: Path, tmp_path: Path) -> None:
    """The second says so instead of disturbing the first."""
    (state / ".backup").mkdir()
    descriptor = os.open(state / ".backup", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Broken, match="another backup"):
            made(state, tmp_path / "backup")
    finally:
        os.close(descriptor)
    assert made(state, tmp_path / "backup").size > 0


def test_state_without_a_store_is_no_broker(tmp_path: Path) -> None:
    """Nothing is made."""
    (tmp_path / "state").mkdir()
    with pytest.raises(Broken, match="there is no store"):
        made(tmp_path / "state", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
