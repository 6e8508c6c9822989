"""Waits that grow, heed a peer's wish, and end."""

from datetime import timedelta

from broker.upstreams.pacing import Pacing, pause
from tests.fakes.clock import FakeClock

SECOND = timedelta(seconds=1)


class Waiting:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.waits: list[float] = []

    async def pause(self, duration: timedelta) -> None:
        """Let the time pass."""
        self.waits.append(duration.total_seconds())
        self.clock.advance(duration)

    def pacing(self, total: float = 100) -> Pacing:
        """Return waits of 1 s up to 4 s."""
        return Pacing(
            self.clock, self.pause, first=SECOND, longest=4 * SECOND, total=total * SECOND
        )


async def test_waits_double_up_to_the_longest() -> None:
    """Impatience wears off."""
    waiting = Waiting()
    pacing = waiting.pacing()
    for _ in range(5):
        await pacing.wait()
    assert waiting.waits == [1, 2, 4, 4, 4]


async def test_a_peers_wish_is_heeded_when_it_is_later() -> None:
    """Retry-After lengthens a wait and never shortens it."""
    waiting = Waiting()
    pacing = waiting.pacing()
    await pacing.wait(waiting.clock.now() + 30 * SECOND)
    await pacing.wait(waiting.clock.now())
    assert waiting.waits == [30, 2]


async def test_no_wait_goes_past_the_deadline() -> None:
    """The last look happens at the deadline, not after it."""
    waiting = Waiting()
    pacing = waiting.pacing(total=2.5)
    assert not pacing.has_ended()
    await pacing.wait()
    await pacing.wait(waiting.clock.now() + 3600 * SECOND)
    assert waiting.waits == [1, 1.5]
    assert pacing.has_ended()
    await pacing.wait()
    assert waiting.waits == [1, 1.5]


async def test_a_pause_of_nothing_gives_way() -> None:
    """The real pause waits as long as it is told."""
    await pause(timedelta(0))
