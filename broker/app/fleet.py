"""What moves many nodes at once: rollout groups, incidents, bundles, challenges on nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.app.bundles import ConfiguredBundles
from broker.app.rollouts import RolloutMetrics, make_rollouts
from broker.config.agents import Agents
from broker.issuance.bundles import Bundles
from broker.issuance.node_challenges import NodeValidations
from broker.issuance.node_ports import Connections
from broker.issuance.records import OrderRecord
from broker.issuance.rollouts import Rollouts
from broker.protocol.challenges import ChallengeType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.app.workshop import Workshop

__all__ = ["Fleet", "make_fleet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What moves many nodes at once."""

    rollouts: Rollouts
    validations: NodeValidations
    bundles: Bundles
    communities: tuple[str, ...]

    async def take_turn(self) -> None:
        """Do what is due by the clock alone."""
        await self.rollouts.take_turn()
        await self.bundles.take_turn(self.communities)


def make_fleet(made: Workshop, section: Agents, connections: Connections) -> Fleet:
    """Put it together; nothing is asked of anybody yet."""
    outside = made.outside
    rollouts = make_rollouts(section, outside.store, outside.clock, connections.is_connected)
    metrics = RolloutMetrics(outside.telemetry.registry)

    outside.telemetry.before_render.append(lambda: metrics.show(rollouts.known_views()))
    outside.node_answers.connections = connections

    def offered(order: OrderRecord) -> Sequence[ChallengeType]:
        profile = outside.policies.current(order.community).profiles.get(order.profile)
        return () if profile is None else profile.on_nodes.challenges

    validations = NodeValidations(outside.node_answers, made.authorizations, offered=offered)
    source = ConfiguredBundles(outside.config, outside.upstreams)
    return Fleet(
        rollouts=rollouts,
        validations=validations,
        bundles=Bundles(outside.store, source, connections, outside.clock),
        communities=tuple(outside.config.communities),
    )
