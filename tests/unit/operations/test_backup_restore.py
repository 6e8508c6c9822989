"""A backup put back: into an empty directory, whole, and marked."""

import asyncio
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.commands.audit_reading import export_store
from broker.commands.audit_verifying import verified
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.operations.backup import make_backup
from broker.operations.backup_restore import LEAST_CRL_NUMBERS, Restored, restore_backup
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.given import event
from tests.unit.commands.test_audit import make_store
from tests.unit.config.conftest import parsed

PASSPHRASE = b"a passphrase for tests"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA = Actor("operator:anna", "the disk died")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of a broker whose built-in CA has published a list."""

    async def fill() -> None:
        store = await SqliteStore.open(tmp_path / "before" / "penstock.db")
        await store.append(event(), durable=True)
        await store.next_crl_number("local", "ca-local-issuing-1", NOW)
        await store.close()

    asyncio.run(fill())
    keys = tmp_path / "before" / "keys"
    keys.mkdir(mode=0o700)
    (keys / "a.pem").write_text("a key")
    (keys / "a.pem").chmod(0o600)
    made = make_backup(
        tmp_path / "before", tmp_path / "backup", passphrase=PASSPHRASE, version="1", now=NOW
    )
    return made.path


def restored(backup: Path, state: Path, *, later: timedelta = timedelta(hours=1)) -> Restored:
    """Restore."""
    return restore_backup(backup, state, passphrase=PASSPHRASE, now=NOW + later, actor=ANNA)


def test_everything_is_back_in_its_place(backup: Path, tmp_path: Path) -> None:
    """With modes that nobody else can use."""
    restored(backup, tmp_path / "after")
    names = sorted(one.name for one in (tmp_path / "after").iterdir())
    assert names == ["keys", "penstock.db"]
    key = tmp_path / "after" / "keys" / "a.pem"
    assert key.read_text() == "a key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for folder in (tmp_path / "after", key.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_store_knows_that_it_was_restored(backup: Path, tmp_path: Path) -> None:
    """By whom, from what, and which CRL numbers are left out."""
    found = restored(backup, tmp_path / "after")
    assert found.crl_numbers == 1000 * 3600

    async def look() -> None:
        store = await SqliteStore.open(tmp_path / "after" / "penstock.db")
        record = await store.open_restoration()
        assert record is not None
        assert record.restoration_id == found.restoration_id
        assert (record.backup_at, record.reconciled_at) == (NOW, None)
        events = await store.read_events(after=0, limit=10, order_id=None)
        assert [str(one.kind) for _, one in events] == ["request-refused", "store-restored"]
        assert events[-1][1].actor == ANNA
        number = await store.next_crl_number("local", "ca-local-issuing-1", NOW)
        assert number > NOW.timestamp() + found.crl_numbers
        await store.close()

    asyncio.run(look())


def test_clock_that_went_back_leaves_a_gap_all_the_same(backup: Path, tmp_path: Path) -> None:
    """The backup seems to come from the future."""
    found = restored(backup, tmp_path / "after", later=-timedelta(days=1))
    assert found.crl_numbers == LEAST_CRL_NUMBERS


def test_directory_that_is_not_empty_is_refused(backup: Path, tmp_path: Path) -> None:
    """The sentence says what is there and what to do."""
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "penstock.db").write_text("mine")
    with pytest.raises(Broken, match=r"not empty, it holds penstock\.db: .+mv "):
        restored(backup, tmp_path / "after")
    assert (tmp_path / "after" / "penstock.db").read_text() == "mine"


def test_new_file_system_counts_as_empty(backup: Path, tmp_path: Path) -> None:
    """With lost+found, and what a killed restore left."""
    for name in ("lost+found", ".restore"):
        (tmp_path / "after" / name).mkdir(parents=True)
    (tmp_path / "after" / ".restore" / "penstock.db").write_text("half")
    restored(backup, tmp_path / "after")
    assert sorted(os.listdir(tmp_path / "after")) == ["keys", "lost+found", "penstock.db"]


@pytest.mark.parametrize("passphrase", [b"another passphrase"])
def test_backup_that_cannot_be_used_leaves_nothing(
    backup: Path, tmp_path: Path, passphrase: bytes
) -> None:
    """The directory is as empty as before."""
    with pytest.raises(Broken, match="passphrase"):
        restore_backup(backup, tmp_path / "after", passphrase=passphrase, now=NOW, actor=ANNA)
    assert os.listdir(tmp_path / "after") == []


def test_damaged_backup_leaves_nothing(backup: Path, tmp_path: Path) -> None:
    """What had been unpacked by then is thrown away."""
    whole = bytearray(backup.read_bytes())
    whole[-20_000] ^= 1
    backup.write_bytes(whole)
    with pytest.raises(Broken):
        restored(backup, tmp_path / "after")
    assert os.listdir(tmp_path / "after") == []


def test_restored_chain_goes_on_and_says_so(tmp_path: Path) -> None:
    """What came after the backup is off the host alone: its checkpoint contradicts the chain until
    somebody who knows of the restore says so."""
    before, after, off = tmp_path / "before", tmp_path / "after", tmp_path / "off.jsonl"
    asyncio.run(make_store(before, 3))
    made = make_backup(before, tmp_path / "b", passphrase=PASSPHRASE, version="1", now=NOW)
    asyncio.run(make_store(before, 2))  # lost with the machine; the collector has it
    with off.open("w") as file:
        export_store(parsed({"state": str(before)}), 0, lambda line: print(line, file=file))
    found = restored(made.path, after)
    config = parsed({"state": str(after)})

    def verify(*accepted: str) -> dict[str, Any]:
        return verified(config, None, checkpoints=off, keys=None, accepted=accepted)

    (told,) = verify()["findings"]
    assert f"--accept-restore {found.restoration_id}" in told["sentence"]
    known = verify(found.restoration_id)
    assert known["findings"] == []
    assert known["restorations"][0]["restoration"] == found.restoration_id
    assert known["checkpoints"]["of_what_was_left_behind"] == 1
