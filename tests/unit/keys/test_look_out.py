"""The look-out: it goes on after a bug, and ends when it is told to."""

import asyncio

from broker.keys.look_out import LookOut


async def test_it_goes_on_after_a_bug() -> None:
    """After a pause, and as often as it takes."""
    runs, pauses = 0, []
    third = asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise LookupError("a bug")
        third.set()
        await asyncio.Event().wait()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    watch = LookOut(run, pause, 1.5)
    watch.begin()
    await third.wait()
    await watch.stop()
    assert (runs, pauses) == (3, [1.5, 1.5])


async def test_it_ends_when_it_is_told_to() -> None:
    """Also where it never began, and it does not come back."""
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        await asyncio.Event().wait()

    watch = LookOut(run, asyncio.sleep, 0)
    await watch.stop()
    watch.begin()
    await asyncio.sleep(0)
    await watch.stop()
    await asyncio.sleep(0)
    assert runs == 1


async def test_it_ends_though_a_cancellation_is_lost() -> None:
    """As one can be that meets an answer in the same turn of the loop."""
    lost = 0

    async def run() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    watch = LookOut(run, asyncio.sleep, 0)
    watch.begin()
    await asyncio.sleep(0)
    await watch.stop()
    assert lost == 2
