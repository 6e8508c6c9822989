"""What is acknowledged as durable outlives a power cut, whatever the disk does before it.

The worker's system calls are replayed up to each acknowledgement, and the store is opened as
the disk would have it then.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.storage.sqlite import SqliteStore
from tests.contract.storage.disk import Call, Disk, run_worker, said
from tests.contract.storage.worker import DURABLE_EVERY, EVENTS

pytestmark = pytest.mark.peers


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the disk that passes again."""

    inject: tuple[str, ...]
    sentence: str


FAULTS = {
    "none": Fault((), ""),
    "one fsync fails": Fault(("fdatasync:error=EIO:when=4",), "cannot be read or written"),
    "three fsyncs fail": Fault(("fdatasync:error=EIO:when=5..7",), "cannot be read or written"),
    "fsync finds no space": Fault(("fdatasync:error=ENOSPC:when=6",), "cannot be read or written"),
    "no space for a while": Fault(("pwrite64:error=ENOSPC:when=40..60",), "no space left"),
    "writes fail for a while": Fault(
        ("pwrite64:error=EIO:when=40..60",), "cannot be read or written"
    ),
    "quota is used up": Fault(("pwrite64:error=EDQUOT:when=40..44",), "cannot be read or written"),
}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """The path of a store that is there and whole, in a folder of its own."""
    path = tmp_path / "store" / "penstock.db"
    await (await SqliteStore.open(path)).close()
    return path


def stored_numbers(folder: Path) -> set[int]:
    """Return the numbers of the events in the store, which has to be sound."""
    with closing(sqlite3.connect(folder / "penstock.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT data ->> 'number' FROM events").fetchall()
    numbers = [number for (number,) in rows]
    assert len(numbers) == len(set(numbers)), "an event was written twice"
    return set(numbers)


def check_each_acknowledgement(disk: Disk, calls: list[Call], scratch: Path) -> int:
    """Look at the disk after each durable acknowledgement; return how many there were."""
    seen = 0
    for call in calls:
        if call.path != "stdout":
            disk.follow(call)
            continue
        word, *rest = call.data.decode().split()
        if word == "durable":
            disk.write_to(scratch / str(seen))
            # Those before it were not durable by themselves: its commit carried them along.
            assert set(range(int(rest[0]) + 1)) <= stored_numbers(scratch / str(seen))
            seen += 1
    return seen


@pytest.mark.parametrize("plan", ["mixed", "durable"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_durable_acknowledgement_outlives_a_power_cut(
    path: Path, tmp_path: Path, plan: str, fault: Fault
) -> None:
    """At each acknowledgement everything acknowledged before it is on the disk; after a fault
    the store recovers alone, and every event is in it once."""
    disk = Disk(path.parent)
    calls, status = run_worker(plan, path, inject=fault.inject)
    refusals = [" ".join(rest) for word, *rest in said(calls) if word == "refused"]
    assert bool(refusals) == bool(fault.sentence)
    assert all(fault.sentence in one for one in refusals)
    (tmp_path / "cuts").mkdir()
    every = DURABLE_EVERY if plan == "mixed" else 1
    assert check_each_acknowledgement(disk, calls, tmp_path / "cuts") == EVENTS // every
    assert (status, said(calls)[-1]) == (0, ["done"])
    assert stored_numbers(path.parent) == set(range(EVENTS))


def test_new_store_outlives_a_power_cut(tmp_path: Path) -> None:
    """Before it is open, its file and its entry in the folder are on the disk."""
    path = tmp_path / "store" / "penstock.db"
    calls, _ = run_worker("durable", path)
    opened = next(n for n, call in enumerate(calls) if call.path == "stdout")
    synced = {call.path for call in calls[:opened] if call.name in {"fsync", "fdatasync"}}
    assert {str(path), str(path.parent)} <= synced
    last = max(n for n, call in enumerate(calls[:opened]) if call.path == str(path.parent))
    writes = [n for n, call in enumerate(calls[:opened]) if call.name == "pwrite64"]
    of_file = [n for n in writes if calls[n].path == str(path)]
    assert max(of_file) < last


def test_only_durable_units_wait_for_the_disk(path: Path) -> None:
    """Between two acknowledgements there is one fsync of the log if the second is of a durable
    unit, and none if it is not."""
    calls, _ = run_worker("mixed", path)
    syncs = 0
    seen: list[tuple[str, int]] = []
    for call in calls:
        if call.name == "fdatasync" and call.path.endswith("-wal"):
            syncs += 1
        elif call.path == "stdout":
            seen.append((call.data.decode().split()[0], syncs))
            syncs = 0
    # The first unit of all begins the log, whose header is brought to the disk in any case.
    assert seen[:2] == [("open", 0), ("relaxed", 1)]
    assert set(seen[2:-1]) == {("relaxed", 0), ("durable", 1)}
