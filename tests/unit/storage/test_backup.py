"""Copies of the store: whole, of one moment, and made beside its writer."""

import stat
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.storage.backup import check_store, copy_store
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.given import event


async def test_copy_holds_what_was_committed(tmp_path: Path) -> None:
    """While the writer has the store open; the copy is one file, for its owner alone."""
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        for _ in range(3):
            await store.append(event(), durable=True)
        facts = copy_store(tmp_path / "store.db", tmp_path / "copy.db")
        await store.append(event(), durable=True)
    finally:
        await store.close()
    assert facts.counts["events"] == facts.last_event == 3
    assert facts.last_event_at is not None
    assert check_store(tmp_path / "copy.db") == facts
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert not (tmp_path / "copy.db-wal").exists()


async def test_copy_never_takes_anothers_place(tmp_path: Path) -> None:
    """What is there stays."""
    await (await SqliteStore.open(tmp_path / "store.db")).close()
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(Unreachable):
        copy_store(tmp_path / "store.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_store_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    """And nothing is made in its place."""
    with pytest.raises(Broken, match="there is no store"):
        copy_store(tmp_path / "store.db", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


async def test_damage_is_found(tmp_path: Path) -> None:
    """A page in the middle was overwritten."""
    store = await SqliteStore.open(tmp_path / "store.db")
    for _ in range(500):
        await store.append(event(data={"filling": "x" * 200}), durable=False)
    await store.close()
    with (tmp_path / "store.db").open("r+b") as file:
        file.seek(-8192, 2)
        file.write(b"\xa5" * 8192)
    with pytest.raises(Broken, match="damaged"):
        check_store(tmp_path / "store.db")


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """It is not ours to copy."""
    import sqlite3

    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE things (name TEXT)")
    connection.close()
    with pytest.raises(Broken):
        copy_store(path, tmp_path / "copy.db")
