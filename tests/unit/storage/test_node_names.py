"""Nodes by the names that they want certificates for."""

from pathlib import Path

from tests.fakes.delivery_world import DeliveryWorld


async def test_nodes_are_found_by_whole_names(tmp_path: Path) -> None:
    """Of the communities that are asked about, and those that are active."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node("web-01")
        await node.wants("www", "www.robots.example.com", "a.robots.example.com")
        await (await world.node("web-02")).wants("www", "xwww.robots.example.com")
        find = world.store.nodes_named_in
        found = await find("www.robots.example.com", ["default"], 10)
        assert [one.name for one in found] == ["web-01"]
        assert len(await find("a.robots.example.com", ["lab", "default"], 10)) == 1
        assert await find("a.robots.example.com", ["lab"], 10) == []
        assert await find("robots.example.com", ["default"], 10) == []
