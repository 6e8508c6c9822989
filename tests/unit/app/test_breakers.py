"""The circuit breakers of all CAs."""

from datetime import timedelta

from broker.app.breakers import Breakers
from broker.telemetry import Snapshot, Telemetry
from tests.fakes.clock import FakeClock
from tests.fakes.standing_store import FakeStandingStore


async def nothing() -> Snapshot:
    """Never asked."""
    raise AssertionError


class FakeClient:
    """Counts looks."""

    def __init__(self) -> None:
        self.looks = 0

    async def look(self) -> None:
        """Take note of the look."""
        self.looks += 1


class Hall:
    """Two CAs."""

    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), FakeStandingStore()
        self.clients = {"ca": FakeClient(), "next": FakeClient()}
        self.telemetry = Telemetry(version="0", upstreams=(), clock=self.clock, snapshot=nothing)
        self.breakers = Breakers(
            self.clients,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            clock=self.clock,
            telemetry=self.telemetry,
        )
        self.made = {name: self.breakers.make(name) for name in self.clients}

    async def fail(self, name: str) -> None:
        """Have requests to a CA fail until it is left alone."""
        while name not in self.store.open:
            self.clock.advance(timedelta(seconds=1))
            await self.made[name].note_failure("no answer")

    def shown(self, name: str) -> float | None:
        """Return what the metrics page says."""
        self.breakers.show()
        return self.telemetry.registry.get_sample_value(
            "penstock_upstream_breaker_state", {"upstream": name}
        )


async def test_ca_that_is_away_is_looked_at_when_it_is_time() -> None:
    """Only that one, and not before."""
    hall = Hall()
    await hall.fail("ca")
    await hall.breakers.look()
    assert hall.clients["ca"].looks == 0
    hall.clock.advance(timedelta(seconds=5))
    await hall.breakers.look()
    assert [client.looks for client in hall.clients.values()] == [1, 0]


async def test_state_of_each_is_on_the_metrics_page() -> None:
    """From the start."""
    hall = Hall()
    assert [hall.shown(name) for name in hall.clients] == [0, 0]
    await hall.fail("ca")
    assert [hall.shown(name) for name in hall.clients] == [2, 0]
    hall.clock.advance(timedelta(seconds=5))
    await hall.made["ca"].verify_closed()
    assert hall.shown("ca") == 1
    await hall.made["ca"].note_answer(200, is_signed=False)
    assert hall.shown("ca") == 0
    assert hall.store.open == {}


async def test_whoever_waits_is_told_of_each() -> None:
    """Orders of one CA go elsewhere, those of the other go on."""
    hall = Hall()
    told: list[bool] = []
    hall.breakers.on_moved = lambda: told.append(True)
    await hall.fail("ca")
    await hall.fail("next")
    assert len(told) == 2


async def test_ca_that_is_left_alone_is_a_warning() -> None:
    """For whoever asks the health port; it makes the broker no less ready."""
    hall = Hall()
    assert hall.breakers.warning() is None
    await hall.fail("next")
    assert hall.breakers.warning() == "upstream 'next' does not answer since 2026-03-01T12:00:03Z"


def test_budget_is_of_one_ca() -> None:
    """And keeps its holds in the store."""
    hall = Hall()
    budget = hall.breakers.budget("ca")
    assert budget is not hall.breakers.budget("ca")
