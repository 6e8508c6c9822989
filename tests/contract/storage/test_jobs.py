"""Durable jobs: due, postponed, finished."""

from dataclasses import replace

from broker.issuance.ports import Attached, Store
from broker.issuance.records import Job, JobKind
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def queue(store: Store, *jobs: Job) -> None:
    """Queue *jobs* with an order."""
    await given.has_order(store, attached=Attached(jobs=jobs))


async def test_due_jobs_come_soonest_first(store: Store) -> None:
    """What is not due yet is left out, and the limit holds."""
    late, soon, future = (given.job(due_at=NOW + n * HOUR) for n in (0, -1, 1))
    await queue(store, late, future, soon)
    assert await store.due_jobs(NOW, 10) == [soon, late]
    assert await store.due_jobs(NOW, 1) == [soon]
    assert await store.due_jobs(NOW - 2 * HOUR, 10) == []


async def test_postponed_job_counts_its_attempts(store: Store) -> None:
    """The row keeps the count, the next time and the note; a caller's old count changes nothing."""
    job = given.job()
    await queue(store, job)
    for attempts in (1, 2):
        await store.postpone_job(job, NOW + HOUR, "no answer")
        assert await store.due_jobs(NOW, 10) == []
        assert await store.due_jobs(NOW + HOUR, 10) == [
            replace(job, due_at=NOW + HOUR, attempts=attempts, note="no answer")
        ]


async def test_finished_job_is_gone(store: Store) -> None:
    """Its row is deleted, others of the same subject or kind stay; again it changes nothing."""
    done = given.job(JobKind.FULFIL, subject="one")
    others = [given.job(JobKind.REVOKE, subject="one"), given.job(JobKind.FULFIL, subject="two")]
    await queue(store, done, *others)
    await store.finish_job(done)
    await store.finish_job(done)
    assert sorted(await store.due_jobs(NOW, 10), key=lambda one: one.kind) == sorted(
        others, key=lambda one: one.kind
    )


async def test_postponing_a_finished_job_does_not_bring_it_back(store: Store) -> None:
    """A job that somebody finished meanwhile stays finished."""
    job = given.job()
    await queue(store, job)
    await store.finish_job(job)
    await store.postpone_job(job, NOW, "late")
    assert await store.due_jobs(NOW + HOUR, 10) == []


async def test_job_queued_twice_is_one_job(store: Store) -> None:
    """The row keeps its count and comes as early as either wants it."""
    job = given.job(due_at=NOW)
    await queue(store, job)
    await store.postpone_job(job, NOW + HOUR, "no answer")
    await queue(store, replace(job, due_at=NOW + 2 * HOUR))
    assert [one.due_at for one in await store.due_jobs(NOW + 9 * HOUR, 10)] == [NOW + HOUR]
    await queue(store, job)
    assert await store.due_jobs(NOW, 10) == [replace(job, attempts=1, note="no answer")]


async def test_job_that_is_done_and_queued_in_one_change_begins_anew(store: Store) -> None:
    """What is done goes first."""
    job = given.job()
    await queue(store, job)
    await store.postpone_job(job, NOW + HOUR, "no answer")
    again = replace(job, due_at=NOW + 2 * HOUR)
    await given.has_order(store, attached=Attached(done=((job.kind, job.subject),), jobs=(again,)))
    assert await store.due_jobs(NOW + 9 * HOUR, 10) == [again]
