"""Refusals are kept, and a flood of them is not."""

import asyncio
from datetime import timedelta

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import Event, EventKind
from broker.protocol.problems import Problem, ProblemType
from broker.web import refusals
from broker.web.refusals import RefusalLog
from tests.fakes.clock import FakeClock

PROBLEM = Problem(ProblemType.MALFORMED, "body is empty")


def note(log: RefusalLog, account_id: str | None = None) -> None:
    """Note one refusal."""
    log.note(
        PROBLEM,
        operation="new-order",
        community="default",
        account_id=account_id,
        data={"peer": "192.0.2.1"},
    )


@pytest.fixture
def kept() -> list[Event]:
    """What reached the store."""
    return []


@pytest.fixture
def clock() -> FakeClock:
    """A clock to turn."""
    return FakeClock()


@pytest.fixture
def log(kept: list[Event], clock: FakeClock) -> RefusalLog:
    """A log over a store that takes everything."""

    async def record(event: Event) -> None:
        kept.append(event)

    return RefusalLog(record, clock)


async def test_refusal_is_kept_with_who_and_why(log: RefusalLog, kept: list[Event]) -> None:
    """What waits when the listener stops is kept too."""
    async with log.running():
        note(log, "acct1")
        note(log)
    first, second = kept
    assert first.kind is EventKind.REQUEST_REFUSED
    assert (first.actor.name, second.actor.name) == ("account:acct1", "anonymous")
    assert first.data == {
        "operation": "new-order",
        "type": "malformed",
        "status": 400,
        "detail": "body is empty",
        "peer": "192.0.2.1",
    }


async def test_flood_is_counted_and_not_kept(
    log: RefusalLog, kept: list[Event], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next minute's first row tells how many were left out."""
    monkeypatch.setattr(refusals, "PER_MINUTE", 3)
    async with log.running():
        for _ in range(10):
            note(log)
        clock.advance(timedelta(minutes=1))
        note(log)
    assert len(kept) == 4
    assert kept[-1].data["left_out_before"] == 7


async def test_flood_that_ends_is_counted_at_the_end(
    log: RefusalLog, kept: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes after it that could tell; where nothing was left out nothing is told."""
    monkeypatch.setattr(refusals, "PER_MINUTE", 3)
    async with log.running():
        for _ in range(10):
            note(log)
    assert [one.kind for one in kept[3:]] == [EventKind.REFUSALS_LEFT_OUT]
    assert kept[-1].data == {"left_out": 7, "by": "listener"}
    async with log.running():
        pass
    assert len(kept) == 4


async def test_flood_that_lasts_is_counted_each_minute(
    kept: list[Event], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, and later where the store cannot take it now."""
    monkeypatch.setattr(refusals, "PER_MINUTE", 0)
    minutes: asyncio.Queue[None] = asyncio.Queue()
    told = asyncio.Event()
    is_away = True

    async def record(event: Event) -> None:
        told.set()
        if is_away:
            raise Unreachable("locked")
        kept.append(event)

    async def minute(_seconds: float) -> None:
        await minutes.get()

    log = RefusalLog(record, clock, pause=minute)
    async with log.running():
        for _ in range(3):
            note(log)
            told.clear()
            minutes.put_nowait(None)
            await told.wait()
            is_away = False
    assert [one.data["left_out"] for one in kept] == [2, 1]


async def test_flood_is_counted_though_the_count_was_being_written(
    kept: list[Event], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping cuts it short, and tells it again."""
    monkeypatch.setattr(refusals, "PER_MINUTE", 0)
    writing = asyncio.Event()

    async def record(event: Event) -> None:
        if not writing.is_set():
            writing.set()
            await asyncio.Event().wait()
        kept.append(event)

    async def pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    log = RefusalLog(record, clock, pause=pause)
    async with log.running():
        for _ in range(3):
            note(log)
        await writing.wait()
    assert [one.data["left_out"] for one in kept] == [3]


async def test_full_queue_never_blocks_a_request(clock: FakeClock) -> None:
    """A store that hangs costs rows and no answers."""

    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    log = RefusalLog(hang, clock)
    for _ in range(refusals.MAX_WAITING + 500):
        note(log)
        clock.advance(timedelta(seconds=1))


async def test_store_that_fails_does_not_end_the_log(clock: FakeClock) -> None:
    """The one after is tried again."""
    tried: list[Event] = []

    async def fail(event: Event) -> None:
        tried.append(event)
        raise Unreachable("locked")

    log = RefusalLog(fail, clock)
    async with log.running():
        note(log)
        note(log)
    assert len(tried) == 2
