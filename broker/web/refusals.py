"""Keeping account of refused requests without letting a flood of them fill the disk.

Every refusal is counted by the caller; of those, at most a fixed number a minute becomes an event
row.  How many were left out is told by the next row, or by one of its own once a minute and at the
end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock
from broker.issuance.refusals import told_left_out
from broker.protocol.problems import Problem
from broker.web.workflows import RecordRefusal

__all__ = ["RefusalLog"]

PER_MINUTE: Final = 600
"""Most refusals kept a minute: 300 MB a year under a flood that never ends, at 1 KiB a row."""

MAX_WAITING: Final = 1000
"""Most refusals waiting for the store: they are values of about 1 KiB."""

TOLD_EVERY: Final = timedelta(minutes=1)
"""How often it is told that some were left out: one row more in six hundred."""

_log = structlog.get_logger("penstock.web")


class RefusalLog:
    """Takes refusals at once and hands them to the store in the background."""

    def __init__(
        self,
        record: RecordRefusal,
        clock: Clock,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Hand events to *record*; *pause* waits for as many seconds."""
        self._pause = pause
        self._record = record
        self._clock = clock
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(MAX_WAITING)
        self._minute: datetime | None = None
        self._kept = 0
        self._left_out = 0

    def note(
        self,
        problem: Problem,
        *,
        operation: str,
        community: str | None,
        account_id: str | None,
        data: Mapping[str, object],
    ) -> None:
        """Queue the event of a refusal; never waits, and drops it when there are too many."""
        now = self._clock.now()
        if self._minute is None or now - self._minute >= timedelta(minutes=1):
            self._minute, self._kept = now, 0
        if self._kept >= PER_MINUTE or self._waiting.full():
            self._left_out += 1
            return
        self._kept += 1
        event = Event(
            kind=EventKind.REQUEST_REFUSED,
            at=now,
            actor=Actor(f"account:{account_id}" if account_id else "anonymous"),
            community=community,
            account_id=account_id,
            data={
                "operation": operation,
                "type": problem.token,
                "status": problem.status,
                "detail": problem.detail,
                **data,
            },
        )
        if self._left_out:
            event = replace(event, data={**event.data, "left_out_before": self._left_out})
            self._left_out = 0
        self._waiting.put_nowait(event)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep events while the context lasts, and those that wait when it ends."""
        tasks = [
            asyncio.create_task(self._drain(), name="refusals"),
            asyncio.create_task(self._tell_in_turn(), name="refusals left out"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while not self._waiting.empty():
                await self._keep(self._waiting.get_nowait())
            await self._tell_left_out()

    async def _tell_in_turn(self) -> None:
        while True:
            await self._pause(TOLD_EVERY.total_seconds())
            await self._tell_left_out()

    async def _tell_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        if not count:
            return
        is_kept = False
        try:
            is_kept = await self._keep(told_left_out(count, self._clock.now(), by="listener"))
        finally:
            # Also where it is cut off: what is left is told when the context ends.
            if not is_kept:
                self._left_out += count

    async def _drain(self) -> None:
        while True:
            await self._keep(await self._waiting.get())

    async def _keep(self, event: Event) -> bool:
        """Return whether the store has taken *event*."""
        try:
            await self._record(event)
        except (Unreachable, Broken) as error:
            _log.error("a refusal could not be kept", reason=error.reason)
            return False
        return True
