"""What is behind the ports of a broker, made and told of."""

from pathlib import Path

import pytest

from broker.app.inspecting import DATABASE
from broker.app.outside import VERSION, go_outside, make_state
from broker.app.policies import first_look, open_policies
from broker.app.turns import Lasting
from broker.issuance.errors import Broken
from broker.issuance.events import Event, EventKind
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START, FakeClock
from tests.unit.app.test_assembly import config_in


def test_state_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Keys and the store come to lie in it; one that is there already is taken as it is."""
    config = config_in(tmp_path)
    make_state(config)
    assert config.state.stat().st_mode & 0o777 == 0o700
    make_state(config)


def test_state_that_cannot_be_made_is_a_reason_to_stop(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "var").write_text("")
    with pytest.raises(Broken, match=r"state directory .* cannot be made: not a directory"):
        make_state(config_in(tmp_path))


async def test_telemetry_hears_of_what_the_store_has_written(tmp_path: Path) -> None:
    """And tells which version this is."""
    config = config_in(tmp_path)
    make_state(config)
    store = await SqliteStore.open(config.state / DATABASE)
    try:
        policies = await open_policies(config, first_look(config), store, FakeClock())
        outside = go_outside(config, policies, store, Lasting())
        try:
            await store.append(Event(kind=EventKind.ORDER_CREATED, at=START), durable=True)
            page = (await outside.telemetry.render()).decode()
        finally:
            await outside.upstreams.close()
    finally:
        await store.close()
    assert 'penstock_orders_total{outcome="created"} 1.0' in page
    assert f'version="{VERSION}"' in page
