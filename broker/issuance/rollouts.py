"""Rollout groups at work: who may be pushed to now, and what halts a wave.

The rules are ``policy.rollout``'s.  This keeps count of who is under way: an answer that lets a
delivery go is a claim on a place, taken under one lock, so that deliveries that are judged side
by side never overshoot.  Who is under way is known from the store after a start and kept in
memory from then on; only what a restart must not forget is written: proofs, failures, halts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.events import SYSTEM, Actor, EventKind
from broker.issuance.node_ports import DeliveryStage, DeliveryView, Verdict
from broker.issuance.ports import Clock
from broker.issuance.rollout_claims import Begun, Claims, Flight, Party
from broker.issuance.rollout_ports import (
    BEGUN,
    OUTCOMES,
    UNDER_WAY,
    GroupView,
    OpenDelivery,
    RolloutStore,
    Waiting,
    WaveRecord,
    in_turn,
    late_outcome,
)
from broker.issuance.rollout_waves import Waves
from broker.policy.rollout import (
    Group,
    GroupFacts,
    Hindrance,
    Judgement,
    Outcome,
    RolloutPlan,
    Wave,
    judge_delivery,
)
from broker.policy.windows import pulled_into

__all__ = ["Rollouts"]

ASK_AGAIN: Final = timedelta(minutes=2)
"""When a delivery that waits for others is judged again, should nobody tell it before."""

ASK_ABSENT: Final = timedelta(seconds=15)
"""When a delivery is judged again whose node is not connected: it takes no place until it is."""

BEGUN_AGE: Final = timedelta(seconds=2)
"""How old the list of deliveries that were begun may be: a wave of thousands reads it each time
that one of them is judged, until its canaries were seen."""


class Rollouts:
    """Implements ``node_ports.RolloutGate``."""

    def __init__(
        self,
        store: RolloutStore,
        plan: RolloutPlan,
        clock: Clock,
        *,
        is_connected: Callable[[str], bool] | None = None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._clock = clock
        self._is_connected = is_connected
        self._lock = asyncio.Lock()
        self._loaded_at: datetime | None = None
        self._claims = Claims(plan)
        self._waiting: dict[str, Waiting] = {}
        self._waves = Waves(store, clock)
        self._begun: Begun | None = None
        self._queue: list[str] | None = None
        self._has_asked = False
        self.on_free: Callable[[Sequence[str]], None] = lambda _ids: None
        """Told which deliveries should be judged again, where nobody waits for an answer."""

    # -------------------------------------------------------------------------------- the gate

    async def judge(self, view: DeliveryView, now: datetime) -> Verdict:
        """Return whether a delivery may be pushed now; that it may is a claim on its place."""
        if not self._claims.has_rules_for(view.node.name):
            return Verdict(may_go=True)
        freed: Sequence[str] = ()
        async with self._lock:
            await self._load()
            before = self._waiting.get(view.delivery.delivery_id)
            verdict = await self._verdict(view, now)
            if verdict.may_go and before is not None and before.is_shut:
                # Its window has opened, for others as well.
                freed = await self._let_go()
        if freed:
            self.on_free(freed)
        return verdict

    async def judge_all(self, views: Sequence[DeliveryView], now: datetime) -> Sequence[Verdict]:
        """Return the same for many, as if they had been asked about one after the other."""
        async with self._lock:
            await self._load()
            return [await self._verdict(view, now) for view in views]

    async def ended(self, view: DeliveryView, *, is_asked: bool = True) -> Sequence[str]:
        """Note how a delivery ended, and return the ids of those that may go now, if *is_asked*."""
        outcome = OUTCOMES.get(view.delivery.stage, Outcome.DROPPED)
        async with self._lock:
            await self._load()
            await self._land(view.delivery.delivery_id, outcome)
            self._waiting.pop(view.delivery.delivery_id, None)
            return await self._let_go() if is_asked else ()

    async def freed(self) -> Sequence[str]:
        """Return the ids of those that may go now."""
        async with self._lock:
            await self._load()
            return await self._let_go()

    async def take_turn(self) -> None:
        """Count nodes that have told nothing in time as failures, and tell who may go now.

        What such a node still does later is its delivery's matter; its group goes on.  The first
        time all who wait are judged: their jobs would bring them minutes after a start.
        """
        if not self._plan.groups:
            return
        async with self._lock:
            await self._load()
            now = self._clock.now()
            late = [one for one, flight in self._claims if self._is_late(flight, now)]
            if not self._has_asked:
                waiting = await self._store.open_deliveries((DeliveryStage.ISSUED,))
                self._has_asked = True
                self.on_free([one.delivery_id for one in waiting])
            if not late:
                return
            known = {one.delivery_id: one for one in await self._store.stages_of(late)}
            for delivery_id in late:
                found = known.get(delivery_id)
                await self._land(delivery_id, late_outcome(found))
            freed = await self._let_go()
        if freed:
            self.on_free(freed)

    def pulled_forward(
        self, node_name: str, moment: datetime, now: datetime, seed: str
    ) -> datetime:
        """Return when a certificate that is due at *moment* should be renewed: in the last window
        of its group before that; never later than it was."""
        group = self.group_of(node_name)
        windows = () if group is None else group.windows
        return pulled_into(windows, moment, now=now, seed=seed)

    def is_canary(self, node: str) -> bool:
        """Return whether *node* is named as a canary of its group."""
        return self._claims.is_canary(node)

    # -------------------------------------------------------------------------------- for people

    async def views(self) -> Sequence[GroupView]:
        """Return every group, in the order of the configuration."""
        async with self._lock:
            await self._load()
            return self.known_views()

    def known_views(self) -> Sequence[GroupView]:
        """Return the same as far as it is in memory, for metrics."""
        return [self._view(group) for group in self._plan.groups]

    async def halt(self, name: str, *, actor: Actor, why: str) -> None:
        """Push nothing more to a group until it is resumed.

        Raises:
            LookupError: There is no such group.
        """
        group = self._named(name)
        async with self._lock:
            await self._load()
            now = self._clock.now()
            wave = self._waves.of(group, now)
            if wave.is_halted:
                return
            halted = replace(wave, halted_at=now, halted_why=why)
            await self._waves.keep(group, halted, EventKind.ROLLOUT_HALTED, actor)

    async def resume(self, name: str, *, actor: Actor) -> Sequence[str]:
        """Begin a halted group's wave anew, its canaries first; return who may go.

        Raises:
            LookupError: There is no such group.
        """
        group = self._named(name)
        async with self._lock:
            await self._load()
            now = self._clock.now()
            if not self._waves.of(group, now).is_halted:
                return ()
            await self._waves.keep(group, Wave(begun_at=now), EventKind.ROLLOUT_RESUMED, actor)
            self._begun = None
            return await self._let_go()

    # ------------------------------------------------------------------------------------ within

    def _is_absent(self, node_id: str) -> bool:
        return self._is_connected is not None and not self._is_connected(node_id)

    async def _load(self) -> None:
        """Read once who is under way, and count what ended while nobody counted."""
        if self._loaded_at is not None:
            return
        now = self._clock.now()
        kept = await self._waves.load()
        for one in await self._store.open_deliveries(UNDER_WAY):
            if self._claims.has_rules_for(one.node) and not self._was_counted(one, kept):
                self._claims.take(one.delivery_id, one.node, now)
        begin = min((one.noted_at for one in kept.values()), default=now)
        for one in await self._store.failed_since(begin):
            group = self.group_of(one.node)
            noted = None if group is None else kept.get(group.name)
            if group is not None and noted is not None and (one.ended_at or now) > noted.noted_at:
                await self._waves.count(group, one.node, Outcome.FAILED)
        self._loaded_at = now

    def _was_counted(self, one: OpenDelivery, kept: dict[str, WaveRecord]) -> bool:
        """Return whether a node that tells nothing was counted before the broker stopped."""
        group = self.group_of(one.node)
        record = None if group is None else kept.get(group.name)
        if group is None or record is None or one.pushed_at is None:
            return False
        return one.pushed_at + group.answer_within <= record.noted_at

    async def _verdict(self, view: DeliveryView, now: datetime) -> Verdict:
        node, delivery_id = view.node.name, view.delivery.delivery_id
        if not self._claims.has_rules_for(node):
            return Verdict(may_go=True)
        group = self.group_of(node)
        name = None if group is None else group.name
        if delivery_id in self._claims:
            return Verdict(may_go=True, group=name)
        if self._is_absent(view.node.node_id):
            why = f"node '{node}' is not connected"
            return Verdict(may_go=False, group=name, why=why, retry_at=now + ASK_ABSENT)
        judgement = await self._judge(node, group, now)
        if judgement.is_clear:
            self._waiting.pop(delivery_id, None)
            self._claims.take(delivery_id, node, now)
            return Verdict(may_go=True, group=name)
        self._have_wait(delivery_id, node, judgement, now)
        retry_at = judgement.opens_at or now + ASK_AGAIN
        return Verdict(may_go=False, group=name, why=judgement.why or "", retry_at=retry_at)

    def _have_wait(self, delivery_id: str, node: str, judgement: Judgement, now: datetime) -> None:
        is_canary = self.is_canary(node)
        if delivery_id not in self._waiting:
            self._queue = None
            if is_canary:
                self._begun = None
        self._waiting[delivery_id] = Waiting(
            delivery_id,
            node,
            judgement.why or "",
            judgement.opens_at or now,
            is_canary,
            is_shut=judgement.opens_at is not None,
        )

    async def _judge(self, node: str, group: Group | None, now: datetime) -> Judgement:
        apart_from = self._claims.apart_from(node)
        if group is None:
            if apart_from is None:
                return Judgement()
            why = f"node '{apart_from}' is reloaded, and they stay apart"
            return Judgement(hindrance=Hindrance.APART, why=why)
        party = await self._taking_part(group, now)
        facts = GroupFacts(
            wave=self._waves.of(group, now),
            under_way=self._claims.nodes_of(group),
            taking_part=party.nodes,
            canaries=party.canaries | self._claims.canaries_of(group),
        )
        return judge_delivery(node, group, facts, now=now, apart_from=apart_from)

    async def _taking_part(self, group: Group, now: datetime) -> Party:
        """Return the names of the group's nodes that have a delivery which is not pushed yet; once
        the wave is proven, only those of canaries, for nobody else is waited for."""
        only_named = bool(self._waves.of(group, now).proofs(now))
        if only_named and group.canaries is None:
            return Party()
        if self._begun is None or now - self._begun.at >= BEGUN_AGE:
            self._begun = Begun(now, await self._store.open_deliveries(BEGUN), {})
        known = self._begun.parties.get((group.name, only_named))
        if known is None:
            nodes = frozenset(
                one.node
                for one in self._begun.deliveries
                if self._takes_part(one, group, now)
                and not (only_named and not self.is_canary(one.node))
            )
            known = Party(nodes, frozenset(one for one in nodes if self.is_canary(one)))
            self._begun.parties[group.name, only_named] = known
        return known.without(self._begun.landed)

    def _takes_part(self, one: OpenDelivery, group: Group, now: datetime) -> bool:
        is_of_it = self.group_of(one.node) is group and one.delivery_id not in self._claims
        return is_of_it and now - self._last_heard(one) < group.answer_within

    def _last_heard(self, one: OpenDelivery) -> datetime:
        """Return when something was last known to go on with a delivery that is not pushed."""
        asked = self._waiting.get(one.delivery_id)
        if asked is not None:
            return asked.asked_at
        heard = one.issued_at or one.begun_at
        return max(heard, self._loaded_at or heard) if one.issued_at else heard

    def group_of(self, node: str) -> Group | None:
        """Return the node's group, None for a node that goes at once."""
        return self._claims.group_of(node)

    def _is_late(self, flight: Flight, now: datetime) -> bool:
        group = self.group_of(flight.node)
        limit = timedelta(hours=1) if group is None else group.answer_within
        return now - flight.since >= limit

    async def _land(self, delivery_id: str, outcome: Outcome) -> None:
        """Take a delivery off those that are under way, and count how it ended."""
        flight = self._claims.find(delivery_id)
        if flight is None:
            return
        group = self.group_of(flight.node)
        if group is not None:
            await self._waves.count(group, flight.node, outcome)
        self._claims.drop(delivery_id)
        if self._begun is not None:
            self._begun.landed.add(flight.node)
        if group is not None:
            await self._end_wave(group)

    async def _end_wave(self, group: Group) -> None:
        """Forget what the wave has shown once nothing of it is left: the next proves itself."""
        now = self._clock.now()
        wave = self._waves.of(group, now)
        is_spent = bool(wave.served or wave.failures) and not wave.is_halted
        if not is_spent or self._claims.nodes_of(group):
            return
        if any(self.group_of(one.node) is group for one in self._waiting.values()):
            return
        begun = await self._store.open_deliveries(BEGUN)
        if not any(self._takes_part(one, group, now) for one in begun):
            await self._waves.keep(group, Wave(begun_at=now), None, SYSTEM)

    async def _let_go(self) -> Sequence[str]:
        """Return the waiting deliveries that would be let go now, canaries first.

        They claim their places when they are judged; here they are only counted as if.
        """
        now = self._clock.now()
        chosen: list[str] = []
        full: set[str] = set()
        try:
            for one in self._in_order():
                group = self.group_of(one.node)
                name = "" if group is None else group.name
                if name in full:
                    continue
                judgement = await self._judge(one.node, group, now)
                if judgement.is_clear:
                    chosen.append(one.delivery_id)
                    self._claims.take(one.delivery_id, one.node, now)
                elif judgement.hindrance is not Hindrance.APART:
                    full.add(name)
        finally:
            for delivery_id in chosen:
                self._claims.drop(delivery_id)
        return chosen

    def _in_order(self) -> Iterator[Waiting]:
        if self._queue is None:
            found = sorted(self._waiting.values(), key=in_turn)
            self._queue = [one.delivery_id for one in found]
        queue = self._queue
        return (self._waiting[one] for one in queue if one in self._waiting)

    def _named(self, name: str) -> Group:
        group = self._plan.group(name)
        if group is None:
            raise LookupError(f"there is no rollout group '{name}'")
        return group

    def _view(self, group: Group) -> GroupView:
        return GroupView(
            group=group,
            wave=self._waves.of(group, self._clock.now()),
            under_way=sorted(self._claims.nodes_of(group)),
            waiting=[one for one in self._in_order() if self.group_of(one.node) is group],
        )
