"""The circuit breaker of one CA: closed, open, half-open.

A CA that does not answer is left alone, so that orders go elsewhere at once and nobody piles up
requests on one that is coming back.  What counts is its own failure: no connection, a TLS
certificate of its that is not trusted, an answer from 500 on, a storm of refused nonces.  A refusal
of ours never counts, nor a limit: both are answers.

The state lies in the store and is read again each second, so processes over one store open and
close it together, and one of them alone looks whether the CA is back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Conflict, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Clock
from broker.issuance.quota_ports import BreakerRecord, BreakerState, BreakerStore

__all__ = ["Breaker"]

FAILURES: Final = 3
"""Failures in a row that open it: an order's own attempts meet that in two to four seconds."""

LEAST_TIME: Final = timedelta(seconds=1)
"""Shortest time that the failures have to span: sixteen requests that fail in one moment are one
failure, such as a CA's restart."""

LONGEST_TIME: Final = timedelta(minutes=10)
"""Time after which earlier failures are forgotten, though nothing succeeded meanwhile: nobody may
have asked."""

FIRST_SERVER_FAULT: Final = 500
"""Statuses from here on are the server's own faults (RFC 9110 §15.6)."""

NONCE_STORM: Final = 10
"""Refused nonces in a row that count as a failure: two requests' worth of tries, where a CA that
refuses some on purpose has accepted one long before."""

FIRST_PAUSE: Final = timedelta(seconds=5)
"""How long it stays open at first; doubled each time that it opens again."""

LONGEST_PAUSE: Final = timedelta(seconds=15)
"""Longest time for which it stays open: a CA that returns is met within it."""

LOOK_TIME: Final = timedelta(seconds=75)
"""How long a look may take before another may be taken: the longest request and its connection."""

MAX_AGE: Final = timedelta(seconds=1)
"""How long what the store said is believed."""

MAX_REASON_CHARS: Final = 300
"""Longest reason that is kept, in characters."""


class Breaker:
    """Stands before every request to one CA."""

    def __init__(self, upstream: str, store: BreakerStore, clock: Clock) -> None:
        self._upstream = upstream
        self._store = store
        self._clock = clock
        self._record: BreakerRecord | None = None
        self._read_at: datetime | None = None
        self._failures = 0
        self._failing_since: datetime | None = None
        self._refused_nonces = 0
        self._is_looking = False
        self.on_moved: Callable[[BreakerState], None] = lambda _: None
        """Called when this process has opened it, or closed it again."""

    @property
    def known(self) -> BreakerRecord | None:
        """Return what is known without asking, None while it is closed."""
        return self._record

    async def verify_closed(self) -> None:
        """Return if a request may be sent now.

        Raises:
            Unreachable: The CA is left alone, and nothing was sent.
        """
        record = await self._current()
        if record is None:
            return
        left = record.until - self._clock.now()
        # Nobody leaves it alone for longer: the clock was ahead then, and is right again.
        is_due = left <= timedelta() or left > 2 * LOOK_TIME
        if is_due and await self._begin_look(record):
            return
        raise Unreachable(
            f"upstream '{self._upstream}' is left alone since {record.since:%Y-%m-%dT%H:%M:%SZ}: "
            f"{record.reason}",
            left_nothing=True,
        )

    async def note_answer(
        self, status: int, *, is_signed: bool, is_nonce_refused: bool = False
    ) -> None:
        """Take note of what the CA answered.

        What nobody signs, such as its directory, tells that it is there and no more: a CA may
        serve that and fail with every order.
        """
        if status >= FIRST_SERVER_FAULT:
            await self.note_failure(f"answered {status}")
            return
        if is_nonce_refused:
            self._refused_nonces += 1
            if self._refused_nonces >= NONCE_STORM:
                await self._open(f"refused {self._refused_nonces} nonces in a row")
            else:
                # A nonce from before it was away: it is there, and whoever looks asks once more.
                await self._note_there()
            return
        if is_signed:
            self._failures, self._failing_since, self._refused_nonces = 0, None, 0
        await self._note_there()

    async def note_failure(self, reason: str) -> None:
        """Take note that no usable answer came."""
        now = self._clock.now()
        if self._failing_since is None or now - self._failing_since > LONGEST_TIME:
            self._failing_since, self._failures = now, 0
        self._failures += 1
        spans = now - self._failing_since >= LEAST_TIME
        if self._is_looking or (self._failures >= FAILURES and spans):
            await self._open(reason)

    async def _note_there(self) -> None:
        record = self._record
        if record is None:
            return
        now = self._clock.now()
        self._is_looking = False
        closed = replace(record, state=BreakerState.CLOSED, openings=0, until=now)
        if await self._move(closed, record, EventKind.UPSTREAM_ANSWERS_AGAIN):
            self.on_moved(BreakerState.CLOSED)

    async def _open(self, reason: str) -> None:
        now = self._clock.now()
        self._is_looking = False
        # Refused nonces go on being counted, until one is accepted: a look that meets another one
        # has seen enough.
        self._failures, self._failing_since = 0, None
        before = await self._current(is_fresh=True)
        if before is not None and before.state is BreakerState.OPEN:
            return
        openings = 1 if before is None else before.openings + 1
        pause = min(FIRST_PAUSE * (1 << min(openings - 1, 8)), LONGEST_PAUSE)
        opened = BreakerRecord(
            upstream=self._upstream,
            state=BreakerState.OPEN,
            openings=openings,
            since=now if before is None else before.since,
            until=now + pause,
            reason=reason[:MAX_REASON_CHARS],
        )
        kind = EventKind.UPSTREAM_LEFT_ALONE if before is None else None
        if await self._move(opened, before, kind) and before is None:
            self.on_moved(BreakerState.OPEN)

    async def _begin_look(self, record: BreakerRecord) -> bool:
        """Return whether it falls to this request to look whether the CA is back."""
        now = self._clock.now()
        looking = replace(record, state=BreakerState.HALF_OPEN, until=now + LOOK_TIME)
        self._is_looking = await self._move(looking, record, None)
        return self._is_looking

    async def _move(
        self, record: BreakerRecord, before: BreakerRecord | None, kind: EventKind | None
    ) -> bool:
        events = () if kind is None else (self._event(record, kind),)
        try:
            await self._store.move_breaker(record, expected=before, events=events)
        except Conflict:
            # Another process was first: what it found is true for this one too.
            await self._current(is_fresh=True)
            return False
        is_closed = record.state is BreakerState.CLOSED
        self._record, self._read_at = None if is_closed else record, self._clock.now()
        return True

    async def _current(self, *, is_fresh: bool = False) -> BreakerRecord | None:
        now = self._clock.now()
        if is_fresh or self._read_at is None or now - self._read_at >= MAX_AGE:
            found = await self._store.breakers()
            self._record = next((one for one in found if one.upstream == self._upstream), None)
            self._read_at = now
        return self._record

    def _event(self, record: BreakerRecord, kind: EventKind) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            upstream=self._upstream,
            data={"reason": record.reason, "since": record.since.isoformat()},
        )
