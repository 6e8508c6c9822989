"""Many deliveries at once over a real store."""

from dataclasses import replace
from pathlib import Path

from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryStage, Verdict
from tests.fakes.delivery_world import DeliveryWorld


async def test_pushes_are_written_together_and_those_that_are_late_are_left(
    tmp_path: Path,
) -> None:
    """As one would be by itself: the stage, its time, a message, an event."""
    async with DeliveryWorld(tmp_path) as world:
        world.rollout.verdict = Verdict(may_go=False, why="not yet")
        nodes = [await world.node(name) for name in ("web-01", "web-02", "web-03")]
        for node in nodes:
            await node.wants("www")
            await node.work()
        ids = [(await node.deliveries())[0].delivery_id for node in nodes]
        found = await world.store.releasable([*reversed(ids), "nothing"])
        assert [one.view.delivery.delivery_id for one in found] == ids[::-1]
        assert found[0].view == await world.store.find_delivery(ids[2])
        order = await world.store.load_order(found[0].certificate.order_id)
        assert order is not None
        assert (found[0].before_pem, found[0].cap_seconds) == (None, order.cap_seconds)
        releasing = world.deliveries.releasing
        pushes = [
            releasing.pushed(one.view, one.certificate, one.cap_seconds, "web") for one in found
        ]
        assert pushes[0].message == await releasing.message(found[0].view)
        assert await world.store.push_deliveries(pushes[:1]) == []
        assert await world.store.push_deliveries(pushes) == [ids[2]]
        for node, push in zip(nodes, reversed(pushes), strict=True):
            (delivery,) = await node.deliveries()
            assert delivery == push.delivery
            waiting = await world.store.queued_messages(node.record.node_id, 0, 9)
            assert [one.body for one in waiting] == [push.message.body]
        told = await world.events(EventKind.DELIVERY_MOVED)
        assert [one.data["stage"] for one in told].count("pushed") == 3
        assert await world.store.releasable(ids) == []


async def test_what_is_replaced_comes_with_it(tmp_path: Path) -> None:
    """Its chain, as the comparison wants it."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.settled("www")
        before, _ = node.installed["www"]
        world.rollout.verdict = Verdict(may_go=False, why="not yet")
        managed = await node.managed()
        await world.deliveries.asking.begin(managed.managed_id, reason="asked")
        await node.work()
        (delivery, _) = await node.deliveries()
        assert delivery.stage is DeliveryStage.ISSUED
        (found,) = await world.store.releasable([delivery.delivery_id])
        assert found.before_pem == before
        gone = replace(delivery, certificate_id=None)
        await world.store.change_delivery(gone, expected=(DeliveryStage.ISSUED,), events=())
        assert await world.store.releasable([delivery.delivery_id]) == []
