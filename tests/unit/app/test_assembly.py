"""A broker put together over its state directory, and taken apart again."""

from pathlib import Path
from typing import Any

import pytest

from broker.app.assembly import Broker, assembled
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from tests.fakes.clock import START
from tests.unit.config.conftest import parsed

ANNA = Actor("operator:anna", "asked for in ticket 7")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The smallest configuration, over a directory that is not there yet."""
    return config_in(tmp_path)


def config_in(directory: Path, **changes: Any) -> Config:
    """Return the smallest configuration with its state in *directory*."""
    passphrase = directory / "key.pass"
    passphrase.write_text("a passphrase that is long enough")
    state = directory / "var" / "penstock"
    return parsed({"state": str(state), "keys.passphrase": f"file:{passphrase}", **changes})


async def metrics(broker: Broker) -> dict[str, float]:
    """Return each series with its value."""
    lines = (await broker.outside.telemetry.render()).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}


async def test_only_one_broker_works_on_a_store(config: Config) -> None:
    """A second one would sign and count beside the first; after its end the store is free."""
    async with assembled(config):
        with pytest.raises(Broken, match=r"penstock\.db is in use by process \d+"):
            async with assembled(config):
                pytest.fail("two brokers over one store")
    async with assembled(config) as broker:
        assert await broker.operations.status()


async def test_what_a_flood_left_out_is_told_for_every_room(config: Config) -> None:
    """Also for those that serve no agents."""
    async with assembled(config) as broker:
        for room in (broker.orders.refusals, broker.freezes.refusals):
            room._left_out = 3
        await broker.tell_left_out()
        rows = await broker.outside.store.read_events(after=0, limit=100, order_id=None)
        told = [event for _, event in rows if event.kind is EventKind.REFUSALS_LEFT_OUT]
        assert [event.data["left_out"] for event in told] == [3, 3]


async def test_room_that_cannot_tell_keeps_no_other_from_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried; the first that failed is what the job hears of, and is told later."""

    class Away:
        async def append(self, event: Event, *, durable: bool) -> None:
            raise Unreachable(f"away for {event.data['left_out']}")

    async with assembled(config) as broker:
        first, second = broker.orders.refusals, broker.freezes.refusals
        first._left_out, second._left_out = 3, 4
        with monkeypatch.context() as patch:
            patch.setattr(first, "_log", Away())
            with pytest.raises(Unreachable, match="away for 3"):
                await broker.tell_left_out()
            assert (first._left_out, second._left_out) == (3, 0)
            second._left_out = 5
            patch.setattr(second, "_log", Away())
            with pytest.raises(Unreachable, match="away for 3"):
                await broker.tell_left_out()
        await broker.tell_left_out()
        rows = await broker.outside.store.read_events(after=0, limit=100, order_id=None)
        told = [event for _, event in rows if event.kind is EventKind.REFUSALS_LEFT_OUT]
    assert [event.data["left_out"] for event in told] == [4, 3, 5]


async def test_operator_sees_what_was_assembled(config: Config) -> None:
    """The policies in force, and every upstream."""
    async with assembled(config) as broker:
        status: Any = await broker.operations.status()
        upstreams: Any = await broker.operations.upstream_list()
    assert set(status["policies"]) == {"default"}
    assert [one["upstream"] for one in upstreams] == ["local"]


async def test_events_and_commits_are_counted(config: Config) -> None:
    """Telemetry hears of every event that the store has written."""
    async with assembled(config) as broker:
        before = await metrics(broker)
        event = Event(kind=EventKind.ORDER_CREATED, at=START)
        await broker.outside.store.append(event, durable=True)
        after = await metrics(broker)
    for series in (
        'penstock_orders_total{outcome="created"}',
        'penstock_store_commits_total{kind="durable"}',
        "penstock_store_transactions_total",
    ):
        assert after[series] == before[series] + 1, series
    assert after["penstock_store_up"] == 1


async def test_declared_keys_are_known_from_the_start(tmp_path: Path) -> None:
    """Whoever was given one can register at once."""
    secret = tmp_path / "farm.key"
    secret.write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE")
    declared = {"key_id": "farm", "mac_key": f"file:{secret}"}
    config = config_in(tmp_path, external_account_bindings=[declared])
    async with assembled(config) as broker:
        keys: Any = await broker.operations.eab_list()
    assert [key["key_id"] for key in keys] == ["farm"]


async def test_ca_that_a_command_makes_is_there_for_the_next_order(config: Config) -> None:
    """Without a restart: policy explains that the order would be taken."""
    async with assembled(config) as broker:
        desk = broker.operations
        before: Any = await desk.policy_explain(names=["www.corp.internal"])
        assert before["plan"] is None
        await desk.ca_init(actor=ANNA)
        after: Any = await desk.policy_explain(names=["www.corp.internal"])
    assert after["plan"]["upstream"] == "local"


async def test_assembly_that_fails_lets_go_of_the_store(tmp_path: Path) -> None:
    """A fault found late leaves nothing open: the mended configuration starts at once."""
    secret = tmp_path / "farm.key"
    declared = {"key_id": "farm", "mac_key": f"file:{secret}"}
    config = config_in(tmp_path, external_account_bindings=[declared])
    with pytest.raises(Broken, match=r"farm\.key cannot be read"):
        async with assembled(config):
            pytest.fail("it was assembled without a secret")
    secret.write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE")
    async with assembled(config):
        pass
