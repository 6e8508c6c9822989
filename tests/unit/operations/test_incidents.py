"""The desk about mass replacement: dry run, start, report."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.incidents import IncidentRooms, Incidents
from broker.issuance.records import JobKind
from broker.issuance.renewal_budget import RenewalBudget
from broker.operations import OperatorDesk, Rooms
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.web.operator import OperationError
from tests.fakes.delivery_world import DeliveryWorld, Node
from tests.fakes.fake_policies import FakeSuffixes
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper

HOUR = timedelta(hours=1)


class Office:
    """A desk over nodes and incidents."""

    def __init__(self, world: DeliveryWorld) -> None:
        self.world = world
        self.incidents = Incidents(
            IncidentRooms(
                store=world.traffic.watch(world.store, "incidents", counts=True),
                starter=world.deliveries.asking,
                dispatcher=world.dispatcher,
                clock=world.clock,
            )
        )
        world.dispatcher.on(JobKind.INCIDENT, self.incidents.advance)
        limit = PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(2, HOUR), kept_for_renewals=0.5)
        self.desk = OperatorDesk(
            Rooms(
                store=world.store,
                accounts=world.accounts,
                enrollment=world.enrollment,
                revocations=world.revocations,
                planner=world.planner,
                policies=world.policies,
                upstreams=FakeUpstreamKeeper(),
                authorities=FakeAuthorityKeeper(),
                clock=world.clock,
                communities=("default",),
                version="0.1.0",
                incidents=self.incidents,
                budget=RenewalBudget(
                    world.store,
                    lambda upstream: (limit,) if upstream == "ca" else (),
                    world.clock,
                    FakeSuffixes(),
                ),
            )
        )

    async def node(self, name: str, profile: str = "private") -> Node:
        """Return a node that serves a certificate."""
        node = await self.world.node(name)
        node.profile = profile
        await node.settled(f"www-{name}")
        return node


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """A desk that is open."""
    async with DeliveryWorld(tmp_path) as world:
        yield Office(world)


async def test_dry_run_counts_and_reckons_and_changes_nothing(office: Office) -> None:
    """What the CA allows decides when it is finished."""
    for number in range(4):
        await office.node(f"web-{number}", "server")
    await (await office.world.client()).issue("www.example.com")
    plan = await office.desk.incident_plan(select={"upstream": "ca"}, deadline="24h")
    assert (plan["certificates"], plan["at_nodes"], plan["by_their_clients"]) == (5, 4, 1)
    (orders,) = plan["orders"]
    # Five were ordered just now out of two an hour: four more take two hours.
    assert (orders["orders"], orders["limit"], orders["left_now"]) == (4, "2/1h", 0)
    assert orders["ordered"] == "2026-03-01T14:00:00Z"
    assert plan["finished"] == "2026-03-01T14:01:00Z"
    assert plan["in_time"] is True
    late = await office.desk.incident_plan(select={"upstream": "ca"}, deadline="1h")
    assert (late["in_time"], late["late_by"]) == (False, "1h1m")
    assert [one["names"] for one in plan["clients"]] == [["www.example.com"]]
    assert await office.desk.incident_list() == []


async def test_start_report_and_end(office: Office) -> None:
    """The report names what is left and why."""
    node = await office.node("web-1")
    await (await office.world.client()).issue("www.example.com")
    begun = await office.desk.incident_start(
        actor=ANNA, select={"community": "default"}, deadline="5d", code=1, at_once=3
    )
    assert begun["by"] == ANNA.name
    assert begun["revocation_reason"] == 1
    assert {one["status"] for one in begun["what_is_left"]} == {"waiting", "pulled"}
    await office.world.settle()
    for _ in range(4):
        await node.work()
        await office.world.let_pass(timedelta(seconds=6))
        await office.world.settle()
    shown = await office.desk.incident_show(incident=begun["incident"])
    assert (shown["revoked"], shown["left"], shown["left_to_clients"]) == (1, 0, 1)
    assert shown["status"] == "open"
    (row,) = await office.desk.incident_list()
    assert row["incident"] == begun["incident"]
    for change, status in (("pause", "paused"), ("resume", "open"), ("abandon", "abandoned")):
        method = getattr(office.desk, f"incident_{change}")
        assert (await method(actor=ANNA, incident=begun["incident"]))["status"] == status


async def test_issuer_is_named_by_its_name_or_its_key(office: Office) -> None:
    """And one that nothing comes from is told with those that there are."""
    await office.node("web-1")
    (kept,) = await office.world.store.list_certificates(community=None, after=None, limit=9)
    samples = await office.world.store.issuer_samples()
    assert len(samples) == 1
    with pytest.raises(
        OperationError, match="no certificate comes from an issuer 'Nobody'"
    ) as told:
        await office.desk.incident_plan(select={"issuer": "Nobody"})
    name = (told.value.hint or "").removeprefix("there is ")
    assert (await office.desk.incident_plan(select={"issuer": name}))["certificates"] == 1
    assert (await office.desk.incident_plan(select={"issuer": "00:11:22:33"}))["certificates"] == 0
    assert kept.is_released


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ({}, "nothing is selected"),
        ({"colour": "red"}, "'colour' selects nothing"),
        ({"key": "zz"}, "key is no SHA-256"),
        ({"after": "yesterday"}, "'yesterday' is no date"),
    ],
    ids=["nothing", "unknown", "key", "date"],
)
async def test_selection_that_makes_no_sense_is_refused(
    office: Office, select: dict[str, str], why: str
) -> None:
    """Before anything is looked at."""
    with pytest.raises(OperationError, match=why):
        await office.desk.incident_plan(select=select)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"code": 2}, "reason 2 is not offered"),
        ({"at_once": 0}, "at once 0 is not between"),
        ({"explanation": "javascript:1"}, "explanation is no URL"),
        ({"deadline": "5"}, "'5' is not a duration"),
    ],
    ids=["code", "at-once", "explanation", "deadline"],
)
async def test_order_that_makes_no_sense_is_refused(
    office: Office, how: dict[str, object], why: str
) -> None:
    """With what is offered instead."""
    with pytest.raises(OperationError, match=why):
        await office.desk.incident_start(actor=ANNA, select={"node": "x"}, **how)  # type: ignore[arg-type]


async def test_unknown_incident_is_told(office: Office) -> None:
    """By every command that names one."""
    with pytest.raises(OperationError, match="there is no incident 'x'"):
        await office.desk.incident_show(incident="x")
    with pytest.raises(OperationError, match="there is no incident 'x'"):
        await office.desk.incident_pause(actor=ANNA, incident="x")
