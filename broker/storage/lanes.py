"""A lane: a thread with a queue, which takes what waits as one batch and answers it at once.

The loop hands a unit over and awaits its future.  One call back to the loop answers a whole
batch, so the price of crossing threads is shared by all who wait.  A lane knows nothing of
databases; what runs a batch is given to it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event

__all__ = ["Lane", "Runner", "Unit"]

T = TypeVar("T")

MAX_BATCH: Final = 128
"""Most units that share one commit.

Twice the 64 orders that a busy broker has in flight; beyond it a failed commit would fail too
many callers, and the first of them would wait too long for the last.
"""

MAX_WAITING: Final = 4096
"""Most units that may wait in a lane.

Past it the store has fallen behind for seconds (a stalled disk); a refusal to try later costs
less than a queue that grows until memory ends.
"""


class Unit:
    """One piece of work on its way to the lane's thread and back."""

    __slots__ = ("error", "events", "future", "is_durable", "result", "work")

    def __init__(
        self, work: Callable[[Any], Any], future: asyncio.Future[Any], *, is_durable: bool
    ) -> None:
        self.work = work
        self.future = future
        self.is_durable = is_durable
        self.events: list[Event] = []
        self.result: object = None
        self.error: Exception | None = None

    def attempt(self, argument: object) -> None:
        """Do the work, keeping its result or what it raised for the one who waits."""
        self.error = None
        try:
            self.result = self.work(argument)
        except Exception as error:  # noqa: BLE001 - carried to the caller, who awaits it
            self.error = error

    def fail(self, error: Exception) -> None:
        """Turn the unit into a failure: nothing of it has happened."""
        self.result = None
        self.error = error
        self.events = []


class Runner(Protocol):
    """Runs batches on the lane's thread."""

    def run(self, batch: Sequence[Unit]) -> None:
        """Give every unit of *batch* a result or an error; never raise."""
        ...

    def close(self) -> None:
        """Let go of everything; called once, after the last batch."""
        ...


class Lane:
    """A thread that runs batches, and the way to it from one event loop."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        *,
        on_batch: Callable[[Sequence[Unit]], None] | None = None,
    ) -> None:
        """Start the thread; *on_batch* is called on the loop after each batch is answered."""
        self._loop = asyncio.get_running_loop()
        self._runner = runner
        self._on_batch = on_batch
        # None is the sign to stop.
        self._queue: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._waiting = 0
        self._is_closed = False
        self._ended = self._loop.create_future()
        # A daemon: a loop that died without closing its store must not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of units handed over and not answered yet."""
        return self._waiting

    def submit(self, work: Callable[[Any], T], *, is_durable: bool = False) -> asyncio.Future[T]:
        """Queue *work* and return the future of its result.

        The work is done even if whoever awaits it goes away: it may be on the disk already.

        Raises:
            Broken: The lane is closed.
            Unreachable: Too much waits already; nothing was queued.
        """
        if self._is_closed:
            raise Broken("store is closed")
        if self._waiting >= MAX_WAITING:
            raise Unreachable(f"store has fallen behind: {self._waiting} units wait")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        self._queue.put(Unit(work, future, is_durable=is_durable))
        return future

    async def close(self) -> None:
        """Answer what waits, then end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        # It has nothing left to do; this is only so that no thread is seen after the closing.
        self._thread.join()

    # ------------------------------------------------------------------------- on the thread

    def _serve(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            if batch:
                self._run(batch)
                self._call(self._deliver, batch)
        try:
            self._runner.close()
        finally:
            self._call(self._end)

    def _run(self, batch: Sequence[Unit]) -> None:
        try:
            self._runner.run(batch)
        except Exception as error:  # noqa: BLE001 - carried to every caller of the batch
            # A bug of ours in the runner: the thread lives on, and nobody waits for ever.
            for unit in batch:
                unit.fail(error)

    def _take(self) -> tuple[list[Unit], bool]:
        """Return the next batch, waiting for its first unit, and whether it is the last."""
        unit = self._queue.get()
        batch: list[Unit] = []
        while unit is not None:
            batch.append(unit)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                unit = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            return

    # --------------------------------------------------------------------------- on the loop

    def _deliver(self, batch: Sequence[Unit]) -> None:
        self._waiting -= len(batch)
        for unit in batch:
            if unit.future.done():
                continue
            if unit.error is None:
                unit.future.set_result(unit.result)
            else:
                unit.future.set_exception(unit.error)
        if self._on_batch is not None:
            self._on_batch(batch)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
