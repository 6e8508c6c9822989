"""Bundles over a real store."""

from dataclasses import replace
from pathlib import Path

from broker.issuance.bundle_ports import BundleRecord, NodeBundle
from broker.issuance.node_ports import NodeMessage
from tests.fakes.delivery_world import DeliveryWorld


async def test_only_those_that_are_behind_are_found(tmp_path: Path) -> None:
    """And a version never goes down."""
    async with DeliveryWorld(tmp_path) as world:
        store, now = world.store, world.clock.now()
        for name in ("web-01", "web-02"):
            await world.node(name)
            wanted = NodeBundle(
                node_id=f"node-{name}", bundle="anchors", community="default",
                sent_version=0, installed_version=0,
            )  # fmt: skip
            await store.keep_wanted(wanted.node_id, [wanted], [])
            await store.keep_wanted(wanted.node_id, [wanted], [])
        record = BundleRecord(
            community="default", bundle="anchors", version=7, sha256="00", changed_at=now
        )
        await store.keep_bundle(record)
        await store.keep_bundle(replace(record, version=3, sha256="11"))
        assert await store.find_bundle("default", "anchors") == record
        assert await store.find_bundle("default", "crls") is None
        assert len(await store.nodes_behind("default", "anchors", 7, 10)) == 2
        message = NodeMessage(node_id="node-web-01", kind="bundle", subject="bundle/a", body={})
        await store.send_bundle("anchors", 7, [message])
        assert await store.nodes_behind("default", "anchors", 7, 10) == ["node-web-02"]
        await store.note_installed("node-web-01", "anchors", 9)
        await store.note_installed("node-web-01", "anchors", 7)
        (kept,) = await store.bundles_of("node-web-01")
        assert (kept.sent_version, kept.installed_version) == (7, 7)
        await store.keep_wanted("node-web-01", [], ["anchors"])
        assert await store.bundles_of("node-web-01") == []
