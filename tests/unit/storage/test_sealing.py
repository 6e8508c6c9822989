"""What lay in the clear is sealed, and gone from the files; what was sealed can be sealed anew."""

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.key_ports import Resealed, Sealed
from broker.issuance.records import EabKeyRecord
from broker.storage.rows import EAB_KEYS
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.fresh_store import open_fresh

KEYS = 1200
"""Rows of an earlier version: the table takes some fifty pages, and several of its index."""


def mark(number: int) -> bytes:
    """Return a MAC key that can be searched for, and that no other row has."""
    return hashlib.sha256(f"marked {number}".encode()).digest()


def in_the_clear(number: int, **changes: object) -> EabKeyRecord:
    """Return a row as an earlier version kept it."""
    return given.eab_key(key_id=f"eab-{number:05}", mac_key=mark(number), **changes)


def sealed(record: EabKeyRecord, by: str = "file:ab") -> Resealed:
    """Return the row's secret as if it had been sealed."""
    octets = b"sealed " + hashlib.sha512(record.mac_key).digest()
    return Resealed(before=record, sealed=Sealed(by, octets))


def found_in_files(path: Path, secrets: Sequence[bytes]) -> list[bytes]:
    """Return which of *secrets* stand in the database file or one of those beside it."""
    kept = b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))
    return [secret for secret in secrets if secret in kept]


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store full of MAC keys in the clear, whose rows have been moved about."""
    path = tmp_path / "penstock.db"
    await (await open_fresh(path)).close()
    rows = [in_the_clear(number, is_reusable=number % 2 == 0) for number in range(KEYS)]
    with closing(sqlite3.connect(path)) as connection, connection:
        # As SQLite is built by itself; some distributions build it to overwrite what it frees.
        connection.execute("PRAGMA secure_delete = OFF")
        # In another order than theirs, so that pages are split and rows moved.
        for row in sorted(rows, key=lambda one: one.mac_key):
            connection.execute(EAB_KEYS.insert, EAB_KEYS.values(row))
        connection.execute("UPDATE eab_keys SET label = label || ' of the north' || key_id")
        connection.execute("DELETE FROM eab_keys WHERE key_id LIKE '%7'")
    store = await SqliteStore.open(path)
    yield store
    await store.close()


async def test_nothing_in_the_clear_is_left_in_the_files(old: SqliteStore, tmp_path: Path) -> None:
    """Neither in a page's free part, nor in the log, nor of rows that are long gone."""
    path = tmp_path / "penstock.db"
    marks = [mark(number) for number in range(KEYS)]
    before = await old.list_eab_keys(None)
    plain = await old.unsealed_eab_keys()
    assert len(plain) == len(before) == KEYS - KEYS // 10
    assert len(found_in_files(path, marks)) >= len(plain)
    await old.reseal_eab_keys([sealed(one) for one in plain], given.event())
    await old.fold_log()
    assert found_in_files(path, marks) == []
    assert await old.unsealed_eab_keys() == []
    after = await old.list_eab_keys(None)
    assert [(one.key_id, one.label, one.is_reusable) for one in after] == [
        (one.key_id, one.label, one.is_reusable) for one in before
    ]
    assert {one.sealed_by for one in after} == {"file:ab"}


async def test_table_that_was_written_anew_is_the_same(old: SqliteStore, tmp_path: Path) -> None:
    """Columns, key and references are those of the migrations, and it can be written anew again."""
    path = tmp_path / "penstock.db"

    def shape() -> list[object]:
        with closing(sqlite3.connect(path)) as connection:
            looks = ("table_xinfo", "foreign_key_list", "index_list")
            return [connection.execute(f"PRAGMA {look}(eab_keys)").fetchall() for look in looks]

    before = shape()
    for _ in range(2):
        await old.reseal_eab_keys(
            [sealed(one) for one in await old.unsealed_eab_keys()], given.event()
        )
        assert shape() == before
        again = in_the_clear(KEYS, community="lab")
        if await old.find_eab_key("lab", again.key_id) is None:
            await old.add_eab_key(again, given.event())
    row = await old.find_eab_key("lab", "eab-01200")
    assert row is not None
    assert row.sealed_by == "file:ab"
    account = given.account(community="lab", eab_key_id=row.key_id)
    await old.create_account(account, given.event(), eab_key_id=row.key_id)
    bound = await old.find_eab_key("lab", row.key_id)
    assert bound is not None
    assert bound.bound_account_id == account.account_id


async def test_row_that_changed_meanwhile_keeps_its_change(store: SqliteStore) -> None:
    """A key is revoked while its MAC key is on its way to Vault and back."""
    key = given.eab_key()
    await store.add_eab_key(key, given.event())
    (read,) = await store.unsealed_eab_keys()
    await store.revoke_eab_key(key.community, key.key_id, given.NOW, given.event())
    await store.reseal_eab_keys([sealed(read)], given.event())
    now = await store.find_eab_key(key.community, key.key_id)
    assert now is not None
    assert (now.revoked_at, now.sealed_by) == (given.NOW, "file:ab")


async def test_row_that_was_sealed_anew_meanwhile_is_left_alone(store: SqliteStore) -> None:
    """What was read is not there any more, so what was made of it is not kept."""
    key = given.eab_key()
    await store.add_eab_key(key, given.event())
    (read,) = await store.unsealed_eab_keys()
    await store.reseal_eab_keys([sealed(read)], given.event())
    await store.reseal_eab_keys([sealed(read, "file:cd")], given.event())
    now = await store.find_eab_key(key.community, key.key_id)
    assert now is not None
    assert now.sealed_by == "file:ab"


async def test_rows_under_another_key_are_found(store: SqliteStore) -> None:
    """Not those under this one, nor declared ones, which have no secret here."""
    ours = given.eab_key(sealed_by="vault:transit/sealing#2")
    older = given.eab_key(sealed_by="vault:transit/sealing#1")
    others = given.eab_key(sealed_by="file:ab")
    declared = given.eab_key(mac_key=b"")
    for key in (ours, older, others, declared):
        await store.add_eab_key(key, given.event())
    found = await store.eab_keys_not_under("vault:transit/sealing#2", 10)
    assert [one.key_id for one in found] == [older.key_id, others.key_id]
    assert len(await store.eab_keys_not_under("vault:transit/sealing#2", 1)) == 1
    assert await store.unsealed_eab_keys() == []


async def test_sealing_and_its_event_are_one(store: SqliteStore) -> None:
    """Whoever reads the events learns that it was done."""
    key = given.eab_key()
    await store.add_eab_key(key, given.event())
    (read,) = await store.unsealed_eab_keys()
    await store.reseal_eab_keys([sealed(read)], given.event(EventKind.SECRETS_SEALED))
    kept = await store.read_events(after=0, limit=10, order_id=None)
    assert [event.kind for _, event in kept][-1] is EventKind.SECRETS_SEALED


async def test_reader_in_the_way_is_come_back_to(store: SqliteStore, tmp_path: Path) -> None:
    """Somebody's tool reads an old snapshot; what it holds in the log cannot go yet."""
    path = tmp_path / "store.db"
    await store.add_eab_key(given.eab_key(), given.event())
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM eab_keys").fetchone()
        await store.add_eab_key(given.eab_key(), given.event())
        with pytest.raises(Unreachable, match="is being read"):
            await store.fold_log()
        reader.execute("ROLLBACK")
        await store.fold_log()
    assert path.with_name(f"{path.name}-wal").stat().st_size == 0


async def test_log_is_folded_by_the_writer_of_the_store_alone(tmp_path: Path) -> None:
    """A store that is open for reading changes nothing, not even its log."""
    path = tmp_path / "penstock.db"
    await (await open_fresh(path)).close()
    reading = await SqliteStore.open(path, exclusive=False)
    with pytest.raises(Broken, match="for reading only"):
        await reading.fold_log()
    await reading.close()
