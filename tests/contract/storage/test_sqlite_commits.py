"""Units and commits: what shares one, what a fault does to it, what is told afterwards."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Attached
from broker.protocol.resources import OrderStatus
from broker.storage.database import StoreStats
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given


def path_of(tmp_path: Path) -> Path:
    """Return where the fixture `sqlite` has its file."""
    return tmp_path / "store" / "penstock.db"


def by_hand(tmp_path: Path, statement: str) -> None:
    """Change the database behind the store's back."""
    with closing(sqlite3.connect(path_of(tmp_path))) as connection:
        connection.execute(statement)
        connection.commit()


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Let the database grow to so many pages; it keeps those that it has."""
    await store._database.write(lambda unit: unit.all(f"PRAGMA max_page_count = {pages}"))


# ---------------------------------------------------------------------------------- commits


async def test_units_that_wait_together_share_commits(sqlite: SqliteStore) -> None:
    """Sixty-four at once need a few commits, not sixty-four."""
    await asyncio.gather(*(given.has_account(sqlite) for _ in range(64)))
    stats = sqlite.stats()
    assert stats.units == 64
    assert stats.durable_commits <= 8
    assert stats.waiting_writes == 0


async def test_units_one_after_the_other_have_a_commit_each(sqlite: SqliteStore) -> None:
    """Durable and relaxed commits are counted apart."""
    for is_durable in (True, False, False, True):
        await sqlite.append(given.event(), durable=is_durable)
    assert sqlite.stats() == StoreStats(
        durable_commits=2,
        relaxed_commits=2,
        failed_commits=0,
        units=4,
        failed_units=0,
        waiting_writes=0,
        waiting_reads=0,
    )


async def test_one_durable_unit_makes_its_whole_batch_durable(sqlite: SqliteStore) -> None:
    """Nobody who needs the disk shares a commit that does without it."""
    await asyncio.gather(
        *(sqlite.append(given.event(), durable=n == 31) for n in range(32)),
    )
    stats = sqlite.stats()
    assert stats.durable_commits == 1
    assert stats.units == 32


async def test_change_that_makes_an_order_ready_is_durable(sqlite: SqliteStore) -> None:
    """The last valid authorization is on the disk before it is told, the others need not be."""
    parts = await given.has_authorizations(sqlite, 3)
    before = sqlite.stats()
    for part in parts:
        await sqlite.change_challenge(given.validated(part), durable=False)
    after = sqlite.stats()
    assert after.relaxed_commits - before.relaxed_commits == 2
    assert after.durable_commits - before.durable_commits == 1
    order = await sqlite.load_order(parts[0].order_id)
    assert order is not None
    assert order.status is OrderStatus.READY


async def test_batch_that_turns_durable_is_done_once(sqlite: SqliteStore) -> None:
    """A batch that is begun anew, because one unit must be durable, leaves nothing twice."""
    parts = await given.has_authorizations(sqlite, 3)
    told: list[Event] = []
    sqlite.on_committed = told.extend
    events = [given.event(data={"n": n}) for n in range(20)]
    await asyncio.gather(
        *(sqlite.append(one, durable=False) for one in events[:10]),
        *(sqlite.change_challenge(given.validated(part), durable=False) for part in parts),
        *(sqlite.append(one, durable=False) for one in events[10:]),
    )
    found = await sqlite.read_events(after=0, limit=100, order_id=None)
    assert [one for _, one in found][-20:] == events
    assert told == events


# -------------------------------------------------------------------------- failing units


async def test_failing_unit_leaves_the_others_of_its_batch_alone(sqlite: SqliteStore) -> None:
    """Of units that share a commit the failing ones fail alone, and leave nothing."""
    owner = await given.has_account(sqlite)
    good = [given.order(owner) for _ in range(10)]
    bad = [given.order(given.account()) for _ in range(10)]
    mixed = [one for pair in zip(good, bad, strict=True) for one in pair]
    got = await asyncio.gather(
        *(
            sqlite.create_order(one, (), Attached(events=(given.event(order_id=one.order_id),)))
            for one in mixed
        ),
        return_exceptions=True,
    )
    assert got[::2] == [None] * 10
    assert all(isinstance(one, Broken) for one in got[1::2])
    found = await sqlite.list_orders(
        community=None, account_id=None, status=None, after=None, limit=100
    )
    assert {one.order_id for one in found} == {one.order_id for one in good}
    events = await sqlite.read_events(after=0, limit=100, order_id=None)
    assert {one.order_id for _, one in events} == {None, *(one.order_id for one in good)}
    assert sqlite.stats().failed_units == 10
    assert sqlite.stats().failed_commits == 0


async def test_unit_that_fails_late_takes_back_what_it_did(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    """A trigger that aborts the certificate makes the closing fail whole; without it the same
    closing passes."""
    order, work = await given.has_claimed(sqlite)
    end = given.closing(
        order,
        work_id=work.work_id,
        work_status=type(work.status).SPENT,
        attached=Attached(events=(given.event(EventKind.CERTIFICATE_ISSUED),)),
    )
    by_hand(
        tmp_path,
        "CREATE TRIGGER no_more BEFORE INSERT ON certificates"
        " BEGIN SELECT raise(ABORT, 'the operator says no'); END",
    )
    with pytest.raises(Broken, match="the operator says no"):
        await sqlite.close_order(end)
    assert await sqlite.load_order(order.order_id) == order
    assert await sqlite.work_of_order(order.order_id) == work
    events = await sqlite.read_events(after=0, limit=100, order_id=None)
    assert EventKind.CERTIFICATE_ISSUED not in [one.kind for _, one in events]
    by_hand(tmp_path, "DROP TRIGGER no_more")
    assert (await sqlite.close_order(end)).status is OrderStatus.VALID


async def test_bug_in_a_unit_comes_out_as_it_is(sqlite: SqliteStore) -> None:
    """What is our own fault is not dressed up as the store's; the unit leaves nothing."""
    naive = given.NOW.replace(tzinfo=None)
    with pytest.raises(TypeError, match="offset-naive"):
        await given.has_account(sqlite, created_at=naive)
    with pytest.raises(ValueError, match="Out of range float values"):
        await sqlite.append(given.event(data={"n": float("nan")}), durable=True)
    assert await sqlite.list_accounts(community=None, after=None, limit=9) == []


async def test_events_cannot_be_changed_or_deleted(sqlite: SqliteStore, tmp_path: Path) -> None:
    """The table is append-only for whoever opens the file."""
    await sqlite.append(given.event(), durable=True)
    for statement in ("UPDATE events SET actor = 'nobody'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            by_hand(tmp_path, statement)
    assert len(await sqlite.read_events(after=0, limit=9, order_id=None)) == 1


# --------------------------------------------------------------------------- failing commits


async def test_locked_store_is_unreachable_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program holds the database, writers are told to come again and readers are
    served; when it lets go, all goes on by itself."""
    monkeypatch.setattr("broker.storage.database.BUSY_SECONDS", 0.05)
    store = await SqliteStore.open(path_of(tmp_path))
    made = await given.has_account(store)
    with closing(sqlite3.connect(path_of(tmp_path), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        got = await asyncio.gather(
            *(given.has_account(store) for _ in range(8)), return_exceptions=True
        )
        assert {str(one) for one in got} == {"store is locked by another program (SQLITE_BUSY)"}
        assert all(isinstance(one, Unreachable) for one in got)
        assert await store.find_account(made.account_id) == made
        assert "is locked" in (await store.check_writable() or "")
        connection.execute("ROLLBACK")
    assert await store.check_writable() is None
    assert len(await store.list_accounts(community=None, after=None, limit=9)) == 1
    await given.has_account(store)
    assert store.stats().failed_commits >= 1
    await store.close()


async def test_writability_is_asked_only_after_a_failure(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    """While writing works the question costs nothing; after a failure it tries, until it works;
    a conflict or a trigger is no failure to write."""
    by_hand(
        tmp_path,
        "CREATE TRIGGER no_more BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'no'); END",
    )
    with pytest.raises(Broken, match="no"):
        await sqlite.append(given.event(), durable=True)
    by_hand(tmp_path, "DROP TRIGGER no_more")
    before = sqlite.stats().units
    assert await sqlite.check_writable() is None
    assert sqlite.stats().units == before
    await limit_pages(sqlite, 1)
    big = given.event(data={"text": "x" * 100_000})
    with pytest.raises(Unreachable):
        await sqlite.append(big, durable=True)
    before = sqlite.stats().units
    assert await sqlite.check_writable() is None
    assert sqlite.stats().units == before + 1
    assert await sqlite.check_writable() is None
    assert sqlite.stats().units == before + 1


async def test_store_without_room_is_unreachable_until_there_is_some(
    sqlite: SqliteStore,
) -> None:
    """A full store refuses what does not fit, keeps what is in it, and goes on when it can."""
    await sqlite.append(given.event(), durable=True)
    await limit_pages(sqlite, 1)
    big = given.event(data={"text": "x" * 100_000})
    got = await asyncio.gather(
        sqlite.append(big, durable=True), sqlite.append(big, durable=True), return_exceptions=True
    )
    assert [str(one) for one in got] == ["store has no space left on its disk (SQLITE_FULL)"] * 2
    assert len(await sqlite.read_events(after=0, limit=9, order_id=None)) == 1
    await limit_pages(sqlite, 2**30)
    await sqlite.append(big, durable=True)
    assert len(await sqlite.read_events(after=0, limit=9, order_id=None)) == 2


# ------------------------------------------------------------------- what is told afterwards


async def test_hook_hears_of_committed_events_in_order(sqlite: SqliteStore) -> None:
    """Every event that was written is told once, in the order of the table; none that was not."""
    told: list[Event] = []

    def hook(events: Sequence[Event]) -> None:
        assert events, "called without an event"
        told.extend(events)

    sqlite.on_committed = hook
    assert sqlite.on_committed is hook
    account = await given.has_account(sqlite)
    again = given.account(thumbprint=account.thumbprint)
    await sqlite.create_account(again, given.event(EventKind.ACCOUNT_CREATED), eab_key_id=None)
    await asyncio.gather(
        *(sqlite.append(given.event(data={"n": n}), durable=False) for n in range(20)),
        *(
            sqlite.create_order(given.order(given.account()), (), Attached(events=(given.event(),)))
            for _ in range(5)
        ),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    kept = await sqlite.read_events(after=0, limit=100, order_id=None)
    assert told == [one for _, one in kept]
    assert len(told) == 21


async def test_caller_that_goes_away_has_its_unit_done(sqlite: SqliteStore) -> None:
    """A cancelled caller does not know; the store does."""
    waiting = asyncio.ensure_future(sqlite.append(given.event(), durable=True))
    await asyncio.sleep(0)
    waiting.cancel()
    await sqlite.append(given.event(), durable=True)
    assert waiting.cancelled()
    assert len(await sqlite.read_events(after=0, limit=9, order_id=None)) == 2


async def test_closing_finishes_what_waits(tmp_path: Path) -> None:
    """All that was asked before is done; what comes after is refused; closing again is harmless."""
    store = await SqliteStore.open(path_of(tmp_path))
    waiting = [asyncio.ensure_future(store.append(given.event(), durable=True)) for _ in range(300)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert await asyncio.gather(*waiting) == [None] * 300
    with pytest.raises(Broken, match="store is closed"):
        await store.append(given.event(), durable=True)
    with pytest.raises(Broken, match="store is closed"):
        await store.find_account("nobody")
    store = await SqliteStore.open(path_of(tmp_path))
    assert len(await store.read_events(after=0, limit=999, order_id=None)) == 300
    await store.close()


async def test_conflict_names_what_was_found(sqlite: SqliteStore) -> None:
    """A unique row that is there already is a conflict, told by its columns."""
    order = await given.has_order(sqlite)
    with pytest.raises(Conflict, match=r"store holds another row with the same orders\.order_id"):
        await sqlite.create_order(order, (), Attached())
