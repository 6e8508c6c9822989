"""Deliveries as they are kept: one is open of each certificate, and each change is a comparison."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.node_ports import DeliveryStage
from tests.fakes.delivery_world import DeliveryWorld


async def test_change_of_what_has_changed_is_refused(tmp_path: Path) -> None:
    """The stage that was expected has to be there."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        (delivery,) = await node.deliveries()
        before = world.dump()
        with pytest.raises(Conflict, match="is asked, expected ordered"):
            await world.store.change_delivery(
                replace(delivery, note="x"), expected=(DeliveryStage.ORDERED,), events=()
            )
        with pytest.raises(Conflict, match="unknown"):
            await world.store.change_delivery(
                replace(delivery, delivery_id="x"), expected=(DeliveryStage.ASKED,), events=()
            )
        assert world.dump() == before


async def test_generation_that_is_not_the_next_is_refused(tmp_path: Path) -> None:
    """Two that begin at once make one delivery."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        (delivery,) = await node.deliveries()
        with pytest.raises(Conflict, match="at generation 1, expected 0"):
            await world.store.begin_delivery(
                replace(delivery, delivery_id="x"), await node.managed(), events=()
            )


async def test_newer_delivery_ends_the_older_one(tmp_path: Path) -> None:
    """In one transaction, with the job that tells of its end."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        managed = await node.managed()
        (first,) = await node.deliveries()
        second = replace(first, delivery_id="second", generation=2)
        await world.store.begin_delivery(second, replace(managed, generation=2), events=())
        found, ended = await node.deliveries()
        assert (found, ended.stage) == (second, DeliveryStage.SUPERSEDED)
        assert ended.ended_at is not None
        assert await world.store.open_delivery(managed.managed_id) == second
        assert await world.store.open_deliveries_of(node.record.node_id) == [second]


async def test_deliveries_are_found_from_every_side(tmp_path: Path) -> None:
    """By id, order, certificate, stage and group."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        node.ends = "checked"
        await node.wants("www")
        await node.work()
        (delivery,) = await node.deliveries()
        store = world.store
        view = await store.find_delivery(delivery.delivery_id)
        assert view is not None
        assert (view.delivery, view.node.name, view.managed.name) == (delivery, "web-01", "www")
        assert await store.find_delivery_by_order(delivery.order_id or "") == view
        by_certificate = await store.find_delivery_by_certificate(delivery.certificate_id or "")
        assert by_certificate == delivery
        stages = (DeliveryStage.PUSHED, DeliveryStage.CHECKED)
        assert await store.deliveries_in(stages, group=None, limit=10) == [view]
        assert await store.deliveries_in(stages, group="web", limit=10) == []
        counts = await store.count_deliveries()
        assert counts[DeliveryStage.CHECKED] == 1
        assert sum(counts.values()) == 1
        assert await store.oldest_push() == delivery.pushed_at
        assert await store.find_delivery("nothing") is None


async def test_csr_stays_though_the_record_was_read_before_it_came(tmp_path: Path) -> None:
    """A statement and a CSR of one node are dealt with at the same time."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        before = await node.managed()
        (delivery,) = await node.deliveries()
        await world.store.change_delivery(
            replace(delivery, stage=DeliveryStage.ORDERED),
            expected=(DeliveryStage.ASKED,),
            events=(),
            managed=replace(before, csr_der=b"csr"),
        )
        await world.store.keep_managed([replace(before, key_kind="rsa-2048")], ())
        after = await node.managed()
        assert (after.csr_der, after.key_kind) == (b"csr", "rsa-2048")
