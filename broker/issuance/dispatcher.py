"""Runs durable jobs: at once when they are made, again when they are due, after a restart too.

The truth is the job row, which is written in the transaction of the change that asks for the
work.  This module only makes sure that somebody does it: one run a (kind, subject) at a time,
a bounded number of runs of a kind at once, growing pauses after failures.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Final, Protocol

import structlog

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.ports import Clock, JobStore
from broker.issuance.records import Job, JobKind
from broker.issuance.signatures import signing_for

__all__ = ["CallLater", "Dispatcher", "Ending", "Handler", "Postponed", "Timer"]

LONGEST_PAUSE: Final = timedelta(seconds=15)
"""Longest pause after an unreachable peer, in seconds: a CA that returns is met within it."""

LONGEST_BROKEN_PAUSE: Final = timedelta(minutes=10)
"""Longest pause after a peer that breaks its protocol: a person has to act first, and finds the
order going on by itself soon after; a peer that stays broken is asked six times an hour."""

SWEEP_LIMIT: Final = 500
"""Most due jobs that one sweep picks up; the next sweep takes the rest."""

log = structlog.get_logger(__name__)


class Postponed(Exception):
    """Raised by a handler that has to be run again at ``due_at`` without anything being wrong."""

    def __init__(self, due_at: datetime, note: str) -> None:
        super().__init__(note)
        self.due_at = due_at
        self.note = note


class Ending(Enum):
    """How a job ended, where its handler knows more than that it did."""

    WRITTEN = "written"
    """Its row went in the transaction of its last change: there is nothing left to write."""


Handler = Callable[[Job], Awaitable[Ending | None]]
"""Does the job and returns, or raises Postponed, Unreachable or Broken to be run again.

A handler that closes its job in its own transaction names the row there; deleting it a second
time does no harm.
"""


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """See to it that it does not come."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Makes a call after so many seconds; the event loop's own outside tests."""


def _on_the_loop(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)


@dataclass(slots=True)
class _Run:
    task: asyncio.Task[None] | None = None
    timer: Timer | None = None
    waiting: Job | None = None
    """The job that the timer will run."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """Released once the job is finished, not when it is postponed."""
    failures: int = 0
    has_begun: bool = False
    """Whether the task is past the wait for a slot."""
    kicked: Job | None = None
    """The job that was asked for while one was under way already."""
    is_put_off: bool = False
    """Whether it waits since a peer was away, which named no time to come again."""

    def release(self) -> None:
        """Let go of everyone who waits for the end."""
        for waiter in self.waiters:
            _release(waiter)


class Dispatcher:
    """Runs jobs by kind; see the module."""

    def __init__(
        self,
        jobs: JobStore,
        clock: Clock,
        *,
        concurrency: int = 64,
        call_later: CallLater = _on_the_loop,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._call_later = call_later
        # One bound for each kind: validations that hang on a slow host take nothing from the
        # orders that are on their way.
        self._slots: dict[JobKind, asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, concurrency)
        )
        self._handlers: dict[JobKind, Handler] = {}
        self._runs: dict[tuple[JobKind, str], _Run] = {}
        self._is_stopped = False

    def on(self, kind: JobKind, handler: Handler) -> None:
        """Name the handler of a kind."""
        self._handlers[kind] = handler

    def kick(self, job: Job) -> None:
        """Run *job* at once, its row exists already; if it is running, then again after that.

        The run under way may be past the place where it would have seen what this is about.
        """
        if self._is_stopped:
            return
        run = self._runs.setdefault((job.kind, job.subject), _Run())
        if run.task is not None:
            run.kicked = job
            return
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        run.waiting = None
        self._start(job, run)

    def hurry(self, kind: JobKind, subject: str) -> None:
        """Run the job at once if it waits for its next attempt; it keeps count of those it had.

        Nothing happens where a run is under way, or no job is known.
        """
        run = self._runs.get((kind, subject))
        if run is not None and run.task is None and run.waiting is not None:
            self.kick(run.waiting)

    def hurry_all(self, kinds: Collection[JobKind]) -> None:
        """Run every job of *kinds* at once that waits for its next attempt: what they waited for
        is back."""
        for kind, subject in tuple(self._runs):
            if kind in kinds:
                self.hurry(kind, subject)

    def hurry_put_off(self) -> None:
        """Run at once whatever waits since some peer was away: one of them has returned.

        Whose peer is still away waits on; a time that a peer named is kept to.
        """
        for run in tuple(self._runs.values()):
            if run.is_put_off and run.task is None and run.waiting is not None:
                self.kick(run.waiting)

    async def settled(
        self, kind: JobKind, subject: str, timeout: timedelta, *, aside: JobKind | None = None
    ) -> None:
        """Wait until the job is finished, or for *timeout*; returns at once when none is known.

        A handler that waits names its own kind as *aside*: others have its slot meanwhile, or
        enough who wait would keep out the very job that they wait for.
        """
        run = self._runs.get((kind, subject))
        if run is None:
            return
        if aside is not None:
            self._slots[aside].release()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._call_later(timeout.total_seconds(), partial(_release, waiter))
        run.waiters.append(waiter)
        try:
            await waiter
        finally:
            run.waiters.remove(waiter)
            timer.cancel()
            if aside is not None:
                await self._slots[aside].acquire()

    async def paused(self, kind: JobKind, subject: str) -> None:
        """Wait until no run of the job is under way, whatever its outcome.

        A run that still waits for its slot is not under way: it will see what is true by then.
        """
        run = self._runs.get((kind, subject))
        if run is not None and run.task is not None and run.has_begun:
            await asyncio.wait({run.task})

    async def has_ended(self, kind: JobKind, subject: str, timeout: timedelta) -> bool:
        """Wait for the run that is under way, for *timeout* at most; return whether it has ended,
        and False when none was."""
        run = self._runs.get((kind, subject))
        if run is None or run.task is None:
            return False
        ended, _ = await asyncio.wait({run.task}, timeout=timeout.total_seconds())
        return bool(ended)

    async def run_due(self) -> None:
        """Start every job that is due; called at start and by the schedule."""
        for job in await self._jobs.due_jobs(self._clock.now(), SWEEP_LIMIT):
            run = self._runs.get((job.kind, job.subject))
            if run is None or (run.task is None and run.timer is None):
                self.kick(job)

    async def stop(self) -> None:
        """Cancel what runs; the rows stay, so that the next start goes on."""
        self._is_stopped = True
        tasks = []
        for run in self._runs.values():
            run.release()
            if run.timer is not None:
                run.timer.cancel()
            if run.task is not None:
                run.task.cancel()
                tasks.append(run.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, job: Job, run: _Run) -> None:
        run.kicked = None
        run.is_put_off = False
        run.task = asyncio.get_running_loop().create_task(
            self._perform(job, run), name=f"{job.kind} {job.subject}"
        )
        run.task.add_done_callback(partial(self._on_end, job, run))

    async def _perform(self, job: Job, run: _Run) -> None:
        try:
            async with self._slots[job.kind]:
                run.has_begun = True
                with signing_for(job.kind.value, job.subject):
                    ending = await self._handlers[job.kind](job)
            if ending is not Ending.WRITTEN:
                await self._jobs.finish_job(job)
        except Postponed as outcome:
            await self._again(job, run, outcome.due_at, outcome.note)
        except Unreachable as error:
            due_at = self._clock.now() + self._pause(run, LONGEST_PAUSE)
            if error.retry_at is not None:
                due_at = max(due_at, error.retry_at)
            run.is_put_off = error.retry_at is None
            log.warning(
                "job waits",
                kind=job.kind,
                subject=job.subject,
                until=due_at.isoformat(timespec="seconds"),
                reason=error.reason,
            )
            await self._again(job, run, due_at, error.reason)
        except Conflict as error:
            # Somebody else was first: the next run reads again and decides anew.
            log.warning("job lost a race", kind=job.kind, subject=job.subject, reason=error.reason)
            due_at = self._clock.now() + self._pause(run, LONGEST_PAUSE)
            await self._again(job, run, due_at, error.reason)
        except Broken as error:
            log.error("job stands still", kind=job.kind, subject=job.subject, reason=error.reason)
            due_at = self._clock.now() + self._pause(run, LONGEST_BROKEN_PAUSE)
            await self._again(job, run, due_at, error.reason)
        except Refused as error:
            # Every handler decides what a refusal means; one that reaches here was forgotten.
            log.error("refusal without an owner", kind=job.kind, reason=error.problem.detail)
            due_at = self._clock.now() + LONGEST_BROKEN_PAUSE
            await self._again(job, run, due_at, error.problem.detail)

    async def _again(self, job: Job, run: _Run, due_at: datetime, note: str) -> None:
        """Have the job come again at *due_at*."""
        try:
            await self._jobs.postpone_job(job, due_at, note)
        except (Unreachable, Broken, Conflict) as error:
            # The row still says that it is due: the sweep finds it when the store is back.
            log.error("job could not be postponed", kind=job.kind, reason=error.reason)
        delay = max(0.0, (due_at - self._clock.now()).total_seconds())
        again = Job(kind=job.kind, subject=job.subject, due_at=due_at, attempts=job.attempts + 1)
        self._wait(again, run, delay)

    def _wait(self, job: Job, run: _Run, seconds: float) -> None:
        if not self._is_stopped:
            run.waiting = job
            run.timer = self._call_later(seconds, partial(self._on_timer, job, run))

    def _on_timer(self, job: Job, run: _Run) -> None:
        run.timer = None
        self.kick(job)

    def _on_end(self, job: Job, run: _Run, task: asyncio.Task[None]) -> None:
        """Note that the run is over, and begin the next one where there has to be one."""
        run.task = None
        run.has_begun = False
        fault = None if task.cancelled() else task.exception()
        if self._is_stopped:
            return
        if fault is not None or task.cancelled():
            # No outcome describes it, so it is a fault of ours; the job must not die of it.
            log.error("job failed", kind=job.kind, subject=job.subject, exc_info=fault)
            self._wait(job, run, self._pause(run, LONGEST_BROKEN_PAUSE).total_seconds())
        if run.kicked is not None:
            self.kick(run.kicked)
        elif run.timer is None:
            del self._runs[job.kind, job.subject]
            run.release()

    def _pause(self, run: _Run, longest: timedelta) -> timedelta:
        """Return a doubling pause from one second on, with jitter so that orders keep apart."""
        seconds = min(2.0 ** min(run.failures, 16), longest.total_seconds())
        run.failures += 1
        return timedelta(seconds=seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
