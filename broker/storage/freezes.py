"""What was stopped, until it is lifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.freeze_ports import FreezeRecord
from broker.issuance.freezes import FROZEN_WORDS
from broker.storage.part import Part
from broker.storage.rows import RowCodec, time_of
from broker.storage.transaction import Transaction

__all__ = ["FreezesKept"]

FREEZES: Final = RowCodec("freezes", FreezeRecord)

MAX_FREEZES: Final = 10_000
"""Most freezes there may be: they are read each second.  Whoever has more to stop freezes the
community."""

_ALL: Final = FREEZES.select + " ORDER BY at DESC, kind, community, subject"
_OF_PLACE: Final = " WHERE kind = ? AND community = ? AND subject = ?"
_DELETE: Final = " ".join(("DELETE FROM freezes", _OF_PLACE))
_WAKE: Final = (
    "UPDATE managed SET next_at = ?1 WHERE next_at > ?1 AND due_since IS NOT NULL"
    " AND instr(fault, ?2) > 0"
)


class FreezesKept(Part):
    """The port FreezeStore."""

    async def freezes(self) -> Sequence[FreezeRecord]:
        """Return those that were not lifted, the newest first."""

        return await self._database.read(lambda snapshot: FREEZES.read_all(snapshot.all(_ALL)))

    async def keep_freeze(self, record: FreezeRecord, event: Event) -> None:
        """Keep *record* in place of what is kept of the same thing."""

        def work(transaction: Transaction) -> None:
            transaction.change(_DELETE, *_place(record))
            (count,) = transaction.first("SELECT count(*) FROM freezes") or (0,)
            if count >= MAX_FREEZES:
                raise Conflict(f"there are {count} freezes already, and no room for more")
            transaction.change(FREEZES.insert, *FREEZES.values(record))
            transaction.record((event,))

        await self._database.write(work)

    async def lift_freeze(self, record: FreezeRecord, event: Event) -> None:
        """Forget *record*; see the port."""

        def work(transaction: Transaction) -> None:
            place = _place(record)
            if not transaction.change(_DELETE + " AND at = ?", *place, time_of(record.at)):
                raise Conflict(f"the freeze of {record} was lifted or changed meanwhile")
            transaction.change(_WAKE, time_of(event.at), FROZEN_WORDS)
            transaction.record((event,))

        await self._database.write(work)


def _place(record: FreezeRecord) -> tuple[str, str, str]:
    return record.kind.value, record.community, record.subject
