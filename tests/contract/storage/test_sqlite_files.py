"""The store's files: who may read them, who may open them, which are refused untouched."""

# ruff: noqa: ASYNC220, ASYNC240 - a test that looks at files may keep its own loop waiting

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.storage.faults import StoreLocked
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.contract.storage.disk import REPOSITORY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store is to be."""
    return tmp_path / "store" / "penstock.db"


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return path.stat().st_mode & 0o777


async def test_new_store_is_for_its_owner_alone(path: Path) -> None:
    """Folder 0700; database, log and lock 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        store = await SqliteStore.open(path)
        await given.has_account(store)
        modes = {one.name: mode(one) for one in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(umask)
    assert mode(path.parent) == 0o700
    assert modes.keys() >= {"penstock.db", "penstock.db-wal", "penstock.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_store_that_others_could_read_is_closed_to_them(path: Path) -> None:
    """A file copied back with a wider mode is narrowed; a folder that was there is left alone."""
    await (await SqliteStore.open(path)).close()
    path.chmod(0o644)
    path.parent.chmod(0o755)
    await (await SqliteStore.open(path)).close()
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o755


async def test_store_is_kept_from_one_opening_to_the_next(path: Path) -> None:
    """What was written is found, and migrations run once."""
    store = await SqliteStore.open(path)
    made = await given.has_account(store)
    await store.close()
    assert [one.name for one in path.parent.iterdir() if one.name.endswith("-wal")] == []
    store = await SqliteStore.open(path)
    assert await store.find_account(made.account_id) == made
    await store.close()


async def test_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    """Question marks, hashes and per cent signs are no part of a URI here."""
    path = tmp_path / "a?mode=memory#b%20c" / "store.db"
    await (await SqliteStore.open(path)).close()
    assert path.is_file()


# ------------------------------------------------------------------------------------- lock


async def test_store_is_open_once(path: Path) -> None:
    """A second opening is refused with the holder's process id; after closing it passes."""
    store = await SqliteStore.open(path)
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}$") as refusal:
        await SqliteStore.open(path)
    assert refusal.value.pid == os.getpid()
    await given.has_account(store)
    await store.close()
    await (await SqliteStore.open(path)).close()


async def test_lock_of_a_killed_process_is_free(path: Path) -> None:
    """A crash leaves no lock behind."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.storage.worker", "orders", str(path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {worker.pid}$"):
            await SqliteStore.open(path)
        worker.kill()
    await (await SqliteStore.open(path)).close()


async def test_refused_store_is_not_left_locked(path: Path) -> None:
    """After a refusal for another reason the next opening hears that reason, not the lock."""
    path.parent.mkdir()
    path.write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(Broken, match="damaged"):
            await SqliteStore.open(path)


# ---------------------------------------------------------------------------------- reading


async def test_store_is_read_beside_a_running_broker(path: Path) -> None:
    """Without the lock one reads what is committed, and writes nothing."""
    store = await SqliteStore.open(path)
    reader = await SqliteStore.open(path, exclusive=False)
    made = await given.has_account(store)
    assert await reader.find_account(made.account_id) == made
    with pytest.raises(Broken, match="reading only"):
        await given.has_account(reader)
    await reader.close()
    await store.close()


async def test_store_at_rest_is_read_and_left_as_it_was(path: Path) -> None:
    """Reading a store that nobody runs changes none of its octets."""
    store = await SqliteStore.open(path)
    made = await given.has_account(store)
    await store.close()
    before = path.read_bytes()
    reader = await SqliteStore.open(path, exclusive=False)
    assert await reader.find_account(made.account_id) == made
    await reader.close()
    assert path.read_bytes() == before


async def test_store_that_is_not_there_is_not_made_for_reading(path: Path) -> None:
    """Reading makes no files."""
    with pytest.raises(Unreachable, match="cannot be opened"):
        await SqliteStore.open(path, exclusive=False)
    assert not path.parent.exists()


# ------------------------------------------------------------------------------- other files


async def test_newer_schema_is_refused_untouched(path: Path) -> None:
    """A store of a later version is neither opened nor changed; the sentence says what to run."""
    await (await SqliteStore.open(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, 'later')")
        # The oldest schema that a program has to know to work with it (docs/adr/0034).
        connection.execute("PRAGMA user_version = 999")
        connection.commit()
    before = path.read_bytes()
    for exclusive in (True, False):
        with pytest.raises(Broken, match=r"schema 999, this version knows .*run the version"):
            await SqliteStore.open(path, exclusive=exclusive)
    assert path.read_bytes() == before


async def test_older_schema_is_not_read_beside(path: Path) -> None:
    """Reading alone does not migrate: it says who does."""
    path.parent.mkdir()
    path.touch()
    with pytest.raises(Broken, match="start the broker once"):
        await SqliteStore.open(path, exclusive=False)
    assert path.read_bytes() == b""


async def test_database_of_another_program_is_refused_untouched(path: Path) -> None:
    """A path typed wrong costs nobody his data."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (data TEXT)")
    before = path.read_bytes()
    with pytest.raises(Broken, match="another program"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_folder_that_is_a_file_is_unreachable(tmp_path: Path) -> None:
    """What the file system refuses comes as one sentence, without a library's exception."""
    (tmp_path / "store").write_text("")
    with pytest.raises(Unreachable, match="cannot be opened: "):
        await SqliteStore.open(tmp_path / "store" / "penstock.db")


async def test_damaged_page_is_broken_and_the_rest_is_served(path: Path) -> None:
    """A read of what is damaged says so; other tables go on."""
    store = await SqliteStore.open(path)
    made = await given.has_account(store)
    await store.append(given.event(), durable=True)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'events'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    store = await SqliteStore.open(path)
    for _ in range(2):
        with pytest.raises(Broken, match=r"damaged: .*restore"):
            await store.read_events(after=0, limit=9, order_id=None)
        with pytest.raises(Broken, match="damaged"):
            await store.append(given.event(), durable=True)
    assert await store.find_account(made.account_id) == made
    await store.close()


async def test_row_that_nobody_wrote_is_broken(path: Path) -> None:
    """A status that no version has is a fault of the store, told with the table's name."""
    store = await SqliteStore.open(path)
    made = await given.has_account(store)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE accounts SET status = 'sleeping'")
        connection.commit()
    store = await SqliteStore.open(path)
    with pytest.raises(Broken, match="unreadable row in accounts"):
        await store.find_account(made.account_id)
    await store.close()
