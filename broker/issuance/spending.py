"""An order whose CA has no tokens left for it is made for the next CA of its profile.

Tokens are missing before anything was kept or sent, so nothing has to be given up: policy is asked
again without that CA, as it is for one that is away (``planning.Planner.decide``), and every rule
holds for the one that is taken instead.  Where policy leaves none, or none has room either, the
client is told of the first limit, as if there were no other CA.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from broker.issuance.errors import OverLimit
from broker.issuance.planning import Planner
from broker.issuance.quotas import Quotas, limited
from broker.issuance.records import AccountRecord, OrderRecord
from broker.issuance.standing import WORTH_LEAVING
from broker.policy.decisions import NewOrderFacts

__all__ = ["Spent", "make_within"]

Make = Callable[[NewOrderFacts], Awaitable[OrderRecord]]
"""Makes an order by what policy says of facts; raises Spent."""


class Spent(Exception):
    """An order that was not made, since a bucket has too few tokens."""

    def __init__(self, order: OrderRecord, over: OverLimit) -> None:
        super().__init__(over.reason)
        self.order = order
        self.over = over


async def make_within(
    planner: Planner,
    quotas: Quotas | None,
    account: AccountRecord,
    facts: NewOrderFacts,
    make: Make,
) -> OrderRecord:
    """Return the order that *make* makes, for the first CA whose limits have room.

    Raises:
        Problem: rateLimited, where none has, or there is no other; it tells of the first.
    """
    try:
        return await _first_with_room(planner, facts, make)
    except Spent as spent:
        if quotas is None:  # nobody else raises it
            raise
        raise await quotas.refusal(account, spent.order, spent.over) from spent


async def _first_with_room(planner: Planner, facts: NewOrderFacts, make: Make) -> OrderRecord:
    first: Spent | None = None
    while True:
        try:
            return await make(facts)
        except Spent as spent:
            first = first or spent
            if spent.over.wait <= WORTH_LEAVING:
                raise first from spent
            away = {**facts.away, spent.order.upstream: limited(spent.over).detail}
            facts = replace(facts, away=away)
            plan = planner.decide(facts).plan
            if plan is None or plan.upstream in away:
                raise first from spent
