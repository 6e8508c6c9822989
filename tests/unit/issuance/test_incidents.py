"""Mass replacement: what is selected is replaced, seen, revoked, whatever comes between."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Conflict, Refused
from broker.issuance.events import Actor, EventKind
from broker.issuance.incident_ports import (
    IncidentItem,
    IncidentRecord,
    IncidentStatus,
    ItemKind,
    ItemStatus,
    Order,
    Selection,
)
from broker.issuance.incidents import IncidentRooms, Incidents
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.records import CertificateRecord, JobKind
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.delivery_world import DeliveryWorld, Node
from tests.fakes.interruptions import Cut, Cutting

ANN = Actor("operator:ann", "key compromise at the CA")
ALL = Selection(community="default")


class IncidentWorld(DeliveryWorld):
    """A world whose processes also replace."""

    async def start(self) -> None:
        """Begin a process."""
        await super().start()
        store = self.traffic.watch(self.store, "incidents", counts=True)
        starter = self.traffic.watch(self.deliveries.asking, "starter", counts=True)
        self.incidents = Incidents(
            IncidentRooms(
                store=store, starter=starter, dispatcher=self.dispatcher, clock=self.clock
            )
        )
        self.dispatcher.on(JobKind.INCIDENT, self.incidents.advance)
        await self.dispatcher.run_due()

    async def begin(self, selection: Selection = ALL, **how: Any) -> IncidentRecord:
        """Start an incident."""
        order = Order(selection=selection, revocation_reason=4, **how)
        made = await self.incidents.start(order, ANN)
        await self.settle()
        return made

    async def turn(self, *nodes: Node, times: int = 3) -> None:
        """Let nodes answer and the incident be gone through."""
        for _ in range(times):
            for node in nodes:
                await node.work()
            await self.let_pass(timedelta(seconds=6))
            await self.dispatcher.run_due()
            await self.settle()

    async def items(self, made: IncidentRecord) -> dict[str, IncidentItem]:
        """Return every item by its certificate."""
        found = await self.store.incident_items(made.incident_id, tuple(ItemStatus), 1000)
        return {one.certificate_id: one for one in found}

    async def incident(self, made: IncidentRecord) -> IncidentRecord:
        """Return it as it is now."""
        found = await self.store.find_incident(made.incident_id)
        assert found is not None
        return found

    def is_revoked(self, found: CertificateRecord) -> bool:
        """Return whether a CA has revoked it."""
        return any(found.fingerprint in ca.revoked for ca in (self.ca, self.local))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[IncidentWorld]:
    """A world with nodes and incidents."""
    async with IncidentWorld(tmp_path) as made:
        yield made


async def certificate(node: Node, name: str = "www") -> CertificateRecord:
    """Return what the broker knows the node to serve."""
    managed = await node.managed(name)
    found = await node.world.store.find_certificate(managed.certificate_id or "")
    assert found is not None
    return found


async def test_certificate_at_a_node_is_replaced_seen_and_only_then_revoked(
    world: IncidentWorld,
) -> None:
    """The old one stays good for as long as the node may serve it."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    before = node.leaf().public_key()
    made = await world.begin()
    node.ends = "installed"
    await world.turn(node)
    assert not world.is_revoked(old)
    assert (await world.items(made))[old.certificate_id].status is ItemStatus.GOING
    for message in list(node.heard):
        if message.kind == "certificate" and message.body["generation"] == 2:
            await node.tell(message, "reloaded")
            await node.tell(message, "seen")
    await world.turn(node)
    assert world.is_revoked(old)
    assert node.leaf().public_key() != before
    assert (await world.items(made))[old.certificate_id].status is ItemStatus.REVOKED
    assert (await world.incident(made)).status is IncidentStatus.DONE
    assert not world.is_revoked(await certificate(node))
    (event,) = await world.events(EventKind.INCIDENT_STARTED)
    assert event.actor.name == "operator:ann"
    assert await world.count(EventKind.INCIDENT_DONE) == 1
    assert await world.jobs() == 0


async def test_certificate_that_is_seen_during_a_look_is_not_taken_for_a_failure(
    world: IncidentWorld,
) -> None:
    """A failure would be tried again a minute later, and the old one be good until then."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    made = await world.begin()
    node.ends = "reloaded"
    await world.turn(node)
    kept = world.incidents._store
    (message,) = [
        one for one in node.heard if one.kind == "certificate" and one.body["generation"] == 2
    ]

    class SeenBetween:
        """A store in which the node's receipt comes just before the delivery is asked for."""

        asked = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(kept, name)

        async def open_delivery(self, managed_id: str) -> Any:
            self.asked += 1
            await node.tell(message, "seen")
            return await kept.open_delivery(managed_id)

    between: Any = SeenBetween()
    world.incidents._store = between
    await world.turn(times=1)
    assert between.asked == 1
    assert (await world.items(made))[old.certificate_id].status is ItemStatus.REVOKING
    world.incidents._store = kept
    await world.turn()
    assert world.is_revoked(old)
    assert (await world.incident(made)).status is IncidentStatus.DONE


async def test_client_of_its_own_is_told_to_renew_and_is_not_revoked(
    world: IncidentWorld,
) -> None:
    """Its window is over, with the page that explains why; what it does is its own matter."""
    client = await world.client()
    order = await client.issue("www.example.com")
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    made = await world.begin(explanation_url="https://status.example/42")
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    assert told.info.window.end <= world.clock.now()
    assert told.info.explanation_url == "https://status.example/42"
    (item,) = (await world.items(made)).values()
    assert (item.kind, item.status) == (ItemKind.STOCK, ItemStatus.PULLED)
    await world.let_pass(timedelta(seconds=1))
    await client.issue("www.example.com", replaces=found.cert_id or "")
    await world.let_pass(timedelta(minutes=11))
    await world.turn()
    (item,) = (await world.items(made)).values()
    assert item.status is ItemStatus.HANDED_OVER
    assert not world.is_revoked(found)
    assert (await world.incident(made)).status is IncidentStatus.DONE


async def test_incident_that_is_abandoned_pulls_nobody_any_more(world: IncidentWorld) -> None:
    """Windows are the CA's again."""
    client = await world.client()
    order = await client.issue("www.example.com")
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    made = await world.begin()
    await world.incidents.change(made.incident_id, IncidentStatus.ABANDONED, ANN)
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    assert told.info.window.start > world.clock.now()
    assert (await world.incident(made)).ended_at is not None
    with pytest.raises(Conflict):
        await world.incidents.change(made.incident_id, IncidentStatus.OPEN, ANN)


async def test_paused_incident_begins_nothing_and_goes_on_when_resumed(
    world: IncidentWorld,
) -> None:
    """One at a time here, so that something is left to begin."""
    nodes = [await world.node(f"web-0{number}") for number in (1, 2)]
    for node in nodes:
        await node.settled(f"www{node.record.name[-1]}")
    made = await world.begin(at_once=1)
    await world.incidents.change(made.incident_id, IncidentStatus.PAUSED, ANN)
    await world.turn(*nodes)
    assert await world.count(EventKind.CERTIFICATE_REVOKED) < 2
    states = {item.status for item in (await world.items(made)).values()}
    assert ItemStatus.WAITING in states
    await world.incidents.change(made.incident_id, IncidentStatus.OPEN, ANN)
    await world.settle()
    await world.turn(*nodes, times=6)
    assert {item.status for item in (await world.items(made)).values()} == {ItemStatus.REVOKED}
    assert (await world.incident(made)).status is IncidentStatus.DONE


async def test_no_more_than_at_once_are_ordered(world: IncidentWorld) -> None:
    """A node that does not answer gives its place up after a while."""
    nodes = [await world.node(f"web-0{number}") for number in range(4)]
    for node in nodes:
        await node.settled(f"www{node.record.name[-1]}")
    made = await world.begin(at_once=2)
    going = [one for one in (await world.items(made)).values() if one.status is ItemStatus.GOING]
    assert len(going) == 2
    await world.turn(times=2)
    going = [one for one in (await world.items(made)).values() if one.status is ItemStatus.GOING]
    assert len(going) == 2
    await world.let_pass(timedelta(minutes=10))
    await world.turn(times=1)
    going = [one for one in (await world.items(made)).values() if one.status is ItemStatus.GOING]
    assert len(going) == 4


async def test_node_that_put_the_old_one_back_is_tried_again_and_not_revoked(
    world: IncidentWorld,
) -> None:
    """What it serves stays good; the report says why it is left."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    made = await world.begin()
    node.ends = "restored"
    await world.turn(node)
    (item,) = (await world.items(made)).values()
    assert (item.status, item.attempts) == (ItemStatus.WAITING, 1)
    assert "came to nothing" in (item.note or "")
    assert not world.is_revoked(old)
    node.ends = "seen"
    await world.let_pass(timedelta(hours=2))
    await world.turn(node, times=4)
    assert world.is_revoked(old)


async def test_certificate_that_was_replaced_before_is_revoked_at_once(
    world: IncidentWorld,
) -> None:
    """An older one whose node serves another needs no new one."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    await world.deliveries.asking.begin((await node.managed()).managed_id, reason="asked")
    await node.work()
    new = await certificate(node)
    assert new.certificate_id != old.certificate_id
    made = await world.begin(Selection(spki_sha256=old.spki_sha256))
    await world.turn(node)
    assert world.is_revoked(old)
    assert not world.is_revoked(new)
    assert len(await node.deliveries()) == 2
    assert (await world.incident(made)).status is IncidentStatus.DONE


async def test_refusal_of_the_ca_to_revoke_is_told_and_left(world: IncidentWorld) -> None:
    """Its report names it; nothing is asked again."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    ca = world.upstreams[old.upstream]

    async def refuse(_der: bytes, _reason: int) -> None:
        raise Refused(Problem(ProblemType.UNAUTHORIZED, "not yours"))

    ca.revoke = refuse  # type: ignore[method-assign, assignment]
    made = await world.begin()
    await world.turn(node)
    (item,) = (await world.items(made)).values()
    assert item.status is ItemStatus.REFUSED
    assert (await world.incident(made)).status is IncidentStatus.DONE


async def test_deadline_that_passes_with_something_left_is_told_once(
    world: IncidentWorld,
) -> None:
    """For whoever is on call."""
    node = await world.node()
    await node.settled("www")
    made = await world.begin(deadline=timedelta(hours=24))
    assert made.deadline_at == made.started_at + timedelta(hours=24)
    world.clock.advance(timedelta(hours=25))
    await world.let_pass(timedelta(minutes=5))
    assert await world.count(EventKind.INCIDENT_LATE) == 1
    assert (await world.incident(made)).late_at is not None


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        pytest.param(ALL, 3, id="all"),
        pytest.param(Selection(node="web-01"), 1, id="node"),
        pytest.param(Selection(node="web-09"), 0, id="no-such-node"),
        pytest.param(Selection(profile="private"), 2, id="profile"),
        pytest.param(Selection(upstream="ca"), 1, id="upstream"),
        pytest.param(Selection(community="lab"), 0, id="community"),
        pytest.param(Selection(spki_sha256="00" * 32), 0, id="key"),
        pytest.param(Selection(issuers=("AAAA",)), 0, id="issuer"),
    ],
)
async def test_selection(world: IncidentWorld, selection: Selection, expected: int) -> None:
    """Everything that is named has to be true of a certificate."""
    for name in ("web-01", "web-02"):
        await (await world.node(name)).settled(f"www-{name}")
    await (await world.client()).issue("www.example.com")
    found = await world.incidents.select(selection)
    assert len(found) == expected


async def test_selection_by_issuer_key_and_date(world: IncidentWorld) -> None:
    """By what is in the certificate, and when it came."""
    node = await world.node()
    await node.settled("www")
    old = await certificate(node)
    issuer = (old.cert_id or "").partition(".")[0]
    select = world.incidents.select
    assert len(await select(Selection(issuers=(issuer,)))) == 1
    assert len(await select(Selection(spki_sha256=old.spki_sha256))) == 1
    assert len(await select(Selection(issued_after=old.received_at))) == 1
    assert not await select(Selection(issued_before=old.received_at))
    samples = await world.store.issuer_samples()
    assert samples[issuer] == old.leaf_der


async def test_nothing_selected_begins_nothing(world: IncidentWorld) -> None:
    """A slip of the keyboard must not look like success."""
    with pytest.raises(Problem, match="nothing living is selected"):
        await world.begin(Selection(node="nobody"))
    assert not await world.store.list_incidents(10)


STEPS = (
    "incidents.start_incident",
    "starter.begin",
    "incidents.keep_item",
    "incidents.request_revocation",
    "incidents.change_incident",
)


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize(
    "step",
    [(step, occurrence) for step in STEPS for occurrence in (1, 2)],
    ids=lambda s: f"{s[0]}#{s[1]}",
)
async def test_incident_that_is_killed_anywhere_goes_on(
    world: IncidentWorld, step: tuple[str, int], side: Cut
) -> None:
    """After a restart: each certificate replaced once, seen, revoked once."""
    nodes = [await world.node(f"web-0{number}") for number in (1, 2)]
    for node in nodes:
        await node.settled(f"www{node.record.name[-1]}")
    olds = [await certificate(node, next(iter(node.wanted))) for node in nodes]
    name, occurrence = step
    world.traffic.cutting = Cutting(name, world.traffic.seen(name) + occurrence, side)
    beginning = world.incidents.start(Order(selection=ALL, revocation_reason=4), ANN)
    task = asyncio.ensure_future(beginning)
    await world.settle()
    if not world.traffic.is_cut.is_set():
        for _ in range(6):
            for node in nodes:
                if not world.traffic.is_cut.is_set():
                    await _unless_cut(world, node)
            if world.traffic.is_cut.is_set():
                break
            await world.let_pass(timedelta(seconds=6))
    task.cancel()
    await world.restart()
    found = await world.store.list_incidents(10)
    if not found:
        assert (name, side) == ("incidents.start_incident", Cut.BEFORE)
        return
    await world.turn(*nodes, times=8)
    (made,) = await world.store.list_incidents(10)
    assert made.status is IncidentStatus.DONE
    assert {one.status for one in (await world.items(made)).values()} == {ItemStatus.REVOKED}
    for node, old in zip(nodes, olds, strict=True):
        www = next(iter(node.wanted))
        deliveries = await node.deliveries(www)
        assert [one.stage for one in deliveries] == [DeliveryStage.SEEN, DeliveryStage.SEEN]
        assert deliveries[0].incident_id == made.incident_id
        assert world.is_revoked(old)
        assert not world.is_revoked(await certificate(node, www))


async def _unless_cut(world: IncidentWorld, node: Node) -> None:
    """Let a node work until the process is gone."""
    working = asyncio.ensure_future(node.work())
    cut = asyncio.ensure_future(world.traffic.is_cut.wait())
    await asyncio.wait({working, cut}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, cut):
        task.cancel()
