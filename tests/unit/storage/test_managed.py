"""Certificates at nodes as they are kept: a sweep's question reads what is due alone."""

import contextlib
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.storage import managed, renewal_looks
from broker.storage.rows import time_of
from tests.fakes.clock import START
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.memory_folder import memory_folder

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("statement", "given", "index"),
    [
        (managed._DUE, (1, 200), "managed_due"),
        (managed._OVERDUE, (1, 200), "managed_overdue"),
        (managed._BY_CERTIFICATE, ("c",), "managed_by_certificate"),
        (managed._OF_NODE, ("n", 10), "managed_by_name"),
        (renewal_looks._DUE, (1, 200), "renewal_looks_due"),
        (renewal_looks._HEIR, ("a", "[]", 1), "certificates_same"),
    ],
    ids=["due", "overdue", "by-certificate", "of-node", "looks", "heir"],
)
async def test_question_is_answered_from_its_index(
    tmp_path: Path, statement: str, given: tuple[object, ...], index: str
) -> None:
    """The planner searches the index and sorts nothing."""
    async with DeliveryWorld(tmp_path) as world:
        path = world.path
    with contextlib.closing(sqlite3.connect(path)) as db:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
    assert len(plan) == 1, plan
    assert plan[0].startswith("SEARCH"), plan
    assert index in plan[0]


@pytest.mark.parametrize("others", [100, 5_000])
async def test_sweeps_question_costs_what_is_due(tmp_path: Path, others: int) -> None:
    """The steps that SQLite takes are the same, whatever else there is."""
    with memory_folder(tmp_path) as folder:
        async with DeliveryWorld(folder) as world:
            node = await world.node()
            await node.wants("www")
            base = await node.managed()
            later = world.clock.now() + timedelta(days=30)
            await world.store.keep_managed(
                [
                    replace(base, managed_id=f"m{n}", name=f"c{n}", next_at=later)
                    for n in range(others)
                ]
                + [
                    replace(base, managed_id=f"d{n}", name=f"d{n}", next_at=world.clock.now())
                    for n in range(10)
                ],
                [],
            )
            path = world.path
            due = await world.store.due_managed(world.clock.now(), 200)
            assert len(due) == 10
        with contextlib.closing(sqlite3.connect(path)) as db:
            steps = 0

            def count() -> int:
                nonlocal steps
                steps += 1
                return 0

            db.execute(managed._DUE, (time_of(START), 200)).fetchall()
            db.set_progress_handler(count, 10)
            assert len(db.execute(managed._DUE, (time_of(START), 200)).fetchall()) == 10
    assert steps < 60, "ten rows are read in some hundred steps of its machine"


async def test_generation_never_goes_back(tmp_path: Path) -> None:
    """Two who write what they read at the same time do not undo each other."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        stale = replace(await node.managed(), generation=0, fault="as it was")
        await world.store.keep_managed([stale], [])
        found = await node.managed()
        assert (found.generation, found.fault) == (1, "as it was")


async def test_longest_due_comes_first_and_no_more_than_asked(tmp_path: Path) -> None:
    """A batch is a batch."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        base = await node.managed()
        now = world.clock.now()
        records = [
            replace(base, managed_id=f"m{n}", name=f"c{n}", next_at=now - n * MINUTE)
            for n in range(5)
        ]
        await world.store.keep_managed(records, [])
        found = await world.store.due_managed(now, 3)
        assert [one.managed_id for one in found] == ["m4", "m3", "m2"]
        assert (await world.store.count_managed(now))["due"] == 5


async def test_it_is_found_by_name_and_by_what_it_is_for(tmp_path: Path) -> None:
    """As a person says it."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www", "a.robots.example.com", "b.robots.example.com")
        for text in ("www", "b.robots.example.com"):
            assert [one.name for one in await world.store.managed_named(text, 10)] == ["www"]
        assert await world.store.managed_named("c.robots.example.com", 10) == []


async def test_what_has_changed_since_it_was_read_is_not_written_over(tmp_path: Path) -> None:
    """Neither that one nor those beside it; as it was read, it is kept."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.settled("www")
        await node.settled("mail")
        www, mail = await node.managed("www"), await node.managed("mail")
        await world.store.keep_managed([replace(www, attempts=7)], [])
        changed = [replace(mail, attempts=3), replace(www, fault="stale")]
        with pytest.raises(Conflict, match="has changed meanwhile"):
            await world.store.keep_managed(changed, [], before=[mail, www])
        assert (await node.managed("www")).attempts == 7
        assert await node.managed("mail") == mail
        await world.store.keep_managed(changed[:1], [], before=[mail])
        assert (await node.managed("mail")).attempts == 3


async def test_what_nothing_would_look_at_any_more_is_found(tmp_path: Path) -> None:
    """Not what is under way, has its time, or is not wanted."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        for name in ("lost", "planned", "dropped"):
            await node.settled(name)
        await node.wants("under-way")
        for name, changes in (
            ("lost", {"next_at": None}),
            ("dropped", {"next_at": None, "is_wanted": False}),
        ):
            record = await node.managed(name)
            await world.store.keep_managed([replace(record, **changes)], [])  # type: ignore[arg-type]
        found = await world.store.managed_stranded(10)
        assert [one.name for one in found] == ["lost"]
