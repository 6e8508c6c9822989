"""Feeding sinks: each takes the chain in its order, from where it stopped, at its own pace.

The store is the spool.  A sink's position moves when the other side is known to have taken what was
sent, and not before: after a crash, on either side, it is sent once more from there.  So nothing
is lost and nothing is out of order; what stands twice says so by its number (docs/adr/0031).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import structlog

from broker.issuance.audit_chain import GENESIS, ChainedRecord, canonical
from broker.issuance.audit_ports import CheckpointRecord, SinkPosition, SinkStore
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock

__all__ = ["Entry", "Feeder", "Sink", "SinkState", "entries_of"]

PAGE: Final = 500
"""Most records that are read and sent at once; they are 300 KiB."""

CONFIRM_RECORDS: Final = 5_000
"""Most records that are sent before it is made certain that they were taken."""

CONFIRM_SECONDS: Final = 5.0
"""Longest time until it is made certain, in seconds: a collector sees a connection so often."""

GATHER_SECONDS: Final = 0.1
"""Pause before records are read that were just committed, in seconds: more come with them."""

LONGEST_PAUSE_SECONDS: Final = 60.0
"""Longest pause between attempts at a sink that is away, in seconds."""

STOP_SECONDS: Final = 3.0
"""Longest that sending what is left may take at the end, in seconds; the rest waits in the store
for the next start."""

log = structlog.get_logger("penstock")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail: a record, or a checkpoint."""

    line: str
    seq: int
    kind: str
    at: datetime
    record: ChainedRecord | None = None
    """None for a checkpoint."""


class Sink(Protocol):
    """Takes entries.  Every call may block, and is made in a thread."""

    def send(self, entries: Sequence[Entry]) -> None:
        """Hand the entries over, in their order.

        Raises:
            Unreachable: Not all of them; they are sent again later.
        """
        ...

    def confirm(self) -> None:
        """Return once all that was sent is known to have been taken.

        Raises:
            Unreachable: It is not known, so that it is sent again.
        """
        ...

    def abort(self) -> None:
        """Have a call that blocks end, and let go of everything; called from another thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkState:
    """How a sink is."""

    position: SinkPosition
    fault: str | None
    """Why nothing can be sent now; None while that works."""
    since: datetime | None
    """Since when it is so."""


class Feeder:
    """Feeds one sink."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        store: SinkStore,
        clock: Clock,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        confirm_seconds: float = CONFIRM_SECONDS,
    ) -> None:
        self._confirm_seconds = confirm_seconds
        self._name = name
        self._sink = sink
        self._store = store
        self._clock = clock
        self._pause = pause
        self._kept = SinkPosition(name=name)
        """What is known to have been taken."""
        self._sent = self._kept
        self._unconfirmed_since: float | None = None
        """When the first of what is not certain yet was sent, by the loop's clock."""
        self._fault: str | None = None
        self._since: datetime | None = None
        self._failures = 0
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"audit-{name}")
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def state(self) -> SinkState:
        """Return how the sink is now."""
        return SinkState(position=self._kept, fault=self._fault, since=self._since)

    def wake(self) -> None:
        """Say that there is more to send."""
        self._more.set()

    async def begin(self) -> None:
        """Go on where the sink stopped, beside everything else."""
        for position in await self._store.sink_positions():
            if position.name == self._name:
                self._kept = self._sent = position
        self._more.set()
        self._task = asyncio.create_task(self._run(), name=f"audit sink {self._name}")

    async def stop(self) -> None:
        """Send what is left, for a moment, and let go of the sink."""
        self._is_stopping = True
        self._more.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._task, STOP_SECONDS)
        self._sink.abort()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            try:
                is_all = await self.turn() == 0
                if is_all and self._is_stopping:
                    await self._confirm()
                    return
            except (Unreachable, Broken) as error:
                await self._failed(error.reason)
                if self._is_stopping:
                    return
                await self._rest()
            else:
                if is_all:
                    await self._wait()

    async def turn(self) -> int:
        """Send one page, and make certain of what was sent where that is due; return how many
        entries there were.

        Raises:
            Unreachable: The sink or the store is away.
        """
        entries, position = await self._page()
        if entries:
            if self._unconfirmed_since is None:
                self._unconfirmed_since = self._time()
            await self._call(partial(self._sink.send, entries))
            self._sent = position
        if self._seconds_left() <= 0:
            await self._confirm()
        return len(entries)

    async def _page(self) -> tuple[Sequence[Entry], SinkPosition]:
        """Return what comes next, and the position behind it."""
        records = await self._store.audit_records(after=self._sent.seq, limit=PAGE)
        last = records[-1].seq if records else self._sent.seq
        waiting = await self._store.checkpoints(after=self._sent.checkpoint, limit=PAGE)
        # One that covers a record which was not sent yet comes after that record.
        checkpoints = [one for one in waiting if one.seq <= last]
        number = checkpoints[-1].number if checkpoints else self._sent.checkpoint
        position = replace(self._sent, seq=last, checkpoint=number)
        return entries_of(records, checkpoints), position

    def _seconds_left(self) -> float:
        """Return how long what was sent may still stay uncertain."""
        if self._unconfirmed_since is None:
            return self._confirm_seconds
        if self._sent.seq - self._kept.seq >= CONFIRM_RECORDS:
            return 0.0
        return self._unconfirmed_since + self._confirm_seconds - self._time()

    async def _confirm(self) -> None:
        if self._unconfirmed_since is None:
            return
        sent = replace(self._sent, at=self._clock.now())
        await self._call(self._sink.confirm)
        self._unconfirmed_since = None
        self._kept = self._sent = sent
        await self._store.save_sink_position(sent)
        self._failures = 0
        if self._fault is not None:
            log.info("audit sink takes records again", sink=self._name, seq=sent.seq)
            self._fault, self._since = None, sent.at

    async def _call(self, call: Callable[[], None]) -> None:
        """Make a call that may block, in this sink's own thread: one that hangs holds nobody up."""
        await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    async def _failed(self, reason: str) -> None:
        """Go back to what is certain; it is sent again from there."""
        await self._call(self._sink.abort)
        self._sent = self._kept
        self._unconfirmed_since = None
        self._failures += 1
        if self._fault is None:
            self._since = self._clock.now()
            log.warning("audit sink is away", sink=self._name, reason=reason, seq=self._kept.seq)
        self._fault = reason

    async def _rest(self) -> None:
        seconds = min(2.0 ** min(self._failures - 1, 16), LONGEST_PAUSE_SECONDS)
        await self._pause(seconds)

    async def _wait(self) -> None:
        """Wait for the next commit, or until what was sent has to be made certain."""
        seconds = None if self._unconfirmed_since is None else max(0.0, self._seconds_left())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._more.wait(), seconds)
            if not self._is_stopping:
                await self._pause(GATHER_SECONDS)
        self._more.clear()


def entries_of(
    records: Sequence[ChainedRecord], checkpoints: Sequence[CheckpointRecord]
) -> list[Entry]:
    """Return records and checkpoints as lines: a checkpoint follows the record that it covers."""
    entries = [_record_entry(one) for one in records]
    entries += [_checkpoint_entry(one) for one in checkpoints]
    entries.sort(key=lambda entry: (entry.seq, entry.record is None))
    return entries


def _record_entry(record: ChainedRecord) -> Entry:
    line = record.line(record.previous or GENESIS)
    return Entry(line, record.seq, record.kind, record.at, record)


def _checkpoint_entry(checkpoint: CheckpointRecord) -> Entry:
    document: dict[str, object] = {"checkpoint": checkpoint.jws, "seq": checkpoint.seq}
    if checkpoint.vault_request is not None:
        document["vault_request"] = checkpoint.vault_request
    line = canonical(document)
    return Entry(line, checkpoint.seq, "checkpoint", checkpoint.at)
