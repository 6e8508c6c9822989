"""The desk about rollout groups."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.node_ports import DeliveryStage
from broker.issuance.rollouts import Rollouts
from broker.operations import OperatorDesk, Rooms
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, RolloutPlan
from broker.policy.windows import parse_window
from broker.web.operator import OperationError
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.fake_rollouts import FakeRolloutStore
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper

ISSUED, FAILED = DeliveryStage.ISSUED, DeliveryStage.FAILED


class Office:
    """A desk with one rollout group."""

    def __init__(self, world: DeliveryWorld, **how: Any) -> None:
        self.world = world
        self.store = FakeRolloutStore()
        group = Group(
            name="web",
            nodes=node_patterns(["**"]),
            canaries=node_patterns(["web-01"]),
            at_once=1,
            halt_after=1,
            **how,
        )
        self.rollouts = Rollouts(self.store, RolloutPlan(groups=(group,)), world.clock)
        for node in ("web-01", "web-02"):
            self.store.put(node, ISSUED, world.clock.now())
        self.desk = self.opened(rollouts=self.rollouts)

    def opened(self, **rooms: Any) -> OperatorDesk:
        """Return a desk with these rooms."""
        world = self.world
        return OperatorDesk(
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
                **rooms,
            )
        )

    async def judge(self, node: str) -> bool:
        """Judge a node's delivery."""
        now = self.world.clock.now()
        return (await self.rollouts.judge(self.store.view(node, now), now)).may_go


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """A desk that is open."""
    async with DeliveryWorld(tmp_path) as world:
        yield Office(world)


async def test_group_is_shown_with_who_is_under_way_and_who_waits(office: Office) -> None:
    """And why."""
    assert await office.judge("web-01")
    assert not await office.judge("web-02")
    (row,) = await office.desk.rollout_list()
    assert (row["group"], row["status"], row["under_way"], row["waiting"]) == ("web", "going", 1, 1)
    shown = await office.desk.rollout_show(group="web")
    assert shown["nodes_under_way"] == ["web-01"]
    (waits,) = shown["waits"]
    assert waits["node"] == "web-02"
    assert "canary 'web-01'" in waits["why"]


async def test_person_halts_and_resumes(office: Office) -> None:
    """With a reason that everybody reads."""
    halted = await office.desk.rollout_halt(actor=ANNA, group="web")
    assert (halted["status"], halted["why"]) == ("halted", ANNA.reason)
    assert not await office.judge("web-01")
    resumed = await office.desk.rollout_resume(actor=ANNA, group="web")
    assert resumed["status"] == "going"
    assert await office.judge("web-01")
    with pytest.raises(OperationError, match="is not halted"):
        await office.desk.rollout_resume(actor=ANNA, group="web")


async def test_closed_window_is_shown(tmp_path: Path) -> None:
    """With the time at which it opens."""
    async with DeliveryWorld(tmp_path) as world:
        office = Office(world, windows=(parse_window("22:00-23:00"),))
        (row,) = await office.desk.rollout_list()
        assert row["opens"] == "2026-03-01T22:00:00Z"


async def test_unknown_group_is_told_with_those_that_are_there(office: Office) -> None:
    """And a broker without nodes has none."""
    with pytest.raises(OperationError, match="no rollout group 'x'") as told:
        await office.desk.rollout_show(group="x")
    assert told.value.hint == "there is web"
    with pytest.raises(OperationError, match="serves no nodes"):
        await office.opened().rollout_list()
