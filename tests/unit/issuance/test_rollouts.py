"""Rollout groups at work: claims, canaries, halts, restarts, nodes that vanish."""

import asyncio
import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.issuance.events import Actor, EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.issuance.rollouts import Rollouts
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, RolloutPlan
from broker.policy.windows import parse_window
from tests.fakes.clock import FakeClock
from tests.fakes.fake_rollouts import FakeRolloutStore

ISSUED, PUSHED, SEEN = DeliveryStage.ISSUED, DeliveryStage.PUSHED, DeliveryStage.SEEN
FAILED, RESTORED, ASKED = DeliveryStage.FAILED, DeliveryStage.RESTORED, DeliveryStage.ASKED
MINUTE = timedelta(minutes=1)


class Wave:
    """A group of nodes, and a gate before it."""

    def __init__(self, count: int = 200, /, **how: object) -> None:
        told = {
            "name": "web",
            "nodes": node_patterns(["**"]),
            "canaries": node_patterns(["n000", "n001"]),
            "at_once": 10,
            "halt_after": 3,
        }
        self.apart = how.pop("apart", ())
        self.plan = RolloutPlan(
            groups=(Group(**(told | how)),),  # type: ignore[arg-type]
            apart=tuple(node_patterns(one) for one in self.apart),  # type: ignore[attr-defined]
        )
        self.clock = FakeClock()
        self.store = FakeRolloutStore()
        self.gate = Rollouts(self.store, self.plan, self.clock)
        self.nodes = [f"n{number:03}" for number in range(count)]
        self.touched: list[str] = []
        self.most = 0
        for node in self.nodes:
            self.store.put(node, ISSUED, self.clock.now())

    def restart(self) -> None:
        """Forget what was in memory."""
        self.gate = Rollouts(self.store, self.plan, self.clock)

    def under_way(self) -> set[str]:
        """Return the nodes that were pushed to and have not ended."""
        return {name for name, one in self.store.deliveries.items() if one.stage is PUSHED}

    async def push(self, node: str) -> bool:
        """Judge, and push as the workflow does: a while after the answer."""
        verdict = await self.gate.judge(self.store.view(node, self.clock.now()), self.clock.now())
        await asyncio.sleep(0)
        if not verdict.may_go:
            assert verdict.why
            assert verdict.retry_at is not None
            assert verdict.retry_at > self.clock.now()
            return False
        await asyncio.sleep(0)
        self.store.put(node, PUSHED, self.clock.now())
        self.touched.append(node)
        flying = self.under_way()
        self.most = max(self.most, len(flying))
        for group in self.apart:  # type: ignore[attr-defined]
            assert len(flying & set(group)) < 2
        return True

    async def end(self, node: str, stage: DeliveryStage) -> list[str]:
        """End a delivery, and return who may go."""
        self.store.put(node, stage, self.clock.now())
        return list(await self.gate.ended(self.store.view(node, self.clock.now())))

    async def run(self, outcome: object, *, seed: int = 0) -> None:
        """Judge all at once, and go on with whoever may, until nobody does."""
        order = random.Random(seed)
        waiting = list(self.nodes)
        order.shuffle(waiting)
        while waiting:
            await asyncio.gather(*(self.push(one) for one in waiting))
            ended = sorted(self.under_way())
            order.shuffle(ended)
            freed = await asyncio.gather(
                *(self.end(one, outcome(one)) for one in ended)  # type: ignore[operator]
            )
            # A job that is asked for twice is run once.
            waiting = sorted({one for ids in freed for one in ids})


def is_seen(_node: str) -> DeliveryStage:
    """Serve."""
    return SEEN


async def test_failing_reload_on_200_nodes_touches_no_more_than_the_canaries() -> None:
    """All of them judged at once, whatever the order."""
    for seed in range(5):
        wave = Wave()
        await wave.run(lambda _node: RESTORED, seed=seed)
        assert set(wave.touched) <= {"n000", "n001"}
        assert wave.touched
        (event,) = [one for one in wave.store.events if one.kind is EventKind.ROLLOUT_HALTED]
        assert event.data["group"] == "web"


async def test_wave_that_succeeds_reaches_all_and_never_more_than_at_once() -> None:
    """The negative twin: canaries first, then ten at a time."""
    wave = Wave()
    await wave.run(is_seen)
    assert set(wave.touched[:2]) == {"n000", "n001"}
    assert sorted(wave.touched) == wave.nodes
    assert wave.most == 10
    assert not wave.store.kept["web"].served


async def test_without_named_canaries_one_node_alone_is_touched() -> None:
    """The first by name stands in."""
    wave = Wave(canaries=None)
    await wave.run(lambda _node: FAILED)
    assert wave.touched == ["n000"]


@settings(max_examples=25, deadline=None)
@given(
    at_once=st.integers(1, 7),
    halt_after=st.integers(1, 4),
    bad=st.sets(st.integers(0, 29), max_size=6),
    seed=st.integers(0, 1000),
)
def test_no_wave_overshoots(at_once: int, halt_after: int, bad: set[int], seed: int) -> None:
    """Whatever fails: never too many at once, never two apart, never far past the limit."""

    async def check() -> None:
        wave = Wave(
            30, at_once=at_once, halt_after=halt_after, apart=(("n003", "n004"), ("n004", "n020"))
        )
        failing = {f"n{number:03}" for number in bad}
        await wave.run(lambda node: FAILED if node in failing else SEEN, seed=seed)
        assert wave.most <= at_once
        failed = failing & set(wave.touched)
        assert len(failed) < halt_after + at_once
        canaries = {"n000", "n001"}
        if failing & canaries & set(wave.touched):
            assert set(wave.touched) <= canaries
        if not failed:
            assert sorted(wave.touched) == wave.nodes

    asyncio.run(check())


@settings(max_examples=40, deadline=None)
@given(
    at_once=st.integers(1, 7),
    has_canaries=st.booleans(),
    is_proven=st.booleans(),
    is_halted=st.booleans(),
    absent=st.sets(st.integers(0, 19), max_size=4),
    batch=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_batch_is_judged_as_one_after_the_other(
    at_once: int,
    has_canaries: bool,
    is_proven: bool,
    is_halted: bool,
    absent: set[int],
    batch: int,
    seed: int,
) -> None:
    """The same verdicts, the same claims and the same queue, whatever the order and the size."""

    async def judged(size: int) -> tuple[object, ...]:
        how = {} if has_canaries else {"canaries": None}
        wave = Wave(20, at_once=at_once, apart=(("n003", "n004"), ("n004", "n010")), **how)
        away = {f"n{number:03}" for number in absent}
        wave.gate = Rollouts(
            wave.store, wave.plan, wave.clock, is_connected=lambda node: node not in away
        )
        if is_proven:
            for node in wave.nodes[:2]:
                if await wave.push(node):
                    await wave.end(node, SEEN)
        if is_halted:
            await wave.gate.halt("web", actor=Actor("operator:ann"), why="stop")
        rest = wave.nodes[2:] + wave.nodes[2:5]
        random.Random(seed).shuffle(rest)
        verdicts = []
        now = wave.clock.now()
        for begin in range(0, len(rest), size):
            views = [wave.store.view(one, now) for one in rest[begin : begin + size]]
            if size == 1:
                verdicts += [await wave.gate.judge(views[0], now)]
            else:
                verdicts += await wave.gate.judge_all(views, now)
        (view,) = await wave.gate.views()
        assert len(view.under_way) <= at_once
        freed = await wave.gate.freed()
        return verdicts, view.wave, view.under_way, view.waiting, freed

    async def check() -> None:
        assert await judged(1) == await judged(batch)

    asyncio.run(check())


async def test_window_that_opens_for_one_wakes_those_that_wait_for_it() -> None:
    """They need not be judged one by one to be found."""
    wave = Wave(4, windows=(parse_window("22:00-23:00"),), canaries=None, at_once=9)
    freed: list[str] = []
    wave.gate.on_free = freed.extend
    for node in wave.nodes:
        assert not await wave.push(node)
    wave.clock.advance(timedelta(hours=10))
    assert await wave.push("n000")
    assert not freed
    assert await wave.end("n000", SEEN) == ["n001", "n002", "n003"]
    wave.store.put("n000", ISSUED, wave.clock.now())
    assert await wave.push("n001")
    assert freed == ["n002", "n003"]


async def test_end_names_nobody_where_nobody_asks() -> None:
    """Who asks later is told."""
    wave = Wave(3, at_once=1, canaries=None)
    assert await wave.push("n000")
    assert not await wave.push("n001")
    wave.store.put("n000", SEEN, wave.clock.now())
    view = wave.store.view("n000", wave.clock.now())
    assert await wave.gate.ended(view, is_asked=False) == ()
    assert await wave.gate.freed() == ["n001"]


async def test_claim_holds_until_the_delivery_ends() -> None:
    """The same delivery is let through again; another is not."""
    wave = Wave(3, at_once=1, canaries=None)
    assert await wave.push("n000")
    view = wave.store.view("n000", wave.clock.now())
    assert (await wave.gate.judge(view, wave.clock.now())).may_go
    assert not await wave.push("n001")
    assert await wave.end("n000", SEEN) == ["n001"]


async def test_canary_that_is_only_asked_is_waited_for_and_not_for_ever() -> None:
    """A node that does not send its CSR holds the others up for as long as it may take."""
    wave = Wave(4)
    wave.store.put("n001", ASKED, wave.clock.now())
    wave.store.put("n000", DeliveryStage.WITHDRAWN, wave.clock.now())
    assert not await wave.push("n002")
    wave.clock.advance(15 * MINUTE)
    assert await wave.push("n002")
    assert not await wave.push("n003")


async def test_node_that_vanishes_counts_as_failed_and_frees_its_place() -> None:
    """After the time that its group gives it; what it says later changes nothing."""
    wave = Wave(6, at_once=2, halt_after=2, canaries=node_patterns(["n000"]))
    assert await wave.push("n000")
    assert not await wave.push("n002")
    await wave.end("n000", SEEN)
    assert await wave.push("n001")
    assert await wave.push("n002")
    assert not await wave.push("n003")
    await wave.gate.take_turn()  # the first after a start asks about everybody
    freed: list[str] = []
    wave.gate.on_free = freed.extend
    wave.clock.advance(14 * MINUTE)
    await wave.gate.take_turn()
    assert not freed
    wave.clock.advance(MINUTE)
    await wave.end("n002", SEEN)
    await wave.gate.take_turn()
    assert freed == ["n003"]
    (view,) = await wave.gate.views()
    assert view.wave.failures == 1
    await wave.end("n001", FAILED)
    assert (await wave.gate.views())[0].wave.failures == 1
    assert await wave.push("n003")


async def test_late_delivery_that_had_ended_counts_as_it_ended() -> None:
    """Only nobody had told of it."""
    wave = Wave(2, canaries=None)
    await wave.push("n000")
    wave.store.put("n000", SEEN, wave.clock.now())
    wave.clock.advance(15 * MINUTE)
    await wave.gate.take_turn()
    (view,) = await wave.gate.views()
    assert (view.wave.failures, view.under_way) == (0, [])


async def test_restart_forgets_no_claim_no_proof_and_no_halt() -> None:
    """What is under way is read again."""
    wave = Wave(6, at_once=1, canaries=node_patterns(["n000"]), halt_after=1)
    await wave.push("n000")
    await wave.end("n000", SEEN)
    assert await wave.push("n001")
    wave.restart()
    assert not await wave.push("n002")
    await wave.end("n001", SEEN)
    assert await wave.push("n002")
    await wave.end("n002", FAILED)
    wave.restart()
    assert not await wave.push("n003")
    (view,) = await wave.gate.views()
    assert view.wave.is_halted


async def test_failure_that_nobody_counted_before_a_crash_is_counted_after_it() -> None:
    """The delivery had ended, and the broker died before its gate heard of it."""
    wave = Wave(4, canaries=node_patterns(["n000"]), halt_after=1)
    await wave.push("n000")
    await wave.end("n000", SEEN)
    await wave.push("n001")
    wave.clock.advance(MINUTE)
    wave.store.put("n001", FAILED, wave.clock.now())
    wave.restart()
    assert not await wave.push("n002")
    assert (await wave.gate.views())[0].wave.is_halted


async def test_resumed_wave_begins_with_its_canaries_again() -> None:
    """And a person's halt holds like any other."""
    wave = Wave(5, canaries=node_patterns(["n000"]))
    await wave.push("n000")
    await wave.end("n000", FAILED)
    wave.store.put("n000", ISSUED, wave.clock.now())
    assert not await wave.push("n000")
    assert not await wave.push("n001")
    assert await wave.gate.resume("web", actor=Actor("operator:ann")) == ["n000"]
    assert not await wave.push("n001")
    assert await wave.push("n000")
    await wave.gate.halt("web", actor=Actor("operator:ann"), why="maintenance")
    assert await wave.end("n000", SEEN) == []
    assert not await wave.push("n001")
    kinds = [one.kind for one in wave.store.events]
    assert kinds == [
        EventKind.ROLLOUT_HALTED,
        EventKind.ROLLOUT_RESUMED,
        EventKind.ROLLOUT_HALTED,
    ]
    assert wave.store.events[-1].actor.name == "operator:ann"


async def test_unknown_group_cannot_be_resumed() -> None:
    """Nor halted."""
    wave = Wave(1)
    with pytest.raises(LookupError, match="no rollout group 'x'"):
        await wave.gate.resume("x", actor=Actor("operator:ann"))
    with pytest.raises(LookupError, match="no rollout group 'x'"):
        await wave.gate.halt("x", actor=Actor("operator:ann"), why="")


async def test_node_in_no_group_goes_at_once() -> None:
    """However many are under way."""
    wave = Wave(3, nodes=node_patterns(["n000"]))
    assert await wave.push("n001")
    assert await wave.push("n002")
    assert await wave.push("n000")


async def test_closed_window_holds_canaries_and_others_and_opens_for_the_canary() -> None:
    """A canary that waited all day for its window is a canary still."""
    wave = Wave(3, windows=(parse_window("22:00-23:00"),), canaries=node_patterns(["n001"]))
    now = wave.clock.now()
    for node in wave.nodes:
        verdict = await wave.gate.judge(wave.store.view(node, now), now)
        assert verdict.retry_at == now.replace(hour=22)
    wave.clock.advance(timedelta(hours=10))
    assert not await wave.push("n000")
    assert await wave.push("n001")


async def test_those_who_wait_are_asked_about_right_after_a_restart() -> None:
    """What the canary shows meanwhile would else reach them only with their jobs, minutes later."""
    wave = Wave(4, canaries=node_patterns(["n000"]))
    wave.store.put("n003", ASKED, wave.clock.now())
    assert await wave.push("n000")
    assert not await wave.push("n001")
    wave.restart()
    told: list[str] = []
    wave.gate.on_free = told.extend
    await wave.gate.take_turn()
    assert told == ["n001", "n002"]
    for node in told:
        assert not await wave.push(node)
    assert await wave.end("n000", SEEN) == ["n001", "n002"]
    told.clear()
    await wave.gate.take_turn()
    assert told == []


async def test_node_that_is_not_connected_takes_no_place() -> None:
    """It is asked about again soon."""
    wave = Wave(2, at_once=1, canaries=None)
    present = {"n001"}
    wave.gate = Rollouts(
        wave.store, wave.plan, wave.clock, is_connected=lambda node_id: node_id in present
    )
    assert not await wave.push("n000")
    wave.clock.advance(20 * MINUTE)
    assert await wave.push("n001")
    await wave.end("n001", SEEN)
    present.add("n000")
    assert await wave.push("n000")


def test_time_is_pulled_into_the_window_of_the_node() -> None:
    """And left alone where there is none."""
    wave = Wave(1, windows=(parse_window("01:00-02:00"),))
    now = wave.clock.now()
    found = wave.gate.pulled_forward("n000", now + timedelta(days=3), now, "x")
    assert now < found < now + timedelta(days=3)
    assert found.hour == 1
    bare = Wave(1)
    assert bare.gate.pulled_forward("n000", now + MINUTE, now, "x") == now + MINUTE
