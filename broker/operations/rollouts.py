"""The part of the desk about rollout groups: where their waves stand, and what halts them."""

from __future__ import annotations

from typing import Any

from broker.issuance.events import Actor
from broker.issuance.rollout_ports import GroupView
from broker.issuance.rollouts import Rollouts
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.units import format_duration
from broker.policy.windows import next_opening
from broker.web.operator import OperationError

__all__ = ["RolloutDesk"]

DEFAULT_WHY = "a person halted it"
"""Why a group is halted where nobody gave a reason."""


class RolloutDesk(Desk):
    """Commands about rollout groups."""

    @property
    def _rollouts(self) -> Rollouts:
        if self._rooms.rollouts is None:
            raise OperationError(
                "this broker serves no nodes", "add agents to its configuration, see docs/agents.md"
            )
        return self._rooms.rollouts

    async def rollout_list(self) -> Any:
        """Return every rollout group with where its wave stands."""
        return [self._rollout_row(view) for view in await self._rollouts.views()]

    async def rollout_show(self, *, group: str) -> Any:
        """Return one group with all that is under way and waits."""
        view = await self._rollout(group)
        waiting = [
            {"node": one.node, "delivery": one.delivery_id, "why": one.why}
            for one in view.waiting[:1000]
        ]
        made = view.group
        return {
            **self._rollout_row(view),
            "at_once": made.at_once,
            "halt_after": made.halt_after,
            "answer_within": format_duration(made.answer_within),
            "wave_begun": time_view(view.wave.begun_at),
            "canaries_seen": sorted(view.wave.served),
            "nodes_under_way": list(view.under_way),
            "waits": waiting,
        }

    async def rollout_halt(self, *, actor: Actor, group: str) -> Any:
        """Push nothing more to a group until it is resumed."""
        await self._rollout(group)
        await self._rollouts.halt(group, actor=actor, why=actor.reason or DEFAULT_WHY)
        return self._rollout_row(await self._rollout(group))

    async def rollout_resume(self, *, actor: Actor, group: str) -> Any:
        """Begin a halted group's wave anew, its canaries first."""
        if not (await self._rollout(group)).wave.is_halted:
            raise OperationError(f"rollout group '{group}' is not halted")
        self._rollouts.on_free(await self._rollouts.resume(group, actor=actor))
        return self._rollout_row(await self._rollout(group))

    async def _rollout(self, group: str) -> GroupView:
        views = await self._rollouts.views()
        found = next((view for view in views if view.group.name == group), None)
        if found is None:
            names = ", ".join(view.group.name for view in views) or "none"
            raise OperationError(f"there is no rollout group '{group}'", f"there is {names}")
        return found

    def _rollout_row(self, view: GroupView) -> View:
        now = self._rooms.clock.now()
        wave = view.wave
        opens_at = next_opening(view.group.windows, now)
        return {
            "group": view.group.name,
            "status": "halted" if wave.is_halted else "going",
            "halted": time_view(wave.halted_at),
            "why": wave.halted_why,
            "under_way": len(view.under_way),
            "waiting": len(view.waiting),
            "failures": wave.failures,
            "opens": time_view(opens_at) if opens_at > now else None,
        }
