"""The desk about renewals at nodes, and about clients that do not renew."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.unrenewed import UnrenewedWatch
from broker.operations import OperatorDesk, Rooms
from broker.web.operator import OperationError
from tests.fakes.delivery_world import DeliveryWorld
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[DeliveryWorld]:
    """A broker that serves nodes."""
    async with DeliveryWorld(tmp_path) as made:
        yield made


@pytest.fixture
def desk(hosts: DeliveryWorld) -> OperatorDesk:
    """Its desk."""
    return OperatorDesk(
        Rooms(
            store=hosts.store,
            accounts=hosts.accounts,
            enrollment=hosts.enrollment,
            revocations=hosts.revocations,
            planner=hosts.planner,
            policies=hosts.policies,
            upstreams=FakeUpstreamKeeper(),
            authorities=FakeAuthorityKeeper(),
            clock=hosts.clock,
            communities=("default",),
            version="0.1.0",
            deliveries=hosts.deliveries,
            delivery_rooms=hosts.store,
        )
    )


async def test_node_is_renewed_by_its_name_and_followed(
    hosts: DeliveryWorld, desk: OperatorDesk
) -> None:
    """The operator's name and reason are with the event."""
    node = await hosts.node()
    await node.settled("www")
    made = await desk.renew(actor=ANNA, target="web-01")
    (row,) = made["certificates"]
    assert (row["node"], row["certificate"], row["refused"]) == ("web-01", "www", None)
    (progress,) = await desk.renew_progress(deliveries=[row["delivery"], "nothing"])
    assert (progress["stage"], progress["ended"]) == ("asked", False)
    await node.work()
    (progress,) = await desk.renew_progress(deliveries=[row["delivery"]])
    assert (progress["stage"], progress["ended"]) == ("seen", True)
    assert (await hosts.events(EventKind.DELIVERY_BEGUN))[-1].actor == ANNA
    json.dumps(made)


@pytest.mark.parametrize(
    "given",
    [{"target": "www.robots.example.com"}, {"target": "www"}, {"nodes": "web-01"}, {"nodes": "**"}],
    ids=["name-that-it-is-for", "name-of-the-certificate", "one-node", "all-nodes"],
)
async def test_certificates_are_chosen_as_people_say_it(
    hosts: DeliveryWorld, desk: OperatorDesk, given: dict[str, str]
) -> None:
    """By what they are called or for, or by their node."""
    node = await hosts.node()
    await node.settled("www")
    made = await desk.renew(actor=ANNA, dry_run=True, **given)  # type: ignore[arg-type]
    assert [row["certificate"] for row in made["certificates"]] == ["www"]
    assert len(await node.deliveries()) == 1


async def test_dry_run_tells_who_would_be_refused(hosts: DeliveryWorld, desk: OperatorDesk) -> None:
    """And begins nothing."""
    node = await hosts.node()
    await node.settled("www")
    hosts.policies.change('"**.robots.example.com"', '"**.androids.example.com"')
    made = await desk.renew(actor=ANNA, target="web-01", dry_run=True)
    assert "has to be proved" in made["certificates"][0]["refused"]
    assert len(await node.deliveries()) == 1


async def test_all_that_is_due_is_renewed(hosts: DeliveryWorld, desk: OperatorDesk) -> None:
    """What waits for its next attempt too, and nothing else."""
    node = await hosts.node()
    await node.settled("www")
    node.ends = "restored"
    await node.wants("mail")
    await node.work()
    made = await desk.renew(actor=ANNA, all_due=True)
    assert [row["certificate"] for row in made["certificates"]] == ["mail"]
    assert await node.stage("mail") is DeliveryStage.ASKED


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "one thing"),
        ({"target": "a", "all_due": True}, "one thing"),
        ({"target": "nothing"}, "neither a node nor a certificate"),
        ({"nodes": "db-**"}, "."),
        ({"nodes": "db-01"}, "no node that is"),
    ],
    ids=["nothing", "two", "unknown", "no-pattern", "no-node"],
)
async def test_wish_that_means_nothing_is_told(
    desk: OperatorDesk, given: dict[str, object], told: str
) -> None:
    """In words that help."""
    with pytest.raises(OperationError, match=told):
        await desk.renew(actor=ANNA, **given)  # type: ignore[arg-type]


async def test_held_one_is_listed_released_and_traced(
    hosts: DeliveryWorld, desk: OperatorDesk
) -> None:
    """A reason is needed, and kept."""
    node = await hosts.node()
    await node.settled("www", "www.robots.example.com", "b.robots.example.com")
    await node.wants("www", "www.robots.example.com")
    await node.work()
    (held,) = await desk.cert_watch(kind="held")
    assert "names are missing" in held["note"]
    with pytest.raises(OperationError, match="reason"):
        await desk.cert_release(actor=Actor("operator:anna"), delivery=held["delivery"])
    released = await desk.cert_release(actor=ANNA, delivery=held["delivery"])
    assert released["stage"] == "issued"
    await hosts.settle()
    await node.work()
    for reference in (held["delivery"], held["order"], held["certificate_id"]):
        traced = await desk.cert_trace(reference=reference)
        assert traced["stage"] == "seen"
    again = await desk.cert_trace(reference=traced["fingerprint"].upper())
    assert again["delivery"] == held["delivery"]
    assert None not in traced["stages"].values()
    kinds = [event["kind"] for event in traced["events"]]
    assert kinds[0] == "order-created"
    assert kinds[-1] == "delivery-seen"
    assert {"certificate-issued", "delivery-held", "delivery-released"} <= set(kinds)
    json.dumps(traced)
    with pytest.raises(OperationError, match="no delivery"):
        await desk.cert_trace(reference="nothing")


async def test_withdrawn_one_is_gone(hosts: DeliveryWorld, desk: OperatorDesk) -> None:
    """By whom and why is in its note."""
    node = await hosts.node()
    await node.wants("www")
    (delivery,) = await node.deliveries()
    done = await desk.cert_withdraw(actor=ANNA, delivery=delivery.delivery_id)
    assert done["stage"] == "withdrawn"
    assert "operator:anna: asked for in ticket 7" in done["note"]


async def test_lists_show_what_needs_attention(hosts: DeliveryWorld, desk: OperatorDesk) -> None:
    """Due, not seen in time, not renewed by its client."""
    node = await hosts.node()
    node.ends = "installed"
    await node.wants("www")
    await node.work()
    assert await desk.cert_watch(kind="not-seen") == []
    await hosts.let_pass(timedelta(minutes=16))
    (unseen,) = await desk.cert_watch(kind="not-seen")
    assert (unseen["node"], unseen["stage"]) == ("web-01", "installed")
    (due,) = await desk.cert_watch(kind="due")
    assert (due["node"], due["certificate"]) == ("web-01", "www")
    await (await hosts.client()).issue("www.example.com")
    watch = UnrenewedWatch(hosts.store, hosts.policies, hosts.clock)
    for _ in range(84):
        hosts.clock.advance(timedelta(days=1))
        await watch.run()
    (unrenewed,) = await desk.cert_watch(kind="not-renewed")
    assert unrenewed["names"] == ["www.example.com"]


@pytest.mark.parametrize(("kind", "limit"), [("else", 10), ("due", 0), ("due", 1001)])
async def test_list_that_there_is_not_is_told(desk: OperatorDesk, kind: str, limit: int) -> None:
    """Likewise a limit that is none."""
    with pytest.raises(OperationError):
        await desk.cert_watch(kind=kind, limit=limit)


async def test_desk_without_nodes_says_so(hosts: DeliveryWorld, desk: OperatorDesk) -> None:
    """The configuration has none."""
    from dataclasses import replace

    bare = OperatorDesk(replace(desk._rooms, deliveries=None, delivery_rooms=None))
    with pytest.raises(OperationError, match="serves no nodes"):
        await bare.cert_withdraw(actor=ANNA, delivery="x")
    with pytest.raises(OperationError, match="knows of no renewals"):
        await bare.cert_watch(kind="held")
