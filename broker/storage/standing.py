"""How CAs stand: times before which they are not asked, and those that did not answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord
from broker.storage.part import Part
from broker.storage.rows import RowCodec, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Breakers", "Holds"]

HOLDS: Final = RowCodec("upstream_holds", HoldRecord)
BREAKERS: Final = RowCodec("breakers", BreakerRecord)

MAX_HOLDS: Final = 10_000
"""Most holds of one CA that are read: as many as are remembered."""

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the clocks of two processes may be apart.  A hold that began later than this was told by
a clock that was wrong, and would keep us from the CA until that time."""

_KEEP_HOLD: Final = (
    HOLDS.insert + " ON CONFLICT (upstream, account, subject) DO UPDATE SET"
    " until = excluded.until, since = excluded.since, reason = excluded.reason"
    " WHERE excluded.until > upstream_holds.until"
)
_HOLDS: Final = (
    HOLDS.select + " INDEXED BY upstream_holds_by_end WHERE upstream = ? AND until > ?"
    " AND since <= ? ORDER BY until DESC LIMIT ?"
)
_HOLDS_ABOUT: Final = (
    HOLDS.select
    + " WHERE until > ? AND since <= ? AND subject IN ('', ?) ORDER BY until DESC LIMIT ?"
)
_ALL_HOLDS: Final = HOLDS.select + " WHERE until > ? AND since <= ? ORDER BY until DESC LIMIT ?"
_NOT_CLOSED: Final = BREAKERS.select + " WHERE state <> 'closed' ORDER BY upstream"
_BREAKER: Final = BREAKERS.select + " WHERE upstream = ?"


class Holds(Part):
    """The port HoldStore."""

    async def keep_hold(self, hold: HoldRecord) -> None:
        """Keep *hold*, unless a longer one of the same kind stands; without fsync."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "DELETE FROM upstream_holds WHERE upstream = ? AND (until <= ? OR since > ?)",
                hold.upstream,
                *_between(hold.since),
            )
            transaction.change(_KEEP_HOLD, *HOLDS.values(hold))

        await self._database.write(work, durable=False)

    async def holds(self, upstream: str | None, now: datetime) -> Sequence[HoldRecord]:
        """Return what stands at *now*, the last to end first."""
        asked = (*_between(now), MAX_HOLDS)

        def work(snapshot: Snapshot) -> Sequence[HoldRecord]:
            if upstream is None:
                return HOLDS.read_all(snapshot.all(_ALL_HOLDS, *asked))
            return HOLDS.read_all(snapshot.all(_HOLDS, upstream, *asked))

        return await self._database.read(work)


class Breakers(Part):
    """The port BreakerStore."""

    async def breakers(self) -> Sequence[BreakerRecord]:
        """Return those that are not closed."""
        return await self._database.read(
            lambda snapshot: BREAKERS.read_all(snapshot.all(_NOT_CLOSED))
        )

    async def standing(
        self, now: datetime, subject: str
    ) -> tuple[Sequence[BreakerRecord], Sequence[HoldRecord]]:
        """Return the breakers that are not closed, and the holds that are about *subject* too."""

        def work(snapshot: Snapshot) -> tuple[Sequence[BreakerRecord], Sequence[HoldRecord]]:
            breakers = BREAKERS.read_all(snapshot.all(_NOT_CLOSED))
            rows = snapshot.all(_HOLDS_ABOUT, *_between(now), subject, MAX_HOLDS)
            return breakers, HOLDS.read_all(rows)

        return await self._database.read(work)

    async def move_breaker(
        self, record: BreakerRecord, *, expected: BreakerRecord | None, events: Sequence[Event]
    ) -> None:
        """Keep *record* if *expected* is what is kept, without fsync; see the port."""

        def work(transaction: Transaction) -> None:
            if _open(transaction, record.upstream) != expected:
                raise Conflict(f"breaker of '{record.upstream}' was moved meanwhile")
            transaction.change("DELETE FROM breakers WHERE upstream = ?", record.upstream)
            transaction.change(BREAKERS.insert, *BREAKERS.values(record))
            transaction.record(events)

        await self._database.write(work, durable=False)


def _between(now: datetime) -> tuple[int, int]:
    """Return what a hold that stands ends after, and has begun before."""
    return time_of(now), time_of(now + CLOCKS_APART)


def _open(snapshot: Snapshot, upstream: str) -> BreakerRecord | None:
    row = snapshot.first(_BREAKER, upstream)
    found = None if row is None else BREAKERS.read(row)
    return None if found is None or found.state is BreakerState.CLOSED else found
