"""Deliveries that ended long ago: forgotten a part at a time, at the right time."""

from datetime import datetime, timedelta

from broker.issuance.forgetting import BATCH, LOOK_EVERY, Forgetting
from tests.fakes.clock import FakeClock

KEEP = timedelta(days=90)


class FakeDeliveries:
    """A store with so many ended deliveries."""

    def __init__(self, ended: int) -> None:
        self.ended = ended
        self.before: list[datetime] = []

    async def forget_deliveries(self, before: datetime, limit: int) -> int:
        """Forget some."""
        self.before.append(before)
        forgotten = min(limit, self.ended)
        self.ended -= forgotten
        return forgotten


async def test_a_lot_is_forgotten_a_part_at_each_turn() -> None:
    """Others write between the parts; then it is not looked for a while."""
    clock, store = FakeClock(), FakeDeliveries(2 * BATCH + 1)
    forgetting = Forgetting(store, clock, keep=KEEP)
    left = []
    for _ in range(4):
        await forgetting.take_turn()
        left.append(store.ended)
    assert left == [BATCH + 1, 1, 0, 0]
    assert store.before == [clock.now() - KEEP] * 3


async def test_it_is_looked_for_more_later() -> None:
    """And not before."""
    clock, store = FakeClock(), FakeDeliveries(0)
    forgetting = Forgetting(store, clock, keep=KEEP)
    await forgetting.take_turn()
    store.ended = 3
    clock.advance(LOOK_EVERY - timedelta(seconds=1))
    await forgetting.take_turn()
    assert store.ended == 3
    clock.advance(timedelta(seconds=1))
    await forgetting.take_turn()
    assert store.ended == 0
