"""The job list: names, intervals, and a clean stop.  That time passes is APScheduler's affair."""

import asyncio
from datetime import timedelta

import pytest

from broker.schedule import Scheduler


async def nothing() -> None:
    """Do nothing."""


async def test_job_runs_again_and_again() -> None:
    """Awaited until it has run twice."""
    turns = asyncio.Semaphore(0)

    async def run() -> None:
        turns.release()

    scheduler = Scheduler()
    scheduler.add("sweep", timedelta(milliseconds=5), run)
    scheduler.start()
    async with asyncio.timeout(30):
        await turns.acquire()
        await turns.acquire()
    scheduler.stop()


async def test_slow_job_never_runs_beside_itself() -> None:
    """A sweep that takes longer than its interval is not started a second time."""
    running = 0
    most = 0
    started = asyncio.Event()
    release = asyncio.Event()

    async def run() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        started.set()
        await release.wait()
        running -= 1

    ticks = asyncio.Semaphore(0)

    async def tick() -> None:
        ticks.release()

    scheduler = Scheduler()
    scheduler.add("slow", timedelta(milliseconds=2), run)
    scheduler.add("tick", timedelta(milliseconds=5), tick)
    scheduler.start()
    async with asyncio.timeout(30):
        await started.wait()
        for _ in range(4):
            await ticks.acquire()
    assert most == 1
    release.set()
    scheduler.stop()


async def test_jobs_have_names() -> None:
    """For the log, and so that one cannot be added twice unseen."""
    scheduler = Scheduler()
    scheduler.add("b", timedelta(seconds=1), nothing)
    scheduler.add("a", timedelta(seconds=1), nothing)
    assert scheduler.names == ("a", "b")


@pytest.mark.parametrize("every", [timedelta(0), timedelta(seconds=-1)], ids=["zero", "negative"])
def test_interval_is_positive(every: timedelta) -> None:
    """Anything else would be a busy loop."""
    with pytest.raises(ValueError, match="expected a positive one"):
        Scheduler().add("a", every, nothing)


def test_stop_before_start_is_nothing() -> None:
    """A start that failed half way can be undone."""
    Scheduler().stop()
