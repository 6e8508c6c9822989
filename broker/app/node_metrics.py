"""What is told about nodes and their channel on the metrics page."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.issuance.node_ports import NodeStatus

__all__ = ["NodeMetrics"]


class NodeMetrics:
    """Nodes by status, connections, messages and enrolments; none is labelled by node."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._nodes = Gauge("penstock_nodes", "Nodes by status.", ("status",), registry=registry)
        self._connections = Gauge(
            "penstock_node_connections", "Agents that are connected now.", registry=registry
        )
        self._waiting = Gauge(
            "penstock_node_messages_waiting",
            "Messages that nodes have not acknowledged.",
            registry=registry,
        )
        self._sent = Counter(
            "penstock_node_messages_sent",
            "Messages that were sent to nodes; one that is sent again counts again.",
            ("kind",),
            registry=registry,
        )
        self._received = Counter(
            "penstock_node_messages_received",
            "Messages that came from nodes, by what became of them.",
            ("kind", "outcome"),
            registry=registry,
        )
        self._enrolments = Counter(
            "penstock_node_enrolments",
            "Requests of nodes to be let in, by method and outcome.",
            ("method", "outcome"),
            registry=registry,
        )

    def show(self, nodes: Mapping[NodeStatus, int], *, connections: int, waiting: int) -> None:
        """Show these figures."""
        for status, number in nodes.items():
            self._nodes.labels(status.value).set(number)
        self._connections.set(connections)
        self._waiting.set(waiting)

    def sent(self, kind: str) -> None:
        """Count a message to a node."""
        self._sent.labels(kind).inc()

    def received(self, kind: str, outcome: str) -> None:
        """Count a message of a node."""
        self._received.labels(kind, outcome).inc()

    def enrolled(self, method: str, outcome: str) -> None:
        """Count a request to be let in."""
        self._enrolments.labels(method, outcome).inc()
