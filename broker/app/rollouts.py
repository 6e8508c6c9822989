"""Rollout groups as the configuration names them, and what is told of them on the metrics page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Gauge

from broker.config.agents import Agents
from broker.issuance.ports import Clock
from broker.issuance.rollout_ports import GroupView, RolloutStore
from broker.issuance.rollouts import Rollouts
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, RolloutPlan
from broker.policy.windows import parse_window

__all__ = ["RolloutMetrics", "make_rollouts", "rollout_plan"]


def rollout_plan(section: Agents) -> RolloutPlan:
    """Return the groups of the configuration, in its order."""
    groups = tuple(
        Group(
            name=name,
            nodes=node_patterns(made.nodes),
            canaries=node_patterns(made.canaries) if made.canaries else None,
            at_once=made.at_once,
            halt_after=made.halt_after,
            windows=tuple(parse_window(text) for text in made.windows),
            answer_within=made.answer_within,
        )
        for name, made in section.groups.items()
    )
    apart = tuple(node_patterns(one) for made in section.groups.values() for one in made.apart)
    return RolloutPlan(groups=groups, apart=apart)


def make_rollouts(
    section: Agents, store: RolloutStore, clock: Clock, is_connected: Callable[[str], bool]
) -> Rollouts:
    """Return the gate before every push."""
    return Rollouts(store, rollout_plan(section), clock, is_connected=is_connected)


class RolloutMetrics:
    """Series for each rollout group."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"penstock_rollout_{name}", text, ("group",), registry=registry)

        self._halted = gauge("halted", "Whether the wave of a rollout group is halted.")
        self._failures = gauge("failures", "Failures and roll-backs of the group's wave so far.")
        self._under_way = gauge("nodes_under_way", "Nodes that are being reloaded now.")
        self._waiting = gauge("deliveries_waiting", "Certificates that wait for their turn.")

    def show(self, views: Sequence[GroupView]) -> None:
        """Show these groups."""
        for view in views:
            name = view.group.name
            self._halted.labels(name).set(view.wave.is_halted)
            self._failures.labels(name).set(view.wave.failures)
            self._under_way.labels(name).set(len(view.under_way))
            self._waiting.labels(name).set(len(view.waiting))
