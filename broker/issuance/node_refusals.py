"""What was refused to nodes, and to those who say that they are one: on record, without letting
anybody fill the store.

For each party a few refusals a minute are kept; of the others the next one that is kept tells how
many there were, or an event about all parties once nobody asks any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock, EventLog
from broker.issuance.refusals import told_left_out

__all__ = ["NodeRefusals"]

KEPT_PER_PARTY: Final = 10
"""How many refusals of one party are kept in `PERIOD`: enough to see what it is after."""

PERIOD: Final = timedelta(minutes=1)
"""After this a party's refusals are kept again."""

MAX_PARTIES: Final = 4096
"""Most parties that are counted at once; the one that was refused longest ago is forgotten."""


@dataclass(slots=True)
class _Count:
    since: datetime
    kept: int = 0
    passed_over: int = 0


class NodeRefusals:
    """Keeps refusals as events."""

    def __init__(self, store: EventLog, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._of_forgotten = 0
        """Refusals of parties that are counted no more."""

    async def record(
        self,
        kind: EventKind,
        party: str,
        data: Mapping[str, object],
        *,
        actor: Actor,
        community: str | None = None,
    ) -> None:
        """Keep that *party*, an address or a node, was refused something.

        A store that cannot be written now changes nothing about the refusal.
        """
        now = self._clock.now()
        count = self._count(party, now)
        if count.kept >= KEPT_PER_PARTY:
            count.passed_over += 1
            return
        count.kept += 1
        more = {"passed_over": count.passed_over} if count.passed_over else {}
        count.passed_over = 0
        event = Event(kind=kind, at=now, actor=actor, community=community, data={**data, **more})
        with suppress(Unreachable, Broken):
            await self._store.append(event, durable=False)

    async def tell_left_out(self) -> None:
        """Keep how many were passed over and not told yet; called once a minute, and at the end.

        Raises:
            Unreachable, Broken: It could not be kept, and is told later.
        """
        parties = {name: one.passed_over for name, one in self._counts.items() if one.passed_over}
        forgotten, self._of_forgotten = self._of_forgotten, 0
        count = forgotten + sum(parties.values())
        if not count:
            return
        for name in parties:
            self._counts[name].passed_over = 0
        try:
            event = told_left_out(count, self._clock.now(), by="channel", parties=len(parties))
            await self._store.append(event, durable=False)
        except BaseException:
            self._of_forgotten += count
            raise

    def _count(self, party: str, now: datetime) -> _Count:
        found = self._counts.pop(party, None)
        if found is None:
            found = _Count(now)
        elif now - found.since > PERIOD:
            found = _Count(now, passed_over=found.passed_over)
        self._counts[party] = found
        while len(self._counts) > MAX_PARTIES:
            _, forgotten = self._counts.popitem(last=False)
            self._of_forgotten += forgotten.passed_over
        return found
