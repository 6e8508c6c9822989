"""How a CA stands, told by one process to another over one database: holds and the breaker.

As with buckets, a broker works on a store alone today; what it keeps about CAs has to be right
where two do.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Unreachable
from broker.storage.sqlite import SqliteStore
from broker.upstreams.breaker import FAILURES, FIRST_PAUSE, Breaker
from broker.upstreams.budget import Budget
from tests.fakes.clock import FakeClock
from tests.fakes.fresh_store import open_fresh

REPOSITORY = Path(__file__).resolve().parents[3]
SECOND = timedelta(seconds=1)
"""How old what a process read about a CA may be."""

OTHER = """
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from broker.issuance.errors import Unreachable
from broker.storage.database import Database
from broker.storage.lock import StoreLock
from broker.storage.sqlite import SqliteStore
from broker.upstreams.breaker import Breaker
from broker.upstreams.budget import Budget
from tests.fakes.clock import FakeClock

async def held(budget):
    await budget.refresh()
    told = ""
    for account, subject in (("a", "x"), ("a", "y"), ("b", "x")):
        try:
            budget.verify_open(account, subject)
        except Unreachable:
            told += account + subject + " "
    return told.strip() or "nothing"

async def asked(breaker):
    try:
        await breaker.verify_closed()
    except Unreachable as error:
        assert "left alone" in error.reason, error.reason
        return "waits"
    return "asks"

async def main(path: Path) -> None:
    lock = os.open(path.with_name("other.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    store = SqliteStore(Database(path, StoreLock(path, lock)))
    clock = FakeClock()
    budgets = {ca: Budget(clock, upstream=ca, store=store) for ca in ("ca", "next")}
    breakers = {ca: Breaker(ca, store, clock) for ca in ("ca", "next")}
    print("ready", flush=True)
    for line in sys.stdin:
        word, ca, seconds = line.split()
        clock.advance(timedelta(seconds=float(seconds)))
        if word == "held":
            print(await held(budgets[ca]), flush=True)
        elif word == "ask":
            print(await asked(breakers[ca]), flush=True)
        elif word == "hold":
            until = clock.now() + timedelta(hours=2)
            budgets[ca].hold("a", "y", status=429, retry_at=until, reason="too many")
            await budgets[ca].share()
            print("told", flush=True)
        else:
            await breakers[ca].note_answer(200, is_signed=False)
            print("told", flush=True)
    await store.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@dataclass
class Other:
    """Another process that asks the same CAs, with a clock that it is told to advance."""

    process: subprocess.Popen[str]

    def does(self, word: str, ca: str = "ca", *, after: timedelta = timedelta()) -> str:
        """Return what it says to a word, so much later."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {ca} {after.total_seconds()}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """The database, as this process has it."""
    made = await open_fresh(tmp_path / "store.db")
    yield made
    await made.close()


@pytest.fixture
def other(store: SqliteStore, tmp_path: Path) -> Iterator[Other]:
    """The other process, over the same database."""
    command = [sys.executable, "-c", OTHER, str(tmp_path / "store.db")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Other(process)
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


async def is_asked(breaker: Breaker) -> bool:
    """Return whether a request may be sent to the CA."""
    try:
        await breaker.verify_closed()
    except Unreachable as error:
        return "left alone" not in error.reason
    return True


async def test_time_that_a_ca_named_is_heeded_by_another_process(
    store: SqliteStore, other: Other
) -> None:
    """Within a second, for the names that it was about and at that CA alone; both ways."""
    clock = FakeClock()
    budget = Budget(clock, upstream="ca", store=store)
    assert other.does("held") == "nothing"
    until = clock.now() + timedelta(hours=1)
    budget.hold("a", "x", status=429, retry_at=until, reason="too many")
    await budget.share()
    assert other.does("held", after=SECOND) == "ax"
    assert other.does("held", "next") == "nothing"
    assert other.does("hold") == "told"
    clock.advance(SECOND)
    await budget.refresh()
    with pytest.raises(Unreachable, match="held back since too many"):
        budget.verify_open("a", "y")
    budget.verify_open("b", "y")
    assert other.does("held", after=timedelta(hours=1)) == "ay"
    assert other.does("held", after=timedelta(hours=1)) == "nothing"


async def test_ca_that_is_away_is_left_alone_by_another_process(
    store: SqliteStore, other: Other
) -> None:
    """One of the two looks after the pause, and its answer lets both ask again."""
    clock = FakeClock()
    breaker = Breaker("ca", store, clock)
    assert other.does("ask") == "asks"
    for _ in range(FAILURES):
        clock.advance(SECOND)
        await breaker.note_failure("no connection")
    assert not await is_asked(breaker)
    assert other.does("ask", after=FAILURES * SECOND) == "waits"
    assert other.does("ask", "next") == "asks"
    clock.advance(FIRST_PAUSE)
    assert other.does("ask", after=FIRST_PAUSE) == "asks"
    assert not await is_asked(breaker)
    assert other.does("answered") == "told"
    clock.advance(SECOND)
    assert await is_asked(breaker)
    assert await store.breakers() == []
