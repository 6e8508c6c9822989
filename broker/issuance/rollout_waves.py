"""Where the wave of each rollout group stands: counted here, written for what a restart must not
forget."""

from __future__ import annotations

from datetime import datetime

import structlog

from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock
from broker.issuance.rollout_ports import RolloutStore, WaveRecord
from broker.policy.rollout import Group, Outcome, Wave, after_outcome

__all__ = ["Waves"]

log = structlog.get_logger(__name__)


class Waves:
    """The waves of all groups; `rollouts.Rollouts` asks under its lock."""

    def __init__(self, store: RolloutStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waves: dict[str, Wave] = {}

    async def load(self) -> dict[str, WaveRecord]:
        """Read what was kept, and return it by group."""
        kept = {one.group_name: one for one in await self._store.waves()}
        self._waves = {name: _wave_of(record) for name, record in kept.items()}
        return kept

    def of(self, group: Group, now: datetime) -> Wave:
        """Return the group's wave; one that has shown nothing yet begins now."""
        return self._waves.setdefault(group.name, Wave(begun_at=now))

    async def count(self, group: Group, node: str, outcome: Outcome) -> None:
        """Note how a delivery of *node* ended; a failure too many halts the wave."""
        now = self._clock.now()
        before = self.of(group, now)
        after = after_outcome(node, group, before, outcome, now=now)
        if after == before:
            return
        kind = EventKind.ROLLOUT_HALTED if after.is_halted else None
        await self.keep(group, after, kind, SYSTEM)

    async def keep(self, group: Group, wave: Wave, kind: EventKind | None, actor: Actor) -> None:
        """Have *wave* be the group's, and tell what happened to it."""
        now = self._clock.now()
        events = []
        if kind is not None:
            data = {"group": group.name, "failures": wave.failures, "why": wave.halted_why}
            events.append(Event(kind=kind, at=now, actor=actor, data=data))
        await self._store.keep_wave(_record_of(group.name, wave, now), events)
        self._waves[group.name] = wave
        if kind is EventKind.ROLLOUT_HALTED:
            log.error("rollout halted", group=group.name, reason=wave.halted_why)


def _wave_of(record: WaveRecord) -> Wave:
    return Wave(
        begun_at=record.begun_at,
        served=frozenset(record.served),
        served_at=record.served_at,
        failures=record.failures,
        halted_at=record.halted_at,
        halted_why=record.halted_why,
    )


def _record_of(name: str, wave: Wave, now: datetime) -> WaveRecord:
    return WaveRecord(
        group_name=name,
        begun_at=wave.begun_at,
        served=tuple(sorted(wave.served)),
        served_at=wave.served_at,
        failures=wave.failures,
        halted_at=wave.halted_at,
        halted_why=wave.halted_why,
        noted_at=now,
    )
