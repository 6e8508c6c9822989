"""Approvals, put together: the URL of a request, and what metrics show."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from broker.app.approvals import ApprovalMetrics, approval_url
from broker.web.links import Links
from tests.fakes.approving import ANNA, filed, people_policy, say
from tests.fakes.world import World
from tests.unit.config.conftest import parsed

HOST = "www.people.example.com"


def test_url_is_below_the_directory_of_its_community() -> None:
    """And comes from the configuration alone."""
    url = approval_url(parsed())("default", "0" * 32)
    assert url == "https://acme.corp.example/acme/default/approval/" + "0" * 32
    links = Links("https://acme.corp.example", ["default"])
    assert url == links.of("default").approval("0" * 32)


async def test_queue_is_shown(tmp_path: Path) -> None:
    """How many there are, how long one has waited, and when the next one ends."""
    registry = CollectorRegistry()
    metrics = ApprovalMetrics(registry)
    value = registry.get_sample_value
    async with World(tmp_path) as world:
        world.policies.set(people_policy())
        await metrics.show(world.store)
        assert value("penstock_approvals", {"status": "waiting"}) == 0
        assert value("penstock_approval_oldest_waiting_timestamp_seconds") == 0
        client = await world.client()
        request = await filed(client, HOST)
        await metrics.show(world.store)
        assert value("penstock_approvals", {"status": "waiting"}) == 1
        oldest = value("penstock_approval_oldest_waiting_timestamp_seconds")
        assert oldest == request.asked_at.timestamp()
        made = await say(world, request, "approve", ANNA)
        await metrics.show(world.store)
        assert value("penstock_approvals", {"status": "approved"}) == 1
        assert value("penstock_approval_oldest_waiting_timestamp_seconds") == 0
        soonest = value("penstock_approval_soonest_end_timestamp_seconds")
        assert made.holds_until is not None
        assert soonest == made.holds_until.timestamp()
