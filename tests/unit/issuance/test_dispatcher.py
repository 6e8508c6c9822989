"""Jobs are done at once, one run of each at a time, and again until they are finished."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from broker.issuance.dispatcher import (
    LONGEST_BROKEN_PAUSE,
    LONGEST_PAUSE,
    Dispatcher,
    Ending,
    Postponed,
)
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.records import Job, JobKind
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.clock import START, FakeClock
from tests.fakes.fake_time import FakeTime
from tests.fakes.stall import Stall

SECOND = timedelta(seconds=1)


def job(subject: str = "one", kind: JobKind = JobKind.FULFIL, **changes: object) -> Job:
    """Return a job that is due."""
    return Job(kind=kind, subject=subject, due_at=START, **changes)  # type: ignore[arg-type]


class Rows:
    """``ports.JobStore`` in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Job] = {}
        self.postponed: list[tuple[str, datetime, str]] = []
        self.is_away = False

    def add(self, *jobs: Job) -> None:
        """Keep rows."""
        self.rows |= {(one.kind, one.subject): one for one in jobs}

    async def due_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        due = [one for one in self.rows.values() if one.due_at <= now]
        return sorted(due, key=lambda one: one.due_at)[:limit]

    async def postpone_job(self, job: Job, due_at: datetime, note: str) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise Unreachable("store is away")
        self.postponed.append((job.subject, due_at, note))
        kept = self.rows[job.kind, job.subject]
        self.rows[job.kind, job.subject] = Job(
            kind=job.kind, subject=job.subject, due_at=due_at, attempts=kept.attempts + 1
        )

    async def finish_job(self, job: Job) -> None:
        await asyncio.sleep(0)
        self.rows.pop((job.kind, job.subject), None)


class Handler:
    """Does jobs as it was told: raises what is listed, then succeeds."""

    def __init__(self) -> None:
        self.done: list[Job] = []
        self.ending: Ending | None = None
        self.outcomes: list[BaseException] = []
        self.stalls: list[Stall] = []
        self.under_way = 0
        self.most_under_way = 0

    def stall(self) -> Stall:
        """Let the next run wait."""
        made = Stall(is_after=False)
        self.stalls.append(made)
        return made

    async def __call__(self, job: Job) -> Ending | None:
        self.done.append(job)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.stalls:
                await self.stalls.pop(0).wait()
            if self.outcomes:
                raise self.outcomes.pop(0)
        finally:
            self.under_way -= 1
        return self.ending


class Bench:
    """A dispatcher with all that it needs."""

    def __init__(self, concurrency: int = 64) -> None:
        self.clock = FakeClock()
        self.time = FakeTime(self.clock)
        self.rows = Rows()
        self.handler = Handler()
        self.dispatcher = Dispatcher(
            self.rows, self.clock, concurrency=concurrency, call_later=self.time.call_later
        )
        for kind in JobKind:
            self.dispatcher.on(kind, self.handler)

    def begin(self, *jobs: Job) -> None:
        """Keep rows and kick them."""
        self.rows.add(*jobs)
        for one in jobs:
            self.dispatcher.kick(one)

    async def settle(self) -> None:
        """Let everything go on that can."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def go_to_next(self) -> timedelta:
        """Move to the next timer and return how far that was."""
        before = self.clock.now()
        self.time.go_to_next()
        await self.settle()
        return self.clock.now() - before


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A dispatcher at work."""
    made = Bench()
    yield made
    await made.dispatcher.stop()


async def test_job_is_run_and_its_row_deleted(bench: Bench) -> None:
    """What succeeded leaves nothing behind."""
    bench.begin(job())
    await bench.settle()
    assert [one.subject for one in bench.handler.done] == ["one"]
    assert bench.rows.rows == {}
    assert bench.time.next_due is None


async def test_row_that_went_with_the_last_change_is_not_written_again(bench: Bench) -> None:
    """The run is over all the same, and whoever waits for its end is released."""
    bench.handler.ending = Ending.WRITTEN
    bench.begin(job())
    await bench.settle()
    assert [one.subject for one in bench.handler.done] == ["one"]
    assert set(bench.rows.rows) == {(job().kind, "one")}, "nobody touched it"
    assert bench.time.next_due is None


async def test_job_runs_once_at_a_time_and_again_when_asked_for_meanwhile(bench: Bench) -> None:
    """A request that comes while its job is under way is not lost, and starts no second run."""
    stall = bench.handler.stall()
    bench.begin(job())
    await stall.reached.wait()
    bench.dispatcher.kick(job())
    bench.dispatcher.kick(job())
    await bench.settle()
    assert len(bench.handler.done) == 1
    stall.release()
    await bench.settle()
    assert len(bench.handler.done) == 2
    assert bench.handler.most_under_way == 1


async def test_postponed_job_comes_again_when_it_said(bench: Bench) -> None:
    """Its row says so too, and counts the attempts."""
    bench.handler.outcomes = [Postponed(START + 7 * SECOND, "not yet")]
    bench.begin(job())
    await bench.settle()
    assert bench.rows.postponed == [("one", START + 7 * SECOND, "not yet")]
    assert await bench.go_to_next() == 7 * SECOND
    assert [one.attempts for one in bench.handler.done] == [0, 1]
    assert bench.rows.rows == {}


@pytest.mark.parametrize(
    ("outcome", "longest"),
    [
        pytest.param(Unreachable("away"), LONGEST_PAUSE, id="unreachable"),
        pytest.param(Conflict("lost"), LONGEST_PAUSE, id="conflict"),
        pytest.param(Broken("nonsense"), LONGEST_BROKEN_PAUSE, id="broken"),
        pytest.param(ValueError("a bug"), LONGEST_BROKEN_PAUSE, id="bug"),
        pytest.param(asyncio.CancelledError(), LONGEST_BROKEN_PAUSE, id="leaked cancellation"),
    ],
)
async def test_failed_job_comes_again_after_growing_pauses(
    bench: Bench, outcome: BaseException, longest: timedelta
) -> None:
    """From half a second on, doubling, never past the limit of its kind of failure."""
    bench.handler.outcomes = [outcome] * 20
    with capture_logs():
        bench.begin(job())
        await bench.settle()
        pauses = [await bench.go_to_next() for _ in range(20)]
    assert len(bench.handler.done) == 21
    assert bench.rows.rows == {}
    for number, pause in enumerate(pauses):
        full = min(2.0**number, longest.total_seconds())
        assert full / 2 <= pause.total_seconds() <= full


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        pytest.param(Broken("nonsense"), "job stands still", id="broken"),
        pytest.param(ValueError("a bug"), "job failed", id="bug"),
    ],
)
async def test_operator_is_told_what_a_person_has_to_mend(
    bench: Bench, outcome: Exception, told: str
) -> None:
    """One line at level error, with the job that it is about."""
    bench.handler.outcomes = [outcome]
    with capture_logs() as lines:
        bench.begin(job())
        await bench.settle()
    (line,) = lines
    assert (line["event"], line["log_level"], line["subject"]) == (told, "error", "one")


async def test_pause_is_at_least_what_the_peer_named(bench: Bench) -> None:
    """Retry-After is kept, however long it is."""
    bench.handler.outcomes = [Unreachable("busy", retry_at=START + timedelta(minutes=5))]
    bench.begin(job())
    await bench.settle()
    assert await bench.go_to_next() == timedelta(minutes=5)


async def test_refusal_without_an_owner_stands_still(bench: Bench) -> None:
    """It is looked at again in an hour; nothing is ended by it."""
    bench.handler.outcomes = [Refused(Problem(ProblemType.MALFORMED, "no"))]
    bench.begin(job())
    await bench.settle()
    assert await bench.go_to_next() == LONGEST_BROKEN_PAUSE
    assert len(bench.handler.done) == 2


async def test_store_that_is_away_keeps_no_job_from_coming_again(bench: Bench) -> None:
    """The row cannot be postponed, the job is all the same."""
    bench.rows.is_away = True
    bench.handler.outcomes = [Unreachable("away")]
    bench.begin(job())
    await bench.settle()
    await bench.go_to_next()
    assert len(bench.handler.done) == 2


async def test_kick_ends_a_pause(bench: Bench) -> None:
    """A job that waits is run at once when it is asked for again, and not a second time."""
    bench.handler.outcomes = [Unreachable("away")]
    bench.begin(job())
    await bench.settle()
    bench.dispatcher.kick(job())
    await bench.settle()
    assert len(bench.handler.done) == 2
    assert bench.time.next_due is None


async def test_hurried_job_comes_at_once_and_keeps_its_count(bench: Bench) -> None:
    """Unlike one that is asked for anew; nothing happens to one under way, done or unknown."""
    bench.handler.outcomes = [Postponed(START + 60 * SECOND, "later")] * 2
    bench.begin(job())
    await bench.settle()
    for _ in range(2):
        bench.dispatcher.hurry(JobKind.FULFIL, "one")
        bench.dispatcher.hurry(JobKind.FULFIL, "one")
        await bench.settle()
    assert [one.attempts for one in bench.handler.done] == [0, 1, 2]
    bench.dispatcher.hurry(JobKind.FULFIL, "one")
    bench.dispatcher.hurry(JobKind.FULFIL, "nothing")
    await bench.settle()
    assert len(bench.handler.done) == 3
    assert bench.clock.now() == START


async def test_what_was_put_off_goes_on_when_a_peer_has_returned(bench: Bench) -> None:
    """A time that a peer named is kept to, and so is one that nothing is wrong with."""
    bench.handler.outcomes = [
        Unreachable("Vault is sealed"),
        Unreachable("busy", retry_at=START + 60 * SECOND),
    ]
    bench.begin(job())
    await bench.settle()
    for _ in range(3):
        bench.dispatcher.hurry_put_off()
        await bench.settle()
    assert [one.attempts for one in bench.handler.done] == [0, 1]
    bench.handler.outcomes = [Postponed(START + 60 * SECOND, "later")]
    bench.begin(job("another"))
    await bench.settle()
    bench.dispatcher.hurry_put_off()
    await bench.settle()
    assert len(bench.handler.done) == 3
    assert bench.clock.now() == START


async def test_sweep_starts_what_is_due_and_nobody_does(bench: Bench) -> None:
    """Neither a job under way nor one that waits for its time is begun again."""
    running, waiting = job("running"), job("waiting")
    stall = bench.handler.stall()
    bench.begin(running)
    await stall.reached.wait()
    bench.handler.outcomes = [Postponed(START, "soon")]
    bench.rows.is_away = True  # so that the row still says it is due
    bench.begin(waiting)
    await asyncio.sleep(0)
    later = Job(kind=JobKind.FULFIL, subject="later", due_at=START + SECOND)
    bench.rows.add(job("left behind"), later)
    before = len(bench.handler.done)
    await bench.dispatcher.run_due()
    await bench.settle()
    started = [one.subject for one in bench.handler.done[before:]]
    assert started.count("left behind") == 1
    assert "running" not in started
    assert "later" not in started
    assert started.count("waiting") <= 1
    stall.release()


async def test_runs_of_a_kind_are_bounded_and_other_kinds_have_their_own_bound() -> None:
    """Validations that hang take no slot from the orders that are on their way."""
    bench = Bench(concurrency=2)
    stalls = [bench.handler.stall() for _ in range(2)]
    bench.begin(*(job(f"slow {n}", JobKind.VALIDATE) for n in range(5)))
    await bench.settle()
    assert bench.handler.under_way == 2
    bench.begin(job("order"))
    await bench.settle()
    assert bench.handler.done[-1].subject == "order"
    for stall in stalls:
        stall.release()
    await bench.settle()
    assert bench.rows.rows == {}
    await bench.dispatcher.stop()


async def test_handler_that_waits_for_another_job_leaves_it_its_slot() -> None:
    """Those who wait would keep out the very job that they wait for; they have to queue again."""
    bench = Bench(concurrency=1)
    seen: list[str] = []
    begun, stall = asyncio.Event(), Stall(is_after=False)

    async def do(one: Job) -> None:
        seen.append(f"{one.subject} begins")
        if one.subject == "second":
            await begun.wait()
            await bench.dispatcher.settled(JobKind.FULFIL, "first", SECOND, aside=JobKind.FULFIL)
        if one.subject == "third":
            await stall.wait()
        seen.append(f"{one.subject} ends")

    bench.dispatcher.on(JobKind.FULFIL, do)
    bench.begin(job("second"))
    await bench.settle()
    bench.begin(job("first"), job("third"))
    begun.set()
    await bench.settle()
    assert seen == ["second begins", "first begins", "first ends", "third begins"]
    stall.release()
    await bench.settle()
    assert seen[4:] == ["third ends", "second ends"]
    assert bench.rows.rows == {}
    await bench.dispatcher.stop()


async def test_wait_aside_ends_with_the_dispatcher() -> None:
    """Whoever waits for its slot again holds nobody up who ends."""
    bench = Bench(concurrency=1)
    stall = Stall(is_after=False)

    async def do(one: Job) -> None:
        if one.subject == "second":
            await bench.dispatcher.settled(JobKind.FULFIL, "first", SECOND, aside=JobKind.FULFIL)
        await stall.wait()

    bench.dispatcher.on(JobKind.FULFIL, do)
    bench.begin(job("second"), job("first"))
    await bench.settle()
    assert stall.reached.is_set()
    await asyncio.wait_for(bench.dispatcher.stop(), 5)
    assert len(bench.rows.rows) == 2


async def test_paused_waits_for_a_run_under_way(bench: Bench) -> None:
    """It returns when the run has ended, though the job is postponed and not finished."""
    stall = bench.handler.stall()
    bench.handler.outcomes = [Unreachable("away")]
    bench.begin(job())
    await stall.reached.wait()
    waits = asyncio.create_task(bench.dispatcher.paused(JobKind.FULFIL, "one"))
    await bench.settle()
    assert not waits.done()
    stall.release()
    await waits
    assert bench.rows.rows != {}


async def test_paused_does_not_wait_for_a_run_that_waits_for_its_slot() -> None:
    """Two jobs could wait for each other else, one for the other's end, one for its slot."""
    bench = Bench(concurrency=1)
    stall = bench.handler.stall()
    bench.begin(job("holds the slot"), job("queued"))
    await stall.reached.wait()
    async with asyncio.timeout(30):
        await bench.dispatcher.paused(JobKind.FULFIL, "queued")
        await bench.dispatcher.paused(JobKind.FULFIL, "unknown")
    stall.release()
    await bench.dispatcher.stop()


async def test_settled_waits_for_the_end_and_not_for_a_pause(bench: Bench) -> None:
    """A postponed job is not over."""
    bench.handler.outcomes = [Unreachable("away")]
    bench.begin(job())
    waits = asyncio.create_task(bench.dispatcher.settled(JobKind.FULFIL, "one", 60 * SECOND))
    await bench.settle()
    assert not waits.done()
    await bench.go_to_next()
    assert waits.done()


async def test_settled_waits_no_longer_than_it_was_told(bench: Bench) -> None:
    """The job goes on, and the next who waits waits anew."""
    stall = bench.handler.stall()
    bench.begin(job())
    await stall.reached.wait()
    waits = asyncio.create_task(bench.dispatcher.settled(JobKind.FULFIL, "one", 5 * SECOND))
    await bench.settle()
    assert await bench.go_to_next() == 5 * SECOND
    assert waits.done()
    again = asyncio.create_task(bench.dispatcher.settled(JobKind.FULFIL, "one", 5 * SECOND))
    stall.release()
    await again
    assert bench.rows.rows == {}


async def test_settled_returns_at_once_for_an_unknown_job(bench: Bench) -> None:
    """There is nothing to wait for."""
    async with asyncio.timeout(30):
        await bench.dispatcher.settled(JobKind.FULFIL, "unknown", 60 * SECOND)


async def test_stop_cancels_what_runs_and_leaves_the_rows() -> None:
    """The next start goes on from them; whoever waits for an answer gets one now."""
    bench = Bench()
    stall = bench.handler.stall()
    bench.begin(job())
    await stall.reached.wait()
    bench.handler.outcomes = [Unreachable("away")]
    bench.begin(job("waits"))
    await bench.settle()
    waiting = asyncio.create_task(bench.dispatcher.settled(JobKind.FULFIL, "one", 60 * SECOND))
    await asyncio.sleep(0)
    await bench.dispatcher.stop()
    await waiting
    assert bench.handler.under_way == 0
    assert {subject for _, subject in bench.rows.rows} == {"one", "waits"}
    bench.dispatcher.kick(job("late"))
    await bench.settle()
    assert bench.time.next_due is None
    assert "late" not in [one.subject for one in bench.handler.done]


async def test_stop_without_jobs_is_quick(bench: Bench) -> None:
    """There is nothing to cancel."""
    async with asyncio.timeout(30):
        await bench.dispatcher.stop()


async def test_all_of_some_kinds_are_hurried(bench: Bench) -> None:
    """What they waited for is back; jobs of other kinds wait on."""
    bench.handler.outcomes = [Broken("our account is lost")] * 2
    bench.begin(job())
    bench.begin(job("another"))
    await bench.settle()
    bench.dispatcher.hurry_all([JobKind.REVOKE])
    await bench.settle()
    assert len(bench.handler.done) == 2
    bench.dispatcher.hurry_all([JobKind.FULFIL, JobKind.REVOKE])
    await bench.settle()
    assert [one.attempts for one in bench.handler.done] == [0, 0, 1, 1]
    assert bench.clock.now() == START
