"""The workflows of a broker, put together over adapters that really are there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.app.inspecting import DATABASE
from broker.app.outside import Outside, go_outside, make_state
from broker.app.policies import first_look, open_policies
from broker.app.turns import Lasting
from broker.app.workshop import furnished
from broker.issuance.records import JobKind
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.unit.app.test_assembly import config_in


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    """The adapters of the smallest configuration."""
    config = config_in(tmp_path)
    make_state(config)
    store = await SqliteStore.open(config.state / DATABASE)
    try:
        policies = await open_policies(config, first_look(config), store, FakeClock())
        made = go_outside(config, policies, store, Lasting())
        try:
            yield made
        finally:
            await made.upstreams.close()
    finally:
        await store.close()


async def test_every_kind_of_job_has_somebody_who_does_it(outside: Outside) -> None:
    """One that nobody does would lie in the store for good."""
    workshop = await furnished(outside)
    await workshop.dispatcher.stop()
    assert set(workshop.dispatcher._handlers) == set(JobKind)


async def test_claims_are_remembered_by_what_outlives_the_turn(outside: Outside) -> None:
    """Who claims, who moves and who answers look at one memory, which the next turn is given."""
    workshop = await furnished(outside)
    await workshop.dispatcher.stop()
    fulfil = workshop.dispatcher._handlers[JobKind.FULFIL].__self__  # type: ignore[attr-defined]
    rooms = (workshop.orders._finalizing, fulfil._failover, fulfil._young)
    assert [one._witness is outside.lasting.witness for one in rooms] == [True] * 3


async def test_clients_and_operators_are_served_by_the_same_workflows(outside: Outside) -> None:
    """What one of them changes, the other sees."""
    workshop = await furnished(outside)
    try:
        assert workshop.workflows().orders is workshop.orders
        assert workshop.workflows().accounts is workshop.accounts
        assert await workshop.desk().eab_list() == []
    finally:
        await workshop.dispatcher.stop()
