"""What serves agents, put together: nodes, how they join, the channel, its listener.

Each part that takes what agents tell is named here by a line.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from broker.app.agent_limits import agent_limits, agent_origins, reported_addresses
from broker.app.agent_tls import AgentTls
from broker.app.deliveries import leave_deliveries, make_deliveries
from broker.app.fleet import Fleet, make_fleet
from broker.app.identity import Identity
from broker.app.node_ca import NodeCa
from broker.app.node_metrics import NodeMetrics
from broker.app.quotas import make_quotas
from broker.app.vouching import Vouching
from broker.channel.application import create_channel_app
from broker.channel.authentication import Authentication
from broker.channel.connections import LiveConnections
from broker.channel.ports import BundleReports, ChannelRooms
from broker.config.agents import Agents
from broker.config.cluster_checks import builtin_upstreams
from broker.issuance.budgets import Limits
from broker.issuance.deliveries import Deliveries
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.forgetting import Forgetting
from broker.issuance.joining import Joining, TokenVoucher
from broker.issuance.node_ports import (
    ChallengeReports,
    EnrolmentMethod,
    NodeReports,
)
from broker.issuance.node_refusals import NodeRefusals
from broker.issuance.nodes import Nodes
from broker.issuance.pod_ends import PodEnds
from broker.issuance.regranting import Regrants
from broker.issuance.standstill import Standstill
from broker.issuance.workload_review import WorkloadReviews
from broker.web.guarded import Guard
from broker.web.limits import Limit
from broker.web.listeners import start_tcp
from broker.web.problems import incident_door

if TYPE_CHECKING:
    from broker.app.outside import Outside
    from broker.app.workshop import Workshop

__all__ = ["AgentRooms", "make_agent_rooms", "start_agents"]

IDLE_TIME: Final = timedelta(seconds=40)
"""How long a connection of an agent may wait for the next request; a stream is one request."""

HANDSHAKE_TIME: Final = timedelta(seconds=30)
"""Shortest time that a handshake is given here.  After a restart all agents come at once, each
handshake costs the broker 2 ms, and who is turned away for having waited only comes again."""

SPARE_CONNECTIONS: Final = 64
"""How many more connections one address may hold: nodes that ask to be let in, and are told that
there is no room."""

_log = structlog.get_logger("penstock")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRooms:
    """What serves agents."""

    section: Agents
    node_ca: NodeCa
    connections: LiveConnections
    joining: Joining
    nodes: Nodes
    forgetting: Forgetting
    pod_ends: PodEnds
    reports: NodeReports
    deliveries: Deliveries
    challenges: ChallengeReports
    bundles: BundleReports
    metrics: NodeMetrics
    fleet: Fleet
    vouching: Vouching
    workloads: WorkloadReviews
    is_held: Standstill

    def turns(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        """Return what is to be done again and again, by name."""
        return (
            ("fleet", self.fleet.take_turn),
            ("renewals-due", self.deliveries.take_turn),
            ("nodes-tidied", self.nodes.tidy),
            ("deliveries-forgotten", self.forgetting.take_turn),
            ("pods-ended", self.pod_ends.take_turn),
        )


def make_agent_rooms(made: Workshop) -> AgentRooms | None:
    """Return what serves agents, None where the configuration has none."""
    outside = made.outside
    section = outside.config.agents
    if section is None:
        leave_deliveries(made.dispatcher, outside.clock)
        return None
    node_ca = NodeCa(section.identity, outside.upstreams.authorities.get)
    connections = LiveConnections(limit=section.connections)
    vouching = _vouching(outside, section)
    metrics = _metrics(outside, connections)
    joining = _joining(made, section, node_ca, vouching)
    joining.on_outcome = metrics.enrolled
    nodes = _nodes(made, node_ca, connections, joining)
    joining.displace = nodes.end
    fleet = make_fleet(made, section, connections)
    deliveries = make_deliveries(
        made,
        connections=connections,
        gate=fleet.rollouts,
        windows=fleet.rollouts,
        challenges=fleet.validations,
    )
    fleet.rollouts.on_free = deliveries.pushing.begin
    return AgentRooms(
        section=section,
        node_ca=node_ca,
        connections=connections,
        joining=joining,
        nodes=nodes,
        pod_ends=PodEnds(outside.store, outside.clock, end=nodes.retire),
        forgetting=Forgetting(outside.store, outside.clock, keep=section.keep_deliveries),
        reports=deliveries,
        deliveries=deliveries,
        challenges=outside.node_answers,
        bundles=fleet.bundles,
        metrics=metrics,
        fleet=fleet,
        vouching=vouching,
        workloads=_workloads(made, vouching),
        is_held=made.recovery.standstill,
    )


def _joining(made: Workshop, section: Agents, node_ca: NodeCa, vouching: Vouching) -> Joining:
    outside = made.outside
    return Joining(
        outside.store,
        node_ca,
        outside.clock,
        vouchers={
            EnrolmentMethod.TOKEN: TokenVoucher(outside.store, outside.clock),
            **vouching.vouchers,
        },
        return_within=section.identity.return_within,
        freezes=made.freezes,
        regrants=Regrants(vouching.clusters),
    )


def _vouching(outside: Outside, section: Agents) -> Vouching:
    built_in = functools.partial(builtin_upstreams, outside.config)
    return Vouching(section, outside.clock, built_in=built_in)


def _workloads(made: Workshop, vouching: Vouching) -> WorkloadReviews:
    outside = made.outside
    quotas = make_quotas(outside.budget, outside.store, outside.clock)
    return WorkloadReviews(
        vouching.clusters,
        planner=made.planner,
        policies=outside.policies,
        limits=Limits(quotas, outside.store, outside.clock),
        clock=outside.clock,
        freezes=made.freezes,
    )


def _nodes(
    made: Workshop, node_ca: NodeCa, connections: LiveConnections, joining: Joining
) -> Nodes:
    outside = made.outside
    return Nodes(
        outside.store,
        node_ca,
        connections,
        outside.clock,
        accounts=made.accounts,
        absences=joining.absences,
        communities=tuple(outside.config.communities),
    )


def _metrics(outside: Outside, connections: LiveConnections) -> NodeMetrics:
    """Return what counts, with figures that are taken at each scrape."""
    metrics = NodeMetrics(outside.telemetry.registry)

    async def show_figures() -> None:
        with suppress(Unreachable, Broken):
            metrics.show(
                await outside.store.count_nodes(),
                connections=len(connections),
                waiting=await outside.store.count_messages(),
            )

    outside.telemetry.before_render.append(show_figures)
    return metrics


async def start_agents(
    rooms: AgentRooms, outside: Outside, identity: Identity, stack: AsyncExitStack
) -> None:
    """Open the agents' listener, if one is configured; *stack* closes it.

    Raises:
        Broken: The address cannot be used.
    """
    listen = outside.config.listen.agents
    if listen is None:
        return
    refusals = rooms.joining.refusals
    limits = agent_limits(outside.config.limits.rates, outside.clock, outside.telemetry)
    origins = agent_origins(listen)
    authentication = Authentication(outside.store, outside.clock, refusals, doorkeeper=limits)
    stack.push_async_callback(rooms.vouching.close)
    stack.push_async_callback(rooms.deliveries.stop)
    tls = AgentTls(identity.files, rooms.node_ca.anchors, rooms.section.client_anchors)
    await asyncio.to_thread(tls.refresh)
    _follow_events(rooms, outside, authentication, tls)
    task = asyncio.create_task(_keep_fresh(tls))
    stack.callback(task.cancel)
    listener = await start_tcp(
        create_channel_app(
            _channel(rooms, outside, refusals),
            authentication,
            outer=(incident_door, reported_addresses(origins)),
            inner=(limits.middleware,),
        ),
        host=listen.address.host,
        port=listen.address.port,
        tls=tls.front,
        idle_time=IDLE_TIME,
        guard=Guard(
            handshake_time=max(outside.config.limits.handshake_timeout, HANDSHAKE_TIME),
            # All agents may come through one load balancer, each with a stream and a request.
            connections=2 * rooms.section.connections + SPARE_CONNECTIONS,
            on_refused=lambda: outside.telemetry.limit_reached(Limit.CONNECTIONS),
            is_unbounded=origins.is_proxy,
        ),
        sockets=outside.lasting.sockets,
    )
    outside.draining.add(listener.stop)
    _log.info("listening for agents", address=str(listen.address))


def _channel(rooms: AgentRooms, outside: Outside, refusals: NodeRefusals) -> ChannelRooms:
    return ChannelRooms(
        store=outside.store,
        clock=outside.clock,
        connections=rooms.connections,
        joining=rooms.joining,
        reports=rooms.reports,
        challenges=rooms.challenges,
        bundles=rooms.bundles,
        observer=rooms.metrics,
        refusals=refusals,
        is_held=lambda: rooms.is_held.restoration is not None,
    )


REFRESH_SECONDS: Final = 5
"""How often it is looked for a new pair or new anchors, in seconds: two calls of stat(2)."""


async def _keep_fresh(tls: AgentTls) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        await asyncio.to_thread(tls.refresh)


def _follow_events(
    rooms: AgentRooms, outside: Outside, authentication: Authentication, tls: AgentTls
) -> None:
    """Have what happens to nodes hold at once: on their connections, and for what is remembered."""
    first = outside.store.on_committed

    def follow(events: Sequence[Event]) -> None:
        if first is not None:
            first(events)
        for event in events:
            if event.kind in _IDENTITY_EVENTS:
                # Whoever signed the identity is an anchor before the node has it.
                tls.refresh()
            if event.kind in _NODE_EVENTS:
                node_id = str(event.data.get("node_id"))
                authentication.forget(node_id)
                if event.kind is EventKind.NODE_REVOKED:
                    rooms.connections.drop(node_id)
                elif event.kind in _DRAINING:
                    is_drained = event.kind is EventKind.NODE_DRAINED
                    rooms.connections.set_drained(node_id, is_drained=is_drained)

    outside.store.on_committed = follow


_IDENTITY_EVENTS: Final = frozenset(
    {EventKind.NODE_ENROLLED, EventKind.NODE_RENEWED, EventKind.NODE_RETURNED}
)

_DRAINING: Final = frozenset({EventKind.NODE_DRAINED, EventKind.NODE_RESUMED})

_NODE_EVENTS: Final = frozenset(
    {
        EventKind.NODE_DRAINED,
        EventKind.NODE_RESUMED,
        EventKind.NODE_REVOKED,
        EventKind.NODE_RENEWED,
        EventKind.NODE_RETURNED,
    }
)
