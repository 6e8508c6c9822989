"""A lane takes what waits as one batch, and answers each unit once."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.storage import lanes
from broker.storage.lanes import Lane, Unit


class FakeRunner:
    """Runs units with their number in the batch, once it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.is_closed = False
        self.thread: threading.Thread | None = None

    def run(self, batch: Sequence[Unit]) -> None:
        """Wait for the gate, then attempt each unit."""
        self.gate.wait()
        self.thread = threading.current_thread()
        self.batches.append(len(batch))
        for number, unit in enumerate(batch):
            unit.attempt(number)

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


@pytest.fixture
def runner() -> FakeRunner:
    """A runner that holds its batches back until its gate opens."""
    return FakeRunner()


def same(value: Any) -> Any:
    """Return what is given."""
    return value


async def test_units_run_on_a_thread_of_their_own(runner: FakeRunner) -> None:
    """The loop's thread never touches the database."""
    lane = Lane("lane", runner)
    runner.gate.set()
    assert await lane.submit(same) == 0
    assert runner.thread is not None
    assert runner.thread.name == "lane"
    assert runner.thread.daemon
    await lane.close()


async def test_what_waits_is_one_batch(runner: FakeRunner) -> None:
    """Units that are asked for while a batch runs make the next one together."""
    lane = Lane("lane", runner)
    futures = [lane.submit(same) for _ in range(50)]
    assert lane.waiting == 50
    runner.gate.set()
    await asyncio.gather(*futures)
    assert sum(runner.batches) == 50
    assert len(runner.batches) <= 2
    assert lane.waiting == 0
    await lane.close()


async def test_batch_has_a_limit(runner: FakeRunner) -> None:
    """Past it the next batch begins."""
    lane = Lane("lane", runner)
    futures = [lane.submit(same) for _ in range(lanes.MAX_BATCH * 3)]
    runner.gate.set()
    await asyncio.gather(*futures)
    assert max(runner.batches) == lanes.MAX_BATCH
    await lane.close()


async def test_lane_that_is_full_refuses_and_queues_nothing(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has caught up, the same call passes."""
    monkeypatch.setattr(lanes, "MAX_WAITING", 3)
    lane = Lane("lane", runner)
    futures = [lane.submit(same) for _ in range(3)]
    with pytest.raises(Unreachable, match="store has fallen behind: 3 units wait"):
        lane.submit(same)
    runner.gate.set()
    await asyncio.gather(*futures)
    await lane.submit(same)
    assert sum(runner.batches) == 4
    await lane.close()


async def test_what_a_unit_raises_reaches_its_caller_alone(runner: FakeRunner) -> None:
    """The others of its batch have their results."""

    def fail(_: object) -> None:
        raise KeyError("mine")

    lane = Lane("lane", runner)
    good, bad, also_good = lane.submit(same), lane.submit(fail), lane.submit(same)
    runner.gate.set()
    with pytest.raises(KeyError, match="mine"):
        await bad
    assert isinstance(await good, int)
    assert isinstance(await also_good, int)
    await lane.close()


async def test_bug_in_the_runner_reaches_every_caller_and_the_lane_goes_on() -> None:
    """Nobody waits for ever."""

    class Buggy(FakeRunner):
        def run(self, batch: Sequence[Unit]) -> None:
            if not self.batches:
                self.batches.append(0)
                raise ZeroDivisionError
            super().run(batch)

    runner = Buggy()
    runner.gate.set()
    lane = Lane("lane", runner)
    with pytest.raises(ZeroDivisionError):
        await lane.submit(same)
    assert await lane.submit(same) == 0
    await lane.close()


async def test_batch_is_told_after_its_callers(runner: FakeRunner) -> None:
    """Every future is answered by the time the hook hears of the batch."""
    told: list[list[bool]] = []

    def on_batch(batch: Sequence[Unit]) -> None:
        told.append([unit.future.done() for unit in batch])

    lane = Lane("lane", runner, on_batch=on_batch)
    future = lane.submit(same)
    runner.gate.set()
    await future
    await lane.close()
    assert told == [[True]]


async def test_caller_that_went_away_is_passed_over(runner: FakeRunner) -> None:
    """Its unit is done all the same, and the lane goes on."""
    done: list[int] = []
    lane = Lane("lane", runner)
    gone, here = lane.submit(done.append), lane.submit(same)
    gone.cancel()
    runner.gate.set()
    await here
    assert len(done) == 1
    await lane.close()


async def test_closing_answers_what_waits_and_refuses_what_comes(runner: FakeRunner) -> None:
    """The runner is closed after its last batch; a second closing changes nothing."""
    lane = Lane("lane", runner)
    future = lane.submit(same)
    runner.gate.set()
    await lane.close()
    await lane.close()
    assert future.done()
    assert runner.is_closed
    with pytest.raises(Broken, match="store is closed"):
        lane.submit(same)


async def test_runner_that_cannot_close_does_not_keep_the_lane_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fault is shown by the thread; the one who closes does not wait for ever."""
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)

    class Stuck(FakeRunner):
        def close(self) -> None:
            raise OSError("busy")

    lane = Lane("lane", Stuck())
    await lane.close()
    lane._thread.join()
    assert [one.exc_type for one in shown] == [OSError]


def test_loop_that_is_gone_is_no_fault(runner: FakeRunner) -> None:
    """A loop closed without closing its lanes leaves a thread that ends in peace."""

    async def leave() -> Lane:
        lane = Lane("lane", runner)
        lane.submit(same)
        return lane

    lane = asyncio.run(leave())
    runner.gate.set()
    lane._queue.put(None)
    lane._thread.join()
    assert runner.is_closed


@pytest.mark.parametrize("work", [same, lambda _: None], ids=["result", "nothing"])
async def test_failed_unit_has_no_result_and_no_events(work: Callable[[Any], Any]) -> None:
    """Whatever it did before, nothing of it has happened."""
    unit = Unit(work, asyncio.get_running_loop().create_future(), is_durable=True)
    unit.attempt(5)
    unit.fail(Broken("no"))
    assert (unit.result, str(unit.error), unit.events) == (None, "no", [])
