"""What an order owes to people: the approvals that it rests on, or that its line goes back to.

An order rests on the approvals by which it was made, and all of these have to stand at its
finalize.  A renewal that a rule exempts needs none.  It goes back to those of the certificate that
it renews, which may have ended long ago: whoever withdraws one of them means all that came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.issuance.records import OrderRecord

__all__ = ["RENEWED_UNDER", "RESTING_ON", "Resting", "approvals_of_order", "resting_on"]

RESTING_ON: Final = "approvals"
"""The fact of a decision that lists approvals which an order rests on; the store looks for it."""

RENEWED_UNDER: Final = "renewed_under"
"""The one that lists approvals which its line goes back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """Ids of approvals."""

    on: tuple[str, ...] = ()
    goes_back_to: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Return all of them: what one that was taken back holds up."""
        return tuple(dict.fromkeys((*self.on, *self.goes_back_to)))

    def beside(self, other: Resting) -> Resting:
        """Return this with what *other* rests on as well."""
        on = tuple(dict.fromkeys((*other.on, *self.on)))
        back = tuple(one for one in self.goes_back_to if one not in on)
        return Resting(on=on, goes_back_to=back)


def approvals_of_order(order: OrderRecord) -> Resting:
    """Return what an order was made under."""
    return Resting(
        on=_ids(order.decision, RESTING_ON), goes_back_to=_ids(order.decision, RENEWED_UNDER)
    )


def resting_on(decision: Mapping[str, object], resting: Resting) -> dict[str, object]:
    """Return the facts of a decision with the approvals that the order owes itself to."""
    told = {RESTING_ON: resting.on, RENEWED_UNDER: resting.goes_back_to}
    return {**decision, **{name: list(ids) for name, ids in told.items() if ids}}


def _ids(decision: Mapping[str, object], name: str) -> tuple[str, ...]:
    kept = decision.get(name)
    return tuple(str(one) for one in kept) if isinstance(kept, list | tuple) else ()
