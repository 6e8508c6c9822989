"""The job list: what runs how often.  APScheduler stays in this file.

Only a handful of sweeps live here, each of which reads from the store what is due.  Nothing is
scheduled for one order or one certificate: the truth about those is a row, never a timer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

__all__ = ["Scheduler"]


class Scheduler:
    """Runs named jobs at intervals, each never beside itself.

    A late run is still done (``misfire_grace_time=None``; the library's default drops it after
    one second) and several missed ones are done once.  A job that raises is reported through the
    library's logger and runs again at its next turn.
    """

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def add(self, name: str, every: timedelta, run: Callable[[], Awaitable[None]]) -> None:
        """Run *run* again and again, the first time one interval after the start.

        Raises:
            ValueError: *every* is not positive; that is our bug or a fault of configuration.
        """
        if every <= timedelta(0):
            raise ValueError(f"job '{name}' has the interval {every}, expected a positive one")
        trigger = IntervalTrigger(seconds=every.total_seconds(), timezone="UTC")
        self._scheduler.add_job(run, trigger, id=name, name=name)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the jobs, sorted."""
        return tuple(sorted(job.id for job in self._scheduler.get_jobs()))

    def start(self) -> None:
        """Begin; needs the running event loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """Begin no further run; one that is under way belongs to the event loop."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
