"""Waves as they are kept."""

from datetime import timedelta

from broker.issuance.events import EventKind
from broker.issuance.rollout_waves import Waves
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, Outcome
from tests.fakes.clock import FakeClock
from tests.fakes.fake_rollouts import FakeRolloutStore

GROUP = Group(name="web", nodes=node_patterns(["**"]), canaries=None, at_once=1, halt_after=2)


async def test_what_a_wave_has_shown_is_read_again() -> None:
    """Proofs, failures and halts, with when they were noted."""
    clock, store = FakeClock(), FakeRolloutStore()
    waves = Waves(store, clock)
    await waves.load()
    await waves.count(GROUP, "web-01", Outcome.SERVED)
    clock.advance(timedelta(minutes=1))
    await waves.count(GROUP, "web-02", Outcome.FAILED)
    again = Waves(store, clock)
    kept = await again.load()
    assert kept["web"].noted_at == clock.now()
    wave = again.of(GROUP, clock.now())
    assert (wave.served, wave.failures, wave.is_halted) == ({"web-01"}, 1, False)
    await again.count(GROUP, "web-03", Outcome.FAILED)
    assert again.of(GROUP, clock.now()).is_halted
    assert [one.kind for one in store.events] == [EventKind.ROLLOUT_HALTED]


async def test_what_changes_nothing_is_not_written() -> None:
    """A dropped delivery, or one more that was served."""
    store = FakeRolloutStore()
    waves = Waves(store, FakeClock())
    await waves.count(GROUP, "web-01", Outcome.DROPPED)
    assert not store.kept
    await waves.count(GROUP, "web-01", Outcome.SERVED)
    kept = store.kept["web"]
    await waves.count(GROUP, "web-02", Outcome.SERVED)
    assert store.kept["web"] is kept
