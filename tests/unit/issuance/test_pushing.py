"""Many deliveries at once: the same as one after the other, cut off anywhere, halted in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.node_ports import DeliveryRecord, DeliveryStage, NodeStatus
from broker.issuance.rollouts import Rollouts
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, RolloutPlan
from tests.fakes.delivery_world import DeliveryWorld, Node
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder

ISSUED, PUSHED, SEEN = DeliveryStage.ISSUED, DeliveryStage.PUSHED, DeliveryStage.SEEN
ANNA = Actor("operator:anna", "mended")
BATCH = 3


class Hosts:
    """Seven nodes of one group, six of which wait for the canary."""

    def __init__(self, world: DeliveryWorld, at_once: int) -> None:
        self.world = world
        self.nodes: list[Node] = []
        group = Group(
            name="web",
            nodes=node_patterns(["**"]),
            canaries=node_patterns(["web-0"]),
            at_once=at_once,
            halt_after=50,
        )
        self.plan = RolloutPlan(groups=(group,), apart=(node_patterns(["web-3", "web-4"]),))
        self.gate = self.make()
        world.make_gate = self.make

    def make(self) -> Rollouts:
        """Return the gate of the next process, which wakes its jobs in batches."""
        store = self.world.traffic.watch(self.world.store, "store", counts=True)
        self.gate = Rollouts(store, self.plan, self.world.clock)
        self.gate.on_free = lambda ids: self.world.deliveries.pushing.begin(ids)
        return self.gate

    async def restart(self) -> None:
        """Begin the next process."""
        await self.world.restart()
        self.world.deliveries.pushing.batch = BATCH

    async def begin(self, number: int = 7) -> None:
        """Have all certificates wait for their wave, whose canary is reloaded and not seen yet."""
        await self.restart()
        for index in range(number):
            self.nodes.append(await self.world.node(f"web-{index}"))
        self.nodes[0].ends = "reloaded"
        for node in self.nodes:
            await node.wants("www")
            await node.work()
        assert await self.stages() == [DeliveryStage.RELOADED] + [ISSUED] * (number - 1)

    async def free(self) -> None:
        """Have the canary be seen, which lets all others go; up to a cut, if there is one."""
        (message,) = [one for one in self.nodes[0].heard if one.kind == "certificate"]
        going = asyncio.ensure_future(self.nodes[0].tell(message, "seen"))
        cut = asyncio.ensure_future(self.world.traffic.is_cut.wait())
        await asyncio.wait({going, cut}, return_when=asyncio.FIRST_COMPLETED)
        for task in (going, cut):
            task.cancel()
        await asyncio.gather(going, cut, return_exceptions=True)

    async def newest(self) -> list[DeliveryRecord]:
        """Return the delivery of each node."""
        return [(await node.deliveries())[0] for node in self.nodes]

    async def stages(self) -> list[DeliveryStage]:
        """Return how far each has come."""
        return [one.stage for one in await self.newest()]

    async def check(self, at_once: int) -> None:
        """No more than may be are under way, and none that have to stay apart."""
        stages = await self.stages()
        assert stages.count(PUSHED) <= at_once
        assert [stages[3], stages[4]] != [PUSHED, PUSHED]


@asynccontextmanager
async def hosts_of(folder: Path, at_once: int = 100) -> AsyncIterator[Hosts]:
    """Nodes that wait for their wave."""
    with memory_folder(folder) as place:
        async with DeliveryWorld(place) as world:
            made = Hosts(world, at_once)
            await made.begin()
            yield made


async def test_wave_whose_canary_was_seen_is_pushed_in_batches(tmp_path: Path) -> None:
    """Each is dated, told and woken as it would be alone; who stays apart comes after."""
    async with hosts_of(tmp_path) as hosts:
        world = hosts.world
        before = world.traffic.seen("store.push_deliveries")
        world.connections.woken.clear()
        await hosts.free()
        assert world.traffic.seen("store.push_deliveries") - before == 2
        assert await hosts.stages() == [SEEN, PUSHED, PUSHED, PUSHED, ISSUED, PUSHED, PUSHED]
        assert world.connections.woken == [f"node-web-{index}" for index in (1, 2, 3, 5, 6)]
        pushed = (await hosts.newest())[1]
        assert (pushed.pushed_at, pushed.note) == (world.clock.now(), None)
        assert pushed.rollout_group == "web"
        told = await world.events(EventKind.DELIVERY_MOVED)
        assert [one.data["stage"] for one in told].count("pushed") == 6
        for node in hosts.nodes[1:]:
            await node.work()
        await hosts.nodes[4].work()
        assert await hosts.stages() == [SEEN] * 7
        assert await world.jobs() == 0


@pytest.mark.parametrize(("per_second", "expected"), [(2, 2), (1, 5), (0.01, 20), (6, None)])
async def test_nodes_of_a_large_wave_are_told_to_take_their_time(
    tmp_path: Path, per_second: float, expected: int | None
) -> None:
    """Also those of its last batch; where few are pushed to, and for a canary, nothing is said."""
    async with hosts_of(tmp_path) as hosts:
        hosts.world.deliveries.pushing.told_per_second = per_second
        await hosts.free()
        told = []
        for index in (0, 1, 2, 3, 5, 6):
            node = hosts.nodes[index]
            await node.read()
            (message,) = [one for one in node.heard if one.kind == "certificate"]
            told.append(message.body.get("tell_within"))
        assert told == [None] + [expected] * 5


async def test_a_host_of_many_certificates_counts_as_one_that_tells(tmp_path: Path) -> None:
    """It tells of them together, and would install them ever later for a word about the others."""
    async with hosts_of(tmp_path) as hosts:
        host, pushing = hosts.nodes[1], hosts.world.deliveries.pushing
        for name in ("a", "b", "c", "d", "e"):
            await host.wants(name)
            await host.work()
        pushing.told_per_second, pushing.batch = 1, 100
        await hosts.free()
        await host.read()
        told = [one.body["tell_within"] for one in host.heard if one.kind == "certificate"]
        assert told == [5] * 6


@pytest.mark.parametrize("side", list(Cut), ids=str)
@pytest.mark.parametrize("occurrence", [1, 2])
@pytest.mark.parametrize("step", ["releasable", "push_deliveries"])
@pytest.mark.parametrize("at_once", [2, 100])
async def test_process_that_dies_between_batches_loses_nothing_and_overshoots_nothing(
    tmp_path: Path, step: str, occurrence: int, side: Cut, at_once: int
) -> None:
    """The next one pushes what is left, as far as there is room."""
    async with hosts_of(tmp_path, at_once) as hosts:
        world = hosts.world
        seen = world.traffic.seen(f"store.{step}")
        world.traffic.cutting = Cutting(f"store.{step}", seen + occurrence, side)
        await hosts.free()
        await hosts.restart()
        await hosts.check(at_once)
        hosts.nodes[0].ends = "seen"
        await hosts.nodes[0].state()
        for _ in range(7):
            await world.let_pass(timedelta(minutes=3))
            await world.dispatcher.run_due()
            await world.settle()
            await hosts.check(at_once)
            for node in hosts.nodes:
                await node.work()
                await hosts.check(at_once)
        assert await hosts.stages() == [SEEN] * 7
        assert len(await world.certificates()) == 7
        assert await world.jobs() == 0


async def test_halt_between_two_batches_stops_the_rest(tmp_path: Path) -> None:
    """Only what was written by then goes."""
    async with hosts_of(tmp_path) as hosts:
        stall = hosts.world.traffic.stall("store.push_deliveries")
        going = asyncio.ensure_future(hosts.free())
        await stall.reached.wait()
        await hosts.gate.halt("web", actor=ANNA, why="stop")
        stall.release()
        await going
        stages = await hosts.stages()
        assert stages.count(PUSHED) == BATCH
        assert stages.count(ISSUED) == 3
        assert "stop" in ((await hosts.newest())[6].note or "")


async def test_what_cannot_go_along_goes_the_way_of_its_job(tmp_path: Path) -> None:
    """Drained, revoked and withdrawn ones are none of the batch, and take no place."""
    async with hosts_of(tmp_path) as hosts:
        world, (_, first, second, third, *_) = hosts.world, hosts.nodes
        drained = replace(first.record, status=NodeStatus.DRAINED)
        await world.store.change_node(drained, expected=(NodeStatus.ACTIVE,), events=())
        spent = (await second.deliveries())[0]
        event = Event(kind=EventKind.CERTIFICATE_REVOKED, at=world.clock.now(), data={})
        await world.store.mark_revoked(
            spent.certificate_id or "", reason=1, at=world.clock.now(), event=event
        )
        stall = world.traffic.stall("store.push_deliveries")
        going = asyncio.ensure_future(hosts.free())
        await stall.reached.wait()
        late = (await third.deliveries())[0].delivery_id
        await world.deliveries.releasing.withdraw(late, ANNA)
        stall.release()
        await going
        await world.settle()
        stages = await hosts.stages()
        assert stages[1:4] == [ISSUED, DeliveryStage.FAILED, DeliveryStage.WITHDRAWN]
        assert "certificate" not in [one.kind for one in await third.read()]
        for node in hosts.nodes[4:]:
            await node.work()
        await world.let_pass(timedelta(minutes=3))
        assert (await hosts.stages())[4:] == [SEEN] * 3


async def test_store_that_is_away_leaves_it_to_the_jobs(tmp_path: Path) -> None:
    """They try again by themselves."""
    async with hosts_of(tmp_path) as hosts:

        async def fail(_ids: Sequence[str]) -> Sequence[str]:
            raise Unreachable("the disk is full")

        hosts.world.store.releasable = fail  # type: ignore[assignment]
        await hosts.free()
        stages = await hosts.stages()
        assert stages.count(PUSHED) == 5
        await hosts.check(100)
        assert not hosts.world.deliveries.pushing.is_busy


async def test_one_alone_goes_the_way_of_its_job(tmp_path: Path) -> None:
    """Nothing is written in a batch."""
    async with hosts_of(tmp_path, at_once=1) as hosts:
        before = hosts.world.traffic.seen("store.push_deliveries")
        await hosts.free()
        assert (await hosts.stages()).count(PUSHED) == 1
        assert hosts.world.traffic.seen("store.push_deliveries") == before
