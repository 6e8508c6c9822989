"""Deliveries as they are kept: one is open of each certificate, and each change is a comparison."""

import contextlib
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.records import JobKind
from broker.storage.deliveries import _TO_FORGET
from tests.fakes.delivery_world import DeliveryWorld, Node


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


# ---------------------------------------------------------------------------------- forgetting


LONG_AFTER = timedelta(days=4000)
"""When every certificate of these tests has ended."""


async def many(world: DeliveryWorld, node: Node, count: int) -> None:
    """Have *count* deliveries of one certificate, each seen before the next."""
    await node.settled("www")
    for generation in range(2, count + 1):
        world.clock.advance(timedelta(hours=1))
        managed = await node.managed()
        await world.deliveries.asking.begin(managed.managed_id, reason="asked")
        await world.settle()
        await node.work()
        assert (await node.deliveries())[0].generation == generation


async def kept(node: Node) -> list[int]:
    """Return the generations of which there is a delivery still, newest first."""
    return [one.generation for one in await node.deliveries()]


async def test_what_ended_long_ago_is_forgotten_but_for_the_newest(tmp_path: Path) -> None:
    """A part at a time, the oldest first; nothing before its time."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await many(world, node, 4)
        before, now = world.clock.now() - timedelta(days=1), world.clock.now()
        assert await world.store.forget_deliveries(before, 10) == 0
        assert await kept(node) == [4, 3, 2, 1]
        assert await world.store.forget_deliveries(now + LONG_AFTER, 2) == 2
        assert await kept(node) == [4, 3]
        assert await world.store.forget_deliveries(now + LONG_AFTER, 2) == 1
        assert await world.store.forget_deliveries(now + LONG_AFTER, 2) == 0
        assert await kept(node) == [4]
        # What is there goes on being renewed, and its way can be read.
        managed = await node.managed()
        assert await world.store.find_delivery_by_certificate(managed.certificate_id or "")
        await world.deliveries.asking.begin(managed.managed_id, reason="asked")
        await world.settle()
        await node.work()
        assert await kept(node) == [5, 4]


async def test_the_way_of_a_certificate_that_is_good_is_kept(tmp_path: Path) -> None:
    """It may be in use elsewhere, and an incident may ask where it came from."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await many(world, node, 3)
        first = (await node.deliveries())[-1]
        certificate = await world.store.find_certificate(first.certificate_id or "")
        assert certificate is not None
        end = certificate.not_after
        assert await world.store.forget_deliveries(end - timedelta(minutes=1), 10) == 0
        assert await world.store.forget_deliveries(end + timedelta(minutes=1), 10) == 1
        assert await kept(node) == [3, 2]


async def test_what_is_served_keeps_its_delivery_though_newer_ones_failed(tmp_path: Path) -> None:
    """And the newest that failed stays too, for people who ask why."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await many(world, node, 1)
        node.ends = "failed"
        for _ in range(2):
            managed = await node.managed()
            await world.deliveries.asking.begin(managed.managed_id, reason="asked")
            await world.settle()
            await node.work()
        assert await kept(node) == [3, 2, 1]
        assert await world.store.forget_deliveries(world.clock.now() + LONG_AFTER, 10) == 1
        assert await kept(node) == [3, 1]


async def test_one_that_is_open_or_whose_end_is_untold_is_kept(tmp_path: Path) -> None:
    """A job still stands for it; once that is done it goes."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await many(world, node, 2)
        newest = (await node.deliveries())[0]
        managed = await node.managed()
        for generation in (3, 4, 5):
            delivery = replace(
                newest, delivery_id=f"d{generation}", generation=generation, order_id=None,
                certificate_id=None, stage=DeliveryStage.ASKED, ended_at=None,
            )  # fmt: skip
            await world.store.begin_delivery(
                delivery, replace(managed, generation=generation), events=()
            )
        far = world.clock.now() + LONG_AFTER
        # The third and the fourth were superseded; the fifth is open, the second is what is there.
        job = await world.store.find_job(JobKind.DELIVER, "d3")
        assert job is not None
        assert await world.store.forget_deliveries(far, 10) == 1
        assert await kept(node) == [5, 4, 3, 2]
        await world.store.finish_job(job)
        assert await world.store.forget_deliveries(far, 10) == 1
        assert await kept(node) == [5, 4, 2]


async def test_look_for_what_is_to_be_forgotten_reads_by_the_time_of_the_end(
    tmp_path: Path,
) -> None:
    """It costs what has ended, not what there is."""
    async with DeliveryWorld(tmp_path) as world:
        with contextlib.closing(sqlite3.connect(world.path)) as database:
            plan = database.execute(f"EXPLAIN QUERY PLAN {_TO_FORGET}", (0, 1)).fetchall()
        words = " ".join(str(row[-1]) for row in plan)
        assert "deliveries_ended" in words
        assert "SCAN n" not in words
        assert "SCAN j" not in words
        assert "SCAN c" not in words


async def test_delivery_that_ends_leaves_what_its_node_has_stated_meanwhile(tmp_path: Path) -> None:
    """It was read before the node wanted another name, and would take that back."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        node.ends = "checked"
        await node.wants("www")
        await node.work()
        (delivery,) = await node.deliveries()
        before = await node.managed()
        stated = replace(before, key_kind="rsa-2048", is_wanted=False)
        await world.store.keep_managed([stated], [])
        await world.store.change_delivery(
            replace(delivery, stage=DeliveryStage.FAILED, ended_at=world.clock.now()),
            expected=(DeliveryStage.CHECKED,),
            events=(),
            managed=replace(before, attempts=1, fault="why"),
        )
        after = await node.managed()
        assert (after.key_kind, after.is_wanted) == ("rsa-2048", False)
        assert (after.attempts, after.fault) == (1, "why")
